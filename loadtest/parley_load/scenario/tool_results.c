/*
 * tool_results - results posted for calls that have been answered: each makes
 * the whole way to the turn's owner and back (409 already_answered), as an
 * accepted one does, and can be repeated.
 *
 * Each user holds one streamed turn with two client tools open, answers the
 * first, and posts that result again and again over a second connection, which
 * reaches whatever worker the kernel chose, of the same host or of another (--other).
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/user.h"

struct poster {
	struct load *load;
	struct conn *stream, *conn;
	char session[USER_SESSION_MAX];
	struct buf seen; /* of the stream, until the first call */
	struct buf body;
	uint64_t began_us;
};

static void
post(struct poster *p)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/sessions/%s/tool-results", p->session);
	p->began_us = clock_mono_us();
	conn_request(p->conn, "POST", path, buf_str(&p->body));
}

static void
on_posted(void *arg, int status)
{
	struct poster *p = arg;

	if (status != 202)
		load_done(
		    p->load, status == 409 ? LOAD_WHOLE : load_outcome(status), p->began_us, 0);
	if (load_next(p->load))
		post(p);
}

static const struct conn_handlers post_handlers = {NULL, on_posted};

static void
on_stream_data(void *arg, struct str bytes)
{
	struct poster *p = arg;

	if (p->body.len > 0)
		return;
	buf_add_str(&p->seen, bytes);
	struct str call = user_find(buf_str(&p->seen), "tool_call_id");
	if (call.len == 0)
		return;
	buf_printf(
	    &p->body, "{\"tool_call_id\":\"%.*s\",\"output\":\"done\"}", (int)call.len, call.p);
	post(p);
}

static void
on_stream_done(void *arg, int status)
{
	struct poster *p = arg;

	/* The turn must outlive the load. */
	if (!p->load->is_closing) {
		fprintf(stderr, "parley_load: a turn ended too early, status %d\n", status);
		p->load->tally->failed++;
	}
}

static const struct conn_handlers stream_handlers = {on_stream_data, on_stream_done};

static void
on_session(void *arg, struct str id)
{
	static const char body[] =
	    "{\"input\":\"[[mock tool=a args={} tool=b args={}]]\",\"stream\":true,\"tools\":["
	    "{\"type\":\"function\",\"function\":{\"name\":\"a\"}},"
	    "{\"type\":\"function\",\"function\":{\"name\":\"b\"}}]}";
	struct poster *p = arg;
	char path[128];

	if (!user_keep_session(p->load, id, p->session))
		return;
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", p->session);
	conn_request(p->stream, "POST", path, STR(body));
}

static void
begin(struct load *load, uint32_t user)
{
	struct poster *p = xcalloc(1, sizeof(*p));

	(void)user;
	p->load = load;
	p->stream = conn_new(&load->target, &stream_handlers, p);
	p->conn = conn_new(&load->other, &post_handlers, p);
	user_open_session(load, on_session, p);
}

const struct scenario scenario_tool_results = {.name = "tool-results",
    .help = "results of client tools, posted to any worker",
    .begin = begin};
