/*
 * upgrades - a WebSocket is opened and closed, again and again: as fast as the
 * server lets, or at a pace. An operation ends with the server's close frame; its
 * first event is the upgrade.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/wsock.h"
#include "worker/ws/message.h"

struct caller {
	struct wsock ws;
	struct load *load;
	uint64_t began_us, first_us;
};

static void
on_open(struct wsock *w)
{
	struct caller *c = container_of(w, struct caller, ws);

	c->first_us = clock_mono_us();
	wsock_say_goodbye(w);
}

static void
on_message(struct wsock *w, struct str data)
{
	(void)w, (void)data;
}

static void call(void *arg);

static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct caller *c = container_of(w, struct caller, ws);
	bool is_whole = c->first_us != 0 && end->code == WS_CLOSE_NORMAL;

	load_done(c->load, is_whole ? LOAD_WHOLE : wsock_outcome(end), c->began_us, c->first_us);
	load_after(c->load, load_think_ms(c->load, c->began_us), call, c);
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
call(void *arg)
{
	struct caller *c = arg;

	if (!load_next(c->load))
		return;
	c->began_us = clock_mono_us();
	c->first_us = 0;
	wsock_open(&c->ws, c->load, &handlers);
}

static void
begin(struct load *load, uint32_t user)
{
	struct caller *c = xcalloc(1, sizeof(*c));

	(void)user;
	c->load = load;
	call(c);
}

const struct scenario scenario_upgrades = {
    .name = "upgrades", .help = "WebSockets opened and closed", .begin = begin};
