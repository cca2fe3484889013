/*
 * ws_chat - people over WebSockets: a turn, some thought, another turn, as chat
 * does it over HTTP; after --turns a user comes back over another socket for
 * another conversation. An operation is a turn. Of so many as --tools says a tool
 * of the client is called, and answered over the same socket.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/ws_turn.h"

enum { AGAIN_MS = 1000 };

struct talker {
	struct wsock ws;
	struct load *load;
	struct ws_turn turn;
	uint32_t turns; /* of this conversation */
	bool was_open;  /* once, so that it may be again */
};

static struct talker *
talker_of(struct wsock *w)
{
	return container_of(w, struct talker, ws);
}

static void go(void *arg);

/* Nobody begins in step. */
static void
on_open(struct wsock *w)
{
	struct talker *t = talker_of(w);
	double pace_ms = t->load->options->pace_s * 1e3;

	if (t->was_open) {
		go(t);
		return;
	}
	t->was_open = true;
	load_after(t->load, (uint64_t)(pace_ms * (double)random() / RAND_MAX), go, t);
}

static void
finish(struct talker *t, enum outcome outcome)
{
	struct load *load = t->load;

	load_done(load, outcome, t->turn.began_us, t->turn.first_us);
	t->turns += outcome != LOAD_REFUSED;
	if (t->turns >= load->options->turns) {
		t->turns = 0;
		wsock_close(&t->ws);
	}
	load_after(
	    load, load_think_ms(load, t->turn.began_us) + 1000 * t->turn.retry_after_s, go, t);
}

static void
on_message(struct wsock *w, struct str data)
{
	struct talker *t = talker_of(w);
	enum ws_turn_said said = ws_turn_take(&t->turn, w, data);

	if (said != WS_TURN_GOES_ON)
		finish(t, ws_turn_outcome(said));
}

/* In a turn, between two, or instead of being let in: then it comes again if it was told to, or
 * had been there. */
static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct talker *t = talker_of(w);
	enum outcome outcome = wsock_outcome(end);

	if (t->turn.is_live) {
		t->turn.is_live = false;
		t->load->tally->cut += outcome == LOAD_FAILED;
		finish(t, outcome);
	} else if (outcome == LOAD_REFUSED || t->was_open) {
		load_after(t->load, AGAIN_MS + (uint64_t)random() % AGAIN_MS, go, t);
	} else {
		load_gone(t->load);
	}
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
go(void *arg)
{
	struct talker *t = arg;

	if (t->load->is_closing || t->turn.is_live)
		return;
	if (t->ws.state == WSOCK_CLOSED) {
		wsock_open(&t->ws, t->load, &handlers);
		return;
	}
	if (wsock_is_open(&t->ws) && load_next(t->load))
		ws_turn_ask(&t->turn, &t->ws);
}

static void
begin(struct load *load, uint32_t user)
{
	struct talker *t = xcalloc(1, sizeof(*t));

	(void)user;
	t->load = load;
	go(t);
}

const struct scenario scenario_ws_chat = {
    .name = "ws-chat", .help = "turns at a pace over WebSockets", .begin = begin};
