/*
 * replay - a finished turn is read again from its first event, again and again, each time
 * over a new connection, which reaches whatever worker the kernel chose, of the same host
 * or of another (--other). An operation is a replay that has every event in order, as many as
 * the turn had when it ran.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/user.h"

struct viewer {
	struct load *load;
	struct conn *stream, *conn;
	struct event_reader reader;
	char session[USER_SESSION_MAX], path[192];
	uint64_t events; /* of the turn */
	uint64_t seq, began_us, first_us;
	bool is_in_order, saw_last;
};

static struct viewer **viewers;
static uint32_t begun, ready;

static void
read_again(void *arg)
{
	struct viewer *v = arg;

	if (!load_next(v->load))
		return;
	v->reader = (struct event_reader){0};
	v->seq = v->first_us = 0;
	v->is_in_order = true;
	v->saw_last = false;
	v->began_us = clock_mono_us();
	conn_follow(v->conn, v->path, NULL);
}

static void
take_events(struct viewer *v, struct str bytes)
{
	struct seen_event event;

	while (event_reader_next(&v->reader, &bytes, &event)) {
		v->is_in_order &= event.seq == v->seq + 1;
		v->seq = event.seq;
		v->saw_last |= str_eq(event.name, STR("turn.completed"));
		if (v->first_us == 0)
			v->first_us = clock_mono_us();
	}
}

static void
on_data(void *arg, struct str bytes)
{
	struct viewer *v = arg;

	if (conn_status(v->conn) == 200)
		take_events(v, bytes);
}

static void
on_done(void *arg, int status)
{
	struct viewer *v = arg;
	enum outcome outcome = load_outcome(status);

	if (outcome == LOAD_WHOLE && (!v->saw_last || !v->is_in_order || v->seq != v->events))
		outcome = LOAD_FAILED;
	v->load->tally->deltas += v->seq;
	load_done(v->load, outcome, v->began_us, v->first_us);
	load_after(v->load, 0, read_again, v);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
on_stream_data(void *arg, struct str bytes)
{
	struct viewer *v = arg;

	if (conn_status(v->stream) == 200)
		take_events(v, bytes);
}

/* What is measured begins when all turns have ended. */
static void
settle(struct load *load)
{
	if (++ready < load->users)
		return;
	load_measure(load);
	for (uint32_t i = 0; i < begun; i++)
		if (viewers[i]->events > 0)
			read_again(viewers[i]);
}

static void
on_stream_done(void *arg, int status)
{
	struct viewer *v = arg;

	if (status != 200 || !v->saw_last) {
		fprintf(stderr, "parley_load: a turn to be replayed failed, status %d\n", status);
		v->load->tally->failed++;
		load_gone(v->load);
	} else {
		v->events = v->seq;
		snprintf(v->path, sizeof(v->path), "/v1/sessions/%s/turns/%s/events", v->session,
		    v->reader.turn);
	}
	settle(v->load);
}

static const struct conn_handlers stream_handlers = {on_stream_data, on_stream_done};

static void
on_session(void *arg, struct str id)
{
	struct viewer *v = arg;
	const struct options *o = v->load->options;
	struct buf body = BUF_INIT;
	char path[128];

	if (!user_keep_session(v->load, id, v->session))
		return;
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", v->session);
	buf_printf(&body, "{\"input\":\"[[mock tokens=%u interval=%u]]\",\"stream\":true}",
	    o->tokens, o->interval_ms);
	conn_request(v->stream, "POST", path, buf_str(&body));
	buf_fini(&body);
}

static void
begin(struct load *load, uint32_t user)
{
	struct viewer *v = xcalloc(1, sizeof(*v));

	check(user == begun);
	v->load = load;
	v->is_in_order = true;
	viewers[begun++] = v;
	v->stream = conn_new(&load->target, &stream_handlers, v);
	v->conn = conn_new(&load->other, &handlers, v);
	user_open_session(load, on_session, v);
}

static void
start(struct load *load)
{
	viewers = xcalloc(load->users, sizeof(struct viewer *));
}

const struct scenario scenario_replay = {.name = "replay",
    .help = "a finished turn, read again from its beginning on any worker",
    .prepares = true,
    .begin = begin,
    .start = start};
