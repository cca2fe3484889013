/*
 * ws_slow_readers - every other user asks for a long answer over a WebSocket and
 * does not read it; the rest converse as in ws_chat and are what is measured.
 *
 * A slow reader reads nothing for --stall seconds, then what there is. Either it
 * is told every event after all, in order (`caught_up`), or it has been closed
 * with 1008 (`shut_out`); anything else is a failure, also a line that broke without a close
 * frame: the server waits for websocket.close_timeout for it to be read. Neither is an operation.
 */
#include <stdlib.h>

#include "common/check.h"
#include "loadtest/parley_load/ws_turn.h"
#include "worker/ws/message.h"

enum { LONG_ANSWER_TOKENS = 200000, AGAIN_MS = 1000 };

struct reader {
	struct wsock ws;
	struct load *load;
	struct ws_turn turn;
};

struct wakening {
	struct reader *reader;
	uint32_t life; /* of the socket that was to wake up */
};

static void
wake(void *arg)
{
	struct wakening *w = arg;

	if (wsock_is_open(&w->reader->ws) && w->life == w->reader->ws.life)
		wsock_pause(&w->reader->ws, false);
	free(w);
}

static void
on_open(struct wsock *w)
{
	struct reader *r = container_of(w, struct reader, ws);
	struct wakening *wakening = xmalloc(sizeof(*wakening));

	*wakening = (struct wakening){r, w->life};
	ws_turn_ask_long(&r->turn, w, LONG_ANSWER_TOKENS);
	wsock_pause(w, true);
	load_after(w->load, 1000 * (uint64_t)w->load->options->stall_s, wake, wakening);
}

static void again(void *arg);

static void
on_message(struct wsock *w, struct str data)
{
	struct reader *r = container_of(w, struct reader, ws);
	enum ws_turn_said said = ws_turn_take(&r->turn, w, data);

	if (said == WS_TURN_GOES_ON)
		return;
	r->load->tally->caught_up += said == WS_TURN_WHOLE;
	r->load->tally->failed += said == WS_TURN_FAILED;
	wsock_close(w);
	load_after(r->load, AGAIN_MS, again, r);
}

static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct reader *r = container_of(w, struct reader, ws);
	bool is_shut_out = r->turn.is_live && end->code == WS_CLOSE_POLICY;

	r->load->tally->shut_out += is_shut_out;
	r->load->tally->failed += !is_shut_out && wsock_outcome(end) != LOAD_REFUSED;
	r->turn.is_live = false;
	load_after(r->load, AGAIN_MS, again, r);
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
again(void *arg)
{
	struct reader *r = arg;

	if (r->load->is_closing)
		return;
	r->turn = (struct ws_turn){0};
	wsock_open_small(&r->ws, r->load, &handlers);
}

static void
begin(struct load *load, uint32_t user)
{
	if (user % 2 == 0) {
		scenario_ws_chat.begin(load, user);
		return;
	}
	struct reader *r = xcalloc(1, sizeof(*r));

	r->load = load;
	again(r);
}

const struct scenario scenario_ws_slow_readers = {.name = "ws-slow-readers",
    .help = "ws-chat beside as many who do not read their long answers",
    .begin = begin};
