/*
 * idle_ws - WebSockets that are opened and say nothing, but answer pings. They are
 * held until the program is told to end; an operation is one that stands.
 *
 * Each user opens one after the other until the goal stands; at a rate, each user
 * opens one.
 */
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/wsock.h"

struct idler {
	struct wsock ws;
	uint64_t began_us;
};

static void open_next(struct load *load);

static void
settle(struct idler *idler, enum outcome outcome)
{
	struct load *load = idler->ws.load;

	load_done(load, outcome, idler->began_us, 0);
	idler->began_us = 0;
	if (load->options->rate <= 0)
		open_next(load);
}

static void
on_open(struct wsock *w)
{
	settle(container_of(w, struct idler, ws), LOAD_WHOLE);
}

/* It says nothing that is of interest. */
static void
on_message(struct wsock *w, struct str data)
{
	(void)w, (void)data;
}

/* A server that is full lets it in to say so: that is a refusal, too. */
static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct idler *idler = container_of(w, struct idler, ws);
	struct tally *t = w->load->tally;
	enum outcome outcome = wsock_outcome(end);

	if (idler->began_us != 0) {
		settle(idler, outcome);
		return;
	}
	t->cut += outcome == LOAD_FAILED;
	t->failed += outcome == LOAD_FAILED;
	t->refused += outcome == LOAD_REFUSED;
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
open_next(struct load *load)
{
	if (!load_next(load))
		return;
	struct idler *idler = xcalloc(1, sizeof(*idler));
	idler->began_us = clock_mono_us();
	wsock_open(&idler->ws, load, &handlers);
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	open_next(load);
}

const struct scenario scenario_idle_ws = {.name = "idle-ws",
    .help = "WebSockets that answer pings, held until SIGTERM",
    .holds = true,
    .begin = begin};
