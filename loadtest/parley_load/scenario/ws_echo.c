/*
 * ws_echo - messages that are answered at once, over one WebSocket per user, of
 * which --window are under way at a time. An operation is one answer. They begin
 * together, when every socket stands, and so does the measured part.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/echo.h"
#include "loadtest/parley_load/wsock.h"

struct echoer {
	struct wsock ws;
	struct load *load;
	uint32_t oldest, count; /* of what is under way */
	uint64_t began_us[];    /* a ring of --window */
};

static struct echoer **echoers;
static uint32_t begun, settled; /* settled: its socket stands, or never will */
static bool has_begun;

static void
fill(struct echoer *e)
{
	uint32_t window = e->load->options->window;

	while (e->count < window && wsock_is_open(&e->ws) && load_next(e->load)) {
		e->began_us[(e->oldest + e->count++) % window] = clock_mono_us();
		wsock_say(&e->ws, echo_text(e->load->options));
	}
}

static void
settle(struct load *load)
{
	if (++settled < load->users)
		return;
	has_begun = true;
	load_measure(load);
	for (uint32_t i = 0; i < begun; i++)
		fill(echoers[i]);
}

static void
end_oldest(struct echoer *e, enum outcome outcome)
{
	uint64_t began_us = e->began_us[e->oldest];

	e->oldest = (e->oldest + 1) % e->load->options->window;
	e->count--;
	load_done(e->load, outcome, began_us, 0);
}

static void
on_open(struct wsock *w)
{
	settle(w->load);
}

static void
on_message(struct wsock *w, struct str data)
{
	struct echoer *e = container_of(w, struct echoer, ws);

	if (e->count == 0) /* a greeting: nothing of ours */
		return;
	end_oldest(e, echo_is_answer(w->load->options, data) ? LOAD_WHOLE : LOAD_FAILED);
	fill(e);
}

static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct echoer *e = container_of(w, struct echoer, ws);

	w->load->tally->cut += has_begun;
	while (e->count > 0)
		end_oldest(e, wsock_outcome(end));
	load_gone(w->load);
	if (!has_begun)
		settle(w->load);
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
start(struct load *load)
{
	echoers = xcalloc(load->users, sizeof(struct echoer *));
}

static void
begin(struct load *load, uint32_t user)
{
	struct echoer *e = xcalloc(1, sizeof(*e) + load->options->window * sizeof(e->began_us[0]));

	check(user == begun);
	e->load = load;
	echoers[begun++] = e;
	wsock_open(&e->ws, load, &handlers);
}

const struct scenario scenario_ws_echo = {.name = "ws-echo",
    .help = "messages over WebSockets, a window of them under way on each",
    .prepares = true,
    .begin = begin,
    .start = start};
