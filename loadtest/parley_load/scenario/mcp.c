/*
 * mcp - requests to an MCP endpoint, one after the other on kept connections: calls of a tool, its
 * lists, or the begin of sessions; and streams of sessions that are held and say nothing.
 *
 * A modern client needs nothing before; an older one has a session first. An answer may be JSON or
 * a stream of events.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/load.h"

#define META                                                                                       \
	"\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                   \
	"\"io.modelcontextprotocol/clientCapabilities\":{},"                                       \
	"\"io.modelcontextprotocol/clientInfo\":{\"name\":\"parley_load\",\"version\":\"1\"}}"
#define ACCEPT "Accept: application/json, text/event-stream\r\n"

struct client {
	struct load *load;
	struct conn *conn;
	uint64_t began_us, number;
	bool is_opening; /* its session */
	bool stands;
	struct buf body;
};

static const char *
path_of(const struct load *load)
{
	return strcmp(load->options->path, "/ws/chat") == 0 ? "/mcp" : load->options->path;
}

static void
send_initialize(struct client *c)
{
	c->is_opening = true;
	buf_clear(&c->body);
	conn_send(c->conn, "POST", path_of(c->load), ACCEPT,
	    STR("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{"
		"\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},"
		"\"clientInfo\":{\"name\":\"parley_load\",\"version\":\"1\"}}}"));
}

/* ---- requests ---- */

static void
add_headers(struct buf *b, const struct client *c, const char *method)
{
	const struct options *o = c->load->options;

	buf_add_cstr(b, ACCEPT);
	if (o->is_legacy) {
		buf_add_cstr(b, "MCP-Protocol-Version: 2025-11-25\r\n");
		if (*conn_session(c->conn) != '\0')
			buf_printf(b, "Mcp-Session-Id: %s\r\n", conn_session(c->conn));
		return;
	}
	buf_printf(b, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n", method);
	if (strcmp(method, "tools/call") == 0)
		buf_printf(b, "Mcp-Name: %s\r\n", o->tool);
}

static void
send_request(struct client *c)
{
	const struct options *o = c->load->options;
	const char *meta = o->is_legacy ? "" : "," META;
	struct buf headers = BUF_INIT, body = BUF_INIT;

	add_headers(&headers, c, o->method);
	buf_printf(&body, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"%s\",\"params\":{",
	    ++c->number, o->method);
	if (strcmp(o->method, "tools/call") == 0)
		buf_printf(&body,
		    "\"name\":\"%s\",\"arguments\":{\"text\":\"what is given back %" PRIu64
		    "\"}%s}}",
		    o->tool, c->number, meta);
	else
		buf_printf(&body, "%s}}", *meta == ',' ? meta + 1 : meta);
	c->is_opening = false;
	buf_clear(&c->body);
	conn_send(c->conn, "POST", path_of(c->load), headers.data, buf_str(&body));
	buf_fini(&headers);
	buf_fini(&body);
}

static void
ask(void *arg)
{
	struct client *c = arg;

	if (!load_next(c->load))
		return;
	c->began_us = clock_mono_us();
	if (strcmp(c->load->options->method, "initialize") == 0)
		send_initialize(c);
	else
		send_request(c);
}

/* ---- answers ---- */

static void
on_data(void *arg, struct str bytes)
{
	struct client *c = arg;

	buf_add_str(&c->body, bytes);
}

static bool
has(const struct client *c, const char *text)
{
	return c->body.len > 0 && memmem(c->body.data, c->body.len, text, strlen(text)) != NULL;
}

/* A result, and of a call what was given. */
static bool
is_whole(const struct client *c)
{
	char text[64];

	if (!has(c, "\"result\"") || has(c, "\"isError\":true"))
		return false;
	if (c->is_opening || strcmp(c->load->options->method, "tools/call") != 0)
		return true;
	snprintf(text, sizeof(text), "what is given back %" PRIu64 "\"", c->number);
	return has(c, text);
}

static void
on_done(void *arg, int status)
{
	struct client *c = arg;
	enum outcome outcome = load_outcome(status);
	bool is_counted = !c->is_opening || strcmp(c->load->options->method, "initialize") == 0;

	if (outcome == LOAD_WHOLE && !is_whole(c))
		outcome = LOAD_FAILED;
	if (is_counted)
		load_done(c->load, outcome, c->began_us, 0);
	else if (outcome != LOAD_WHOLE) {
		load_gone(c->load);
		return;
	}
	if (is_counted && c->load->options->pace_s > 0)
		load_after(c->load, load_think_ms(c->load, c->began_us), ask, c);
	else
		ask(c);
}

static struct client *
client_new(struct load *load, const struct conn_handlers *handlers)
{
	struct client *c = xcalloc(1, sizeof(*c));

	c->load = load;
	c->conn = conn_new(&load->target, handlers, c);
	return c;
}

static void
begin(struct load *load, uint32_t user)
{
	static const struct conn_handlers handlers = {on_data, on_done};
	struct client *c = client_new(load, &handlers);

	(void)user;
	if (load->options->is_legacy && strcmp(load->options->method, "initialize") != 0)
		send_initialize(c);
	else
		ask(c);
}

/* ---- streams that are held ---- */

static void hold_next(struct load *);

static void
stand(struct client *c, enum outcome outcome)
{
	if (c->stands)
		return;
	c->stands = true;
	load_done(c->load, outcome, c->began_us, 0);
	hold_next(c->load);
}

static void
on_stream_data(void *arg, struct str bytes)
{
	struct client *c = arg;

	if (c->is_opening)
		buf_add_str(&c->body, bytes);
	else if (conn_status(c->conn) == 200)
		stand(c, LOAD_WHOLE);
}

static void
open_stream(struct client *c)
{
	struct buf headers = BUF_INIT;

	c->is_opening = false;
	buf_printf(
	    &headers, "Accept: text/event-stream\r\nMcp-Session-Id: %s\r\n", conn_session(c->conn));
	conn_send(c->conn, "GET", path_of(c->load), headers.data, STR_NONE);
	buf_fini(&headers);
	buf_fini(&c->body);
}

static void
on_stream_done(void *arg, int status)
{
	struct client *c = arg;

	if (c->is_opening && load_outcome(status) == LOAD_WHOLE && is_whole(c)) {
		open_stream(c);
	} else if (!c->stands) {
		stand(c, LOAD_FAILED);
	} else {
		c->load->tally->cut++;
		c->load->tally->failed++;
	}
}

static void
hold_next(struct load *load)
{
	static const struct conn_handlers handlers = {on_stream_data, on_stream_done};

	if (!load_next(load))
		return;
	struct client *c = client_new(load, &handlers);
	c->began_us = clock_mono_us();
	send_initialize(c);
}

static void
begin_holding(struct load *load, uint32_t user)
{
	(void)user;
	hold_next(load);
}

const struct scenario scenario_mcp = {
    .name = "mcp", .help = "requests to an MCP endpoint", .begin = begin};
const struct scenario scenario_idle_mcp = {.name = "idle-mcp",
    .help = "streams of MCP sessions, held until SIGTERM",
    .holds = true,
    .begin = begin_holding};
