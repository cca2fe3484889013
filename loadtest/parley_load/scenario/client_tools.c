/*
 * client_tools - turns that call a tool of the client: its result is posted over
 * a new connection, which reaches any worker, and the turn goes on to its answer.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/user.h"

struct helper {
	struct load *load;
	struct conn *stream, *post;
	struct event_reader reader;
	struct buf seen;   /* of the stream, until the call is there */
	struct buf result; /* empty: no call yet */
	char session[USER_SESSION_MAX];
	uint64_t began_us, first_us, posted_us;
	int status; /* of the stream, once it has ended */
	bool is_posting, is_broken, saw_last, has_ended;
};

static void
ask(void *arg)
{
	struct helper *h = arg;
	const struct options *o = h->load->options;
	struct buf body = BUF_INIT;
	char path[128];

	if (!load_next(h->load))
		return;
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", h->session);
	buf_printf(&body,
	    "{\"input\":\"[[mock tool=a args={} tokens=%u "
	    "interval=%u]]\",\"stream\":true,\"tools\":["
	    "{\"type\":\"function\",\"function\":{\"name\":\"a\"}}]}",
	    o->tokens, o->interval_ms);
	buf_clear(&h->seen);
	buf_clear(&h->result);
	h->reader = (struct event_reader){0};
	h->first_us = 0;
	h->is_posting = h->is_broken = h->saw_last = h->has_ended = false;
	h->began_us = clock_mono_us();
	conn_request(h->stream, "POST", path, buf_str(&body));
	buf_fini(&body);
}

/* The stream has ended and the result's answer is there. */
static void
end_if_both(struct helper *h)
{
	enum outcome outcome = load_outcome(h->status);

	if (!h->has_ended || h->is_posting)
		return;
	if (outcome == LOAD_WHOLE && (h->is_broken || !h->saw_last || h->result.len == 0))
		outcome = LOAD_FAILED;
	load_done(h->load, outcome, h->began_us, h->first_us);
	load_after(h->load,
	    load_think_ms(h->load, h->began_us) + 1000 * conn_retry_after_s(h->stream), ask, h);
}

static void
post(void *arg)
{
	struct helper *h = arg;
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/tool-results", h->session);
	h->posted_us = clock_mono_us();
	conn_request(h->post, "POST", path, buf_str(&h->result));
}

static void
on_posted(void *arg, int status)
{
	struct helper *h = arg;

	conn_close(h->post);
	if (status == 503 && !h->has_ended) {
		load_after(h->load, 1000 * conn_retry_after_s(h->post), post, h);
		return;
	}
	h->is_posting = false;
	h->is_broken |= status != 202;
	if (status == 202)
		latency_add(&h->load->tally->tool, clock_mono_us() - h->posted_us);
	end_if_both(h);
}

static const struct conn_handlers post_handlers = {NULL, on_posted};

static void
look_for_call(struct helper *h, struct str bytes)
{
	buf_add_str(&h->seen, bytes);
	struct str call = user_find(buf_str(&h->seen), "tool_call_id");

	if (call.len == 0)
		return;
	buf_printf(
	    &h->result, "{\"tool_call_id\":\"%.*s\",\"output\":\"done\"}", (int)call.len, call.p);
	h->is_posting = true;
	post(h);
}

static void
on_data(void *arg, struct str bytes)
{
	struct helper *h = arg;
	struct seen_event event;

	if (conn_status(h->stream) != 200)
		return;
	if (h->result.len == 0)
		look_for_call(h, bytes);
	while (event_reader_next(&h->reader, &bytes, &event)) {
		bool is_delta = str_eq(event.name, STR("text.delta"));

		h->load->tally->deltas += is_delta;
		if (is_delta && h->first_us == 0)
			h->first_us = clock_mono_us();
		h->saw_last |= str_eq(event.name, STR("turn.completed"));
	}
}

static void
on_done(void *arg, int status)
{
	struct helper *h = arg;

	h->has_ended = true;
	h->status = status;
	end_if_both(h);
}

static const struct conn_handlers stream_handlers = {on_data, on_done};

static void
on_session(void *arg, struct str id)
{
	struct helper *h = arg;

	if (user_keep_session(h->load, id, h->session))
		ask(h);
}

static void
begin(struct load *load, uint32_t user)
{
	struct helper *h = xcalloc(1, sizeof(*h));

	(void)user;
	h->load = load;
	h->stream = conn_new(&load->target, &stream_handlers, h);
	h->post = conn_new(&load->target, &post_handlers, h);
	user_open_session(load, on_session, h);
}

const struct scenario scenario_client_tools = {.name = "client-tools",
    .help = "turns that call a tool of the client, answered on any worker",
    .begin = begin};
