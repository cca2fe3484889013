/*
 * idle - connections that are there and say nothing: keep-alive after one
 * request, or an event stream of a turn that waits. They are held until the
 * program is told to end; an operation is one connection that stands.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/user.h"

struct idler {
	struct load *load;
	struct conn *conn;
	uint64_t began_us;
	bool stands;
};

/* Opened one after the other, `users` at a time, until the goal stands. */
static void open_next(struct load *, const struct conn_handlers *, const char *path);

static const struct conn_handlers keepalive_handlers, sse_handlers;
static char sse_path[192];

static void
on_answered(void *arg, int status)
{
	struct idler *idler = arg;

	if (idler->stands)
		return;
	idler->stands = true;
	load_done(idler->load, status == 200, idler->began_us, 0);
	open_next(idler->load, &keepalive_handlers, "/health/live");
}

static void
on_stream(void *arg, struct str bytes)
{
	struct idler *idler = arg;

	(void)bytes;
	if (idler->stands)
		return;
	idler->stands = true;
	load_done(idler->load, true, idler->began_us, 0);
	open_next(idler->load, &sse_handlers, sse_path);
}

static void
on_stream_end(void *arg, int status)
{
	struct idler *idler = arg;

	if (idler->load->failed++ == 0)
		fprintf(stderr, "a stream ended, status %d\n", status);
}

static const struct conn_handlers keepalive_handlers = {NULL, on_answered};
static const struct conn_handlers sse_handlers = {on_stream, on_stream_end};

static void
open_next(struct load *load, const struct conn_handlers *handlers, const char *path)
{
	if (!load_next(load))
		return;
	struct idler *idler = xcalloc(1, sizeof(*idler));
	idler->load = load;
	idler->began_us = clock_mono_us();
	idler->conn = conn_new(&load->target, handlers, idler);
	conn_request(idler->conn, "GET", path, STR_NONE);
}

static void
start_keepalive(struct load *load)
{
	for (uint32_t i = 0; i < load->users; i++)
		open_next(load, &keepalive_handlers, "/health/live");
}

/* ---- one turn that waits for a client tool, followed by all ---- */

static struct conn *turn_conn;
static struct buf turn_seen;
static char turn_session[64];

static void
on_turn_data(void *arg, struct str bytes)
{
	struct load *load = arg;

	if (sse_path[0] != '\0')
		return;
	buf_add_str(&turn_seen, bytes);
	if (user_find(buf_str(&turn_seen), "tool_call_id").len == 0)
		return;
	char *id = memmem(turn_seen.data, turn_seen.len, "turn_", 5);
	check(id != NULL);
	snprintf(
	    sse_path, sizeof(sse_path), "/v1/sessions/%s/turns/%.31s/events", turn_session, id);
	for (uint32_t i = 0; i < load->users; i++)
		open_next(load, &sse_handlers, sse_path);
}

static void
on_turn_done(void *arg, int status)
{
	(void)arg;
	fprintf(stderr, "the turn ended, status %d\n", status);
}

static const struct conn_handlers turn_handlers = {on_turn_data, on_turn_done};

static void
on_session(void *arg, struct str id)
{
	static const char body[] =
	    "{\"input\":\"[[mock tool=a args={}]]\",\"stream\":true,\"tools\":["
	    "{\"type\":\"function\",\"function\":{\"name\":\"a\"}}]}";
	struct load *load = arg;
	char path[128];

	check(id.len > 0 && id.len < sizeof(turn_session));
	memcpy(turn_session, id.p, id.len);
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", turn_session);
	turn_conn = conn_new(&load->target, &turn_handlers, load);
	conn_request(turn_conn, "POST", path, STR(body));
}

static void
start_sse(struct load *load)
{
	user_open_session(load, on_session, load);
}

const struct scenario scenario_idle_keepalive = {
    "idle-keepalive", "connections after one request, held until SIGTERM", start_keepalive};
const struct scenario scenario_idle_sse = {
    "idle-sse", "event streams of a turn that waits, held until SIGTERM", start_sse};
