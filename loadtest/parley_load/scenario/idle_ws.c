/*
 * idle_ws - WebSockets that are opened, answer pings, and are held; an operation
 * is one that stands. With --join each has a session of its own, which it joins.
 *
 *      (a session) -> dialled, upgraded -> (joined) -> stands
 *
 * When all stand, in all processes, they are held for --hold seconds or until the
 * program is told to end. Meanwhile a few round trips are sampled over sockets
 * chosen by chance (--sample), and a share of them chats (--active, --pace): the
 * first event and the whole of those turns are told as `first` and `turn`. Turns
 * that are under way when the hold is over are read to their end.
 *
 * Each user opens one after the other until the goal stands; at a rate, each user
 * opens one.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/chat_frame.h"
#include "loadtest/parley_load/sampler.h"
#include "loadtest/parley_load/sessions.h"
#include "loadtest/parley_load/ws_turn.h"

enum { SLAB = 1024, PICK_TRIES = 16 };

struct idler {
	struct wsock ws;
	uint64_t began_us;    /* 0: it stands, or has stood */
	struct ws_turn *turn; /* of those who chat; holds the session that is to be joined, too */
};

static struct idler **slabs;
static uint64_t idler_count;
static uint32_t live_turns;

static void open_next(struct load *load);

static struct idler *
idler_of(struct wsock *w)
{
	return container_of(w, struct idler, ws);
}

static struct idler *
idler_at(uint64_t i)
{
	return &slabs[i / SLAB][i % SLAB];
}

/* Side by side: the allocator's own share would be a tenth. They never move. */
static struct idler *
idler_new(void)
{
	uint64_t i = idler_count++;

	if (i % SLAB == 0) {
		slabs = xrealloc(slabs, (i / SLAB + 1) * sizeof(*slabs));
		slabs[i / SLAB] = xcalloc(SLAB, sizeof(struct idler));
	}
	return idler_at(i);
}

/* ---- until it stands ---- */

static void
settle(struct idler *idler, struct load *load, enum outcome outcome)
{
	load_done(load, outcome, idler->began_us, 0);
	idler->began_us = 0;
	free(idler->turn);
	idler->turn = NULL;
	if (load->options->rate <= 0)
		open_next(load);
}

static void
on_open(struct wsock *w)
{
	struct idler *idler = idler_of(w);
	struct buf text = BUF_INIT;

	if (!w->load->options->joins) {
		settle(idler, w->load, LOAD_WHOLE);
		return;
	}
	buf_printf(&text, "{\"action\":\"join\",\"payload\":{\"session_id\":\"%s\"}}",
	    idler->turn->session);
	wsock_say(w, buf_str(&text));
	buf_fini(&text);
}

static void
on_joined(struct idler *idler, struct str message)
{
	enum chat_status status = chat_frame_status(message);

	if (status == CHAT_JOINED)
		settle(idler, idler->ws.load, LOAD_WHOLE);
	else if (status == CHAT_ERROR)
		settle(idler, idler->ws.load, LOAD_FAILED);
}

/* ---- while it is held ---- */

static void ask(void *arg);

static void
on_turn_end(struct idler *idler, enum ws_turn_said said)
{
	struct load *load = idler->ws.load;
	struct ws_turn *t = idler->turn;

	live_turns--;
	load->tally->turns++;
	load->tally->turns_failed += said == WS_TURN_FAILED;
	load->tally->turns_refused += said == WS_TURN_REFUSED;
	if (said == WS_TURN_WHOLE) {
		latency_add(&load->tally->turn, clock_mono_us() - t->began_us);
		if (t->first_us != 0)
			latency_add(&load->tally->first, t->first_us - t->began_us);
	}
	load_after(load, load_think_ms(load, t->began_us) + 1000 * t->retry_after_s, ask, idler);
}

static void
ask(void *arg)
{
	struct idler *idler = arg;

	if (idler->ws.load->is_ending || !wsock_is_open(&idler->ws))
		return;
	live_turns++;
	ws_turn_ask(idler->turn, &idler->ws);
}

static void
on_message(struct wsock *w, struct str data)
{
	struct idler *idler = idler_of(w);

	if (idler->began_us != 0) {
		on_joined(idler, data);
		return;
	}
	if (sampler_take(w, data) || idler->turn == NULL)
		return;
	enum ws_turn_said said = ws_turn_take(idler->turn, w, data);
	if (said != WS_TURN_GOES_ON)
		on_turn_end(idler, said);
}

/* A server that is full lets it in to say so: that is a refusal, too. */
static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct idler *idler = idler_of(w);
	struct tally *t = w->load->tally;
	enum outcome outcome = wsock_outcome(end);

	if (idler->began_us != 0) {
		settle(idler, w->load, outcome);
		return;
	}
	if (idler->turn != NULL && idler->turn->is_live) {
		idler->turn->is_live = false;
		live_turns--;
		t->turns++;
		t->turns_failed++;
	}
	t->cut += outcome == LOAD_FAILED;
	t->failed += outcome == LOAD_FAILED;
	t->refused += outcome == LOAD_REFUSED;
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

/* An idle one, by chance. */
static struct wsock *
pick(void)
{
	for (int i = 0; i < PICK_TRIES && idler_count > 0; i++) {
		struct idler *idler = idler_at((uint64_t)random() % idler_count);

		if (idler->turn == NULL && wsock_is_open(&idler->ws))
			return &idler->ws;
	}
	return NULL;
}

static bool
is_idle(void)
{
	return live_turns == 0;
}

/* Every so manieth chats, each from another moment on. */
static void
hold(struct load *load)
{
	double share = load->options->active;

	sampler_start(load, pick);
	for (uint64_t i = 0; i < idler_count; i++) {
		struct idler *idler = idler_at(i);

		if (floor((double)(i + 1) * share) <= floor((double)i * share) ||
		    !wsock_is_open(&idler->ws))
			continue;
		idler->turn = xcalloc(1, sizeof(*idler->turn));
		load_after(load,
		    (uint64_t)(load->options->pace_s * 1e3 * (double)random() / RAND_MAX), ask,
		    idler);
	}
}

/* ---- it begins ---- */

static void
on_session(void *arg, struct str id)
{
	struct idler *idler = arg;
	struct load *load = idler->ws.load;

	if (id.len == 0) {
		settle(idler, load, LOAD_FAILED);
		return;
	}
	memcpy(idler->turn->session, id.p, id.len);
	wsock_open(&idler->ws, load, &handlers);
}

static void
open_next(struct load *load)
{
	if (!load_next(load))
		return;
	struct idler *idler = idler_new();
	idler->began_us = clock_mono_us();
	if (!load->options->joins) {
		wsock_open(&idler->ws, load, &handlers);
		return;
	}
	idler->ws.load = load;
	idler->turn = xcalloc(1, sizeof(*idler->turn));
	sessions_open(load, on_session, idler);
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	open_next(load);
}

const struct scenario scenario_idle_ws = {.name = "idle-ws",
    .help = "WebSockets that stand and are held, while a share of them chats",
    .holds = true,
    .begin = begin,
    .hold = hold,
    .is_idle = is_idle};
