/*
 * storm - every client loses its stream in the same moment and comes back with
 * Last-Event-ID. An operation is one who is back: from the cut to the next event,
 * which must be the one after the last that it had. When all stand again, the
 * next storm comes.
 *
 * The turn waits for a tool and has two events; each client says that it had the
 * first, so that there is one to come.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/stage.h"

enum { AT_ONCE = 32 };

struct client {
	struct load *load;
	struct conn *conn;
	struct event_reader reader;
	uint64_t began_us; /* 0: no operation, it gathers */
	bool stands;
};

static struct stage stage;
static struct client **clients;
static uint32_t begun, standing, stormed;
static char first_event_id[EVENT_READER_TURN + 4];

static void
follow(void *arg)
{
	struct client *c = arg;

	c->reader = (struct event_reader){0};
	conn_follow(c->conn, stage.path, first_event_id);
}

static void
cut(struct client *c)
{
	if (!load_next(c->load))
		return;
	standing--;
	c->stands = false;
	conn_close(c->conn);
	c->began_us = clock_mono_us();
	follow(c);
}

/* In pieces, between which the loop reads, or the storm would measure its own beginning. */
static void
storm(void *arg)
{
	struct load *load = arg;

	for (int i = 0; i < AT_ONCE && stormed < load->users && !load->is_closing; i++)
		cut(clients[stormed++]);
	if (stormed < load->users && !load->is_closing)
		load_after(load, 0, storm, load);
}

static void
stand(struct client *c, bool is_next)
{
	c->stands = true;
	if (++standing == c->load->users && !c->load->is_closing) {
		stormed = 0;
		load_after(c->load, 0, storm, c->load);
	}
	if (c->began_us == 0) {
		if (standing == c->load->users)
			load_measure(c->load);
		return;
	}
	if (is_next)
		latency_add(&c->load->tally->resume, clock_mono_us() - c->began_us);
	load_done(c->load, is_next ? LOAD_WHOLE : LOAD_FAILED, c->began_us, 0);
}

static void
on_data(void *arg, struct str bytes)
{
	struct client *c = arg;
	struct seen_event event;

	if (conn_status(c->conn) != 200)
		return;
	while (event_reader_next(&c->reader, &bytes, &event)) {
		if (!c->stands)
			stand(c, event.seq == 2);
	}
}

/* Refused, or cut by the server: it comes again, as it was told or after a second. */
static void
on_done(void *arg, int status)
{
	struct client *c = arg;
	uint64_t retry_after_s = conn_retry_after_s(c->conn);

	if (c->stands) {
		c->load->tally->cut++;
		c->stands = false;
		standing--;
		c->began_us = 0;
	}
	if (c->began_us != 0) {
		load_done(c->load, status == 503 ? LOAD_REFUSED : LOAD_FAILED, c->began_us, 0);
		c->began_us = load_next(c->load) ? clock_mono_us() : 0;
	}
	load_after(c->load, 1000 * (retry_after_s > 0 ? retry_after_s : 1), follow, c);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
on_up(void *arg)
{
	(void)arg;
	snprintf(first_event_id, sizeof(first_event_id), "%s.1", stage.turn);
	for (uint32_t i = 0; i < begun; i++)
		follow(clients[i]);
}

static const struct stage_handlers stage_handlers = {on_up, NULL};

static void
start(struct load *load)
{
	clients = xcalloc(load->users, sizeof(struct client *));
	stage_open(&stage, load, &stage_handlers, load);
}

static void
begin(struct load *load, uint32_t user)
{
	struct client *c = xcalloc(1, sizeof(*c));

	c->load = load;
	c->conn = conn_new(&load->target, &handlers, c);
	check(user == begun);
	clients[begun++] = c;
	if (stage.is_up)
		follow(c);
}

const struct scenario scenario_storm = {.name = "storm",
    .help = "all streams are cut at once and resumed, again and again",
    .prepares = true,
    .begin = begin,
    .start = start};
