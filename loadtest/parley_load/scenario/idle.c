/*
 * idle - connections that are there and say nothing: keep-alive after one
 * request, or an event stream of a turn that waits. They are held until the
 * program is told to end; an operation is one connection that stands.
 *
 * Each user opens one after the other until the goal stands; at a rate, each
 * user opens one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/stage.h"

struct idler {
	struct load *load;
	struct conn *conn;
	void (*open_next)(struct load *);
	uint64_t began_us;
	bool stands;
};

static struct stage stage;
static uint32_t waiting; /* users who came before the turn was there */

/* NULL: the goal is reached. */
static struct idler *
idler_new(struct load *load, const struct conn_handlers *handlers, void (*open_next)(struct load *))
{
	if (!load_next(load))
		return NULL;
	struct idler *idler = xcalloc(1, sizeof(*idler));

	idler->load = load;
	idler->open_next = open_next;
	idler->began_us = clock_mono_us();
	idler->conn = conn_new(&load->target, handlers, idler);
	return idler;
}

static void
stand(struct idler *idler, enum outcome outcome)
{
	if (idler->stands)
		return;
	idler->stands = true;
	load_done(idler->load, outcome, idler->began_us, 0);
	if (idler->load->options->rate <= 0)
		idler->open_next(idler->load);
}

static void
on_answered(void *arg, int status)
{
	stand(arg, load_outcome(status));
}

static void
on_stream(void *arg, struct str bytes)
{
	struct idler *idler = arg;

	(void)bytes;
	if (conn_status(idler->conn) == 200)
		stand(idler, LOAD_WHOLE);
}

static void
on_stream_end(void *arg, int status)
{
	struct idler *idler = arg;

	if (!idler->stands) {
		stand(idler, load_outcome(status));
		return;
	}
	idler->load->tally->cut++;
	idler->load->tally->failed++;
}

static const struct conn_handlers keepalive_handlers = {NULL, on_answered};
static const struct conn_handlers sse_handlers = {on_stream, on_stream_end};

static void
open_keepalive(struct load *load)
{
	struct idler *idler = idler_new(load, &keepalive_handlers, open_keepalive);

	if (idler != NULL)
		conn_request(idler->conn, "GET", "/health/live", STR_NONE);
}

static void
begin_keepalive(struct load *load, uint32_t user)
{
	(void)user;
	open_keepalive(load);
}

static void
open_sse(struct load *load)
{
	struct idler *idler = idler_new(load, &sse_handlers, open_sse);

	if (idler != NULL)
		conn_follow(idler->conn, stage.path, NULL);
}

static void
on_up(void *arg)
{
	for (; waiting > 0; waiting--)
		open_sse(arg);
}

static const struct stage_handlers stage_handlers = {on_up, NULL};

static void
start_sse(struct load *load)
{
	stage_open(&stage, load, &stage_handlers, load);
}

static void
begin_sse(struct load *load, uint32_t user)
{
	(void)user;
	if (stage.is_up)
		open_sse(load);
	else
		waiting++;
}

const struct scenario scenario_idle_keepalive = {.name = "idle-keepalive",
    .help = "connections after one request, held until SIGTERM",
    .holds = true,
    .begin = begin_keepalive};
const struct scenario scenario_idle_sse = {.name = "idle-sse",
    .help = "event streams of a turn that waits, held until SIGTERM",
    .holds = true,
    .begin = begin_sse,
    .start = start_sse};
