/*
 * connect - a connection, one request, and it is closed: as fast as the server
 * lets, or at a pace.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/load.h"

struct caller {
	struct load *load;
	struct conn *conn;
	uint64_t began_us;
};

static void
call(void *arg)
{
	struct caller *c = arg;

	if (!load_next(c->load))
		return;
	c->began_us = clock_mono_us();
	conn_request(c->conn, "GET", "/health/live", STR_NONE);
}

static void
on_done(void *arg, int status)
{
	struct caller *c = arg;

	conn_close(c->conn);
	load_done(c->load, load_outcome(status), c->began_us, 0);
	load_after(c->load, load_think_ms(c->load, c->began_us), call, c);
}

static const struct conn_handlers handlers = {NULL, on_done};

static void
begin(struct load *load, uint32_t user)
{
	struct caller *c = xcalloc(1, sizeof(*c));

	(void)user;
	c->load = load;
	c->conn = conn_new(&load->target, &handlers, c);
	call(c);
}

const struct scenario scenario_connect = {
    .name = "connect", .help = "a new connection for each request", .begin = begin};
