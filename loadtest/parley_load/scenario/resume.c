/*
 * resume - people on trains: a turn whose stream is cut in the middle and resumed
 * with Last-Event-ID over a new connection, on whatever worker that reaches. An
 * operation is a turn of which every event came once and in order.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/user.h"

struct rider {
	struct load *load;
	struct conn *conn;
	struct event_reader reader;
	char session[USER_SESSION_MAX];
	uint64_t seq, cut_after, began_us, first_us, cut_us;
	bool is_cutting, was_cut, is_in_order, saw_last;
};

static void
ask(void *arg)
{
	struct rider *r = arg;
	const struct options *o = r->load->options;
	struct buf body = BUF_INIT;
	char path[128];

	if (!load_next(r->load))
		return;
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", r->session);
	buf_printf(&body, "{\"input\":\"[[mock tokens=%u interval=%u]]\",\"stream\":true}",
	    o->tokens, o->interval_ms);
	r->reader = (struct event_reader){0};
	r->seq = r->first_us = r->cut_us = 0;
	r->cut_after = 1 + (uint64_t)random() % o->tokens;
	r->is_cutting = r->was_cut = r->saw_last = false;
	r->is_in_order = true;
	r->began_us = clock_mono_us();
	conn_request(r->conn, "POST", path, buf_str(&body));
	buf_fini(&body);
}

static void
cut(void *arg)
{
	struct rider *r = arg;
	char path[192], last[64];

	if (!r->is_cutting) /* the stream has ended meanwhile */
		return;
	r->is_cutting = false;
	r->was_cut = true;
	r->cut_us = clock_mono_us();
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns/%s/events", r->session, r->reader.turn);
	snprintf(last, sizeof(last), "%s.%llu", r->reader.turn, (unsigned long long)r->seq);
	conn_close(r->conn);
	r->reader = (struct event_reader){0};
	conn_follow(r->conn, path, last);
}

static void
take_event(struct rider *r, const struct seen_event *event)
{
	uint64_t now_us = clock_mono_us();

	r->is_in_order &= event->seq == r->seq + 1;
	r->seq = event->seq;
	r->saw_last |= str_eq(event->name, STR("turn.completed"));
	if (r->cut_us != 0)
		latency_add(&r->load->tally->resume, now_us - r->cut_us);
	r->cut_us = 0;
	if (!str_eq(event->name, STR("text.delta")))
		return;
	r->load->tally->deltas++;
	if (r->first_us == 0)
		r->first_us = now_us;
}

/* A busy server puts tokens together: a turn of few events is cut before its last one. */
static bool
is_before_last(const struct seen_event *event)
{
	return str_eq(event->name, STR("usage"));
}

static void
on_data(void *arg, struct str bytes)
{
	struct rider *r = arg;
	struct seen_event event;

	while (!r->is_cutting && conn_status(r->conn) == 200 &&
	       event_reader_next(&r->reader, &bytes, &event)) {
		take_event(r, &event);
		r->is_cutting = !r->was_cut && (r->seq >= r->cut_after || is_before_last(&event));
		if (r->is_cutting)
			load_after(r->load, 0, cut, r);
	}
}

static void
on_done(void *arg, int status)
{
	struct rider *r = arg;
	enum outcome outcome = load_outcome(status);

	/* The rest of the answer came with what was to be the last before the cut. */
	if (r->is_cutting && status == 200)
		return;
	r->is_cutting = false;
	if (outcome == LOAD_WHOLE && (!r->saw_last || !r->is_in_order))
		outcome = LOAD_FAILED;
	load_done(r->load, outcome, r->began_us, r->first_us);
	load_after(r->load,
	    load_think_ms(r->load, r->began_us) + 1000 * conn_retry_after_s(r->conn), ask, r);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
on_session(void *arg, struct str id)
{
	struct rider *r = arg;

	if (user_keep_session(r->load, id, r->session))
		ask(r);
}

static void
begin(struct load *load, uint32_t user)
{
	struct rider *r = xcalloc(1, sizeof(*r));

	(void)user;
	r->load = load;
	r->conn = conn_new(&load->target, &handlers, r);
	user_open_session(load, on_session, r);
}

const struct scenario scenario_resume = {
    .name = "resume", .help = "turns whose stream is cut once and resumed", .begin = begin};
