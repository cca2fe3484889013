/*
 * ws_storm - WebSockets stand, each in a session of its own; all are cut at once,
 * come back within --within seconds, each at a moment of its own, and join their
 * sessions again. A share (--active) is in a turn when it is cut, and resumes it
 * after the last event that it has: what is lost or doubled is counted.
 *
 *      away -> dialled -> joins or resumes -> stands -> (cut) -> away
 *
 * An operation is one return: from its dial until it stands (`first`), and until
 * the turn that it was in has ended, if it was (`whole`). `resume` counts from the
 * cut, and `stand` until all sockets of a process stand again. When all turns have
 * ended the next storm follows, until the goal or the duration is reached. With
 * --passive nothing is cut here: who dies is the server's to say.
 */
#include <math.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/chat_frame.h"
#include "loadtest/parley_load/sessions.h"
#include "loadtest/parley_load/ws_turn.h"

enum { AGAIN_MS = 1000 };

struct client {
	struct wsock ws;
	struct load *load;
	struct ws_turn turn; /* holds the session, too */
	uint64_t cut_us;     /* when it was cut; 0: it was not yet */
	uint64_t began_us;   /* of this return; 0: it is no operation */
	uint64_t first_us;   /* when it stood again */
	bool is_active, stands, has_asked;
};

static struct client **clients;
static uint32_t begun, standing;
static uint32_t turning; /* who is asked to be in a turn and has not seen its first event */
static uint32_t unended; /* turns that have not ended */
static bool has_first;   /* all processes stood once: storms may come */
static bool is_coming;   /* a storm */
static uint64_t fell_us; /* the first one, since all stood */

static struct client *
client_of(struct wsock *w)
{
	return container_of(w, struct client, ws);
}

static void dial(void *arg);

/* ---- cut ---- */

static uint64_t
jitter_ms(const struct load *load)
{
	return (uint64_t)(load->options->within_s * 1e3 * (double)random() / RAND_MAX);
}

/* It stood, and does not any more: by us, or by the server. */
static void
fall(struct client *c)
{
	c->stands = false;
	c->cut_us = clock_mono_us();
	if (standing-- == c->load->users)
		fell_us = c->cut_us;
	load_after(c->load, jitter_ms(c->load), dial, c);
}

static void
storm(void *arg)
{
	struct load *load = arg;

	is_coming = false;
	for (uint32_t i = 0; i < begun && !load->is_closing; i++) {
		if (!clients[i]->stands)
			continue;
		wsock_close(&clients[i]->ws);
		fall(clients[i]);
	}
}

static void
let_storm_come(struct load *load)
{
	if (load->options->is_passive || is_coming)
		return;
	is_coming = true;
	load_after(load, 0, storm, load);
}

/* ---- all stand: some ask, and when they are being answered all are cut ---- */

static void
ask(struct client *c)
{
	turning++;
	unended++;
	c->has_asked = true;
	ws_turn_ask(&c->turn, &c->ws);
}

static void
gather(struct load *load)
{
	if (!has_first || is_coming || standing < load->users || load->is_closing || unended > 0)
		return;
	for (uint32_t i = 0; i < begun; i++) {
		if (clients[i]->is_active && !clients[i]->turn.is_live)
			ask(clients[i]);
	}
	if (turning == 0)
		let_storm_come(load);
}

/* It has seen the first event of its turn, or the turn ended without one. */
static void
be_in_turn(struct client *c)
{
	if (!c->has_asked)
		return;
	c->has_asked = false;
	if (--turning == 0)
		let_storm_come(c->load);
}

static void
end_return(struct client *c, enum outcome outcome)
{
	if (c->began_us != 0)
		load_done(c->load, outcome, c->began_us, c->first_us);
	c->began_us = c->first_us = 0;
}

static void
end_turn(struct client *c, enum ws_turn_said said)
{
	struct tally *t = c->load->tally;

	t->turns++;
	t->turns_failed += said == WS_TURN_FAILED;
	t->turns_refused += said == WS_TURN_REFUSED;
	if (said == WS_TURN_WHOLE)
		latency_add(&t->turn, clock_mono_us() - c->turn.began_us);
	be_in_turn(c);
	unended--;
	end_return(c, ws_turn_outcome(said));
	gather(c->load);
}

/* ---- back ---- */

static void
stand(struct client *c)
{
	struct load *load = c->load;
	uint64_t now_us = clock_mono_us();

	c->stands = true;
	standing++;
	if (c->cut_us != 0)
		latency_add(&load->tally->resume, now_us - c->cut_us);
	if (standing == load->users && fell_us != 0) {
		latency_add(&load->tally->stand, now_us - fell_us);
		fell_us = 0;
	}
	if (standing == load->users)
		load_stands(load);
	c->first_us = now_us;
	if (!c->turn.is_live)
		end_return(c, LOAD_WHOLE);
	gather(load);
}

static void
on_open(struct wsock *w)
{
	struct client *c = client_of(w);
	struct buf text = BUF_INIT;

	if (c->turn.is_live && ws_turn_resume(&c->turn, w))
		return;
	buf_printf(
	    &text, "{\"action\":\"join\",\"payload\":{\"session_id\":\"%s\"}}", c->turn.session);
	wsock_say(w, buf_str(&text));
	buf_fini(&text);
}

static void
give_up(struct client *c, enum outcome outcome)
{
	end_return(c, outcome);
	load_after(c->load, AGAIN_MS + (uint64_t)random() % AGAIN_MS, dial, c);
}

/*
 * What it asked for when it came back was refused: it comes again. The turn that it resumes runs on
 * and may be heard the next time, unless there is none any more.
 */
static void
take_refusal(struct client *c, struct str data)
{
	enum ws_turn_said said = WS_TURN_GOES_ON;
	bool is_for_now = ws_turn_may_resume(data);

	wsock_close(&c->ws);
	if (c->turn.is_live && !is_for_now)
		said = ws_turn_take(&c->turn, &c->ws, data);
	give_up(c, is_for_now ? LOAD_REFUSED : LOAD_FAILED);
	if (said != WS_TURN_GOES_ON)
		end_turn(c, said);
}

/* The first frame of a turn that is resumed says that it is heard again. */
static bool
is_back(const struct client *c, struct str data)
{
	return chat_frame_status(data) == CHAT_JOINED ||
	       (c->turn.is_live && chat_frame_number(data, "seq") > 0);
}

static void
on_message(struct wsock *w, struct str data)
{
	struct client *c = client_of(w);

	bool was_live = c->turn.is_live; /* who stands as the last one may be asked at once */

	if (!c->stands && is_back(c, data)) {
		uint32_t life = w->life;

		stand(c);
		if (w->life != life)
			return;
	}
	if (!c->stands && chat_frame_status(data) == CHAT_ERROR) {
		take_refusal(c, data);
		return;
	}
	if (!was_live)
		return;
	/* It was cut before it knew its turn, and the session has none: the question was lost. */
	if (chat_frame_status(data) == CHAT_JOINED && chat_frame_text(data, "turn_id").len == 0) {
		c->turn.is_live = false;
		end_turn(c, WS_TURN_FAILED);
		return;
	}
	enum ws_turn_said said = ws_turn_take(&c->turn, w, data);
	if (said != WS_TURN_GOES_ON)
		end_turn(c, said);
	else if (c->turn.seq > 1)
		be_in_turn(c);
}

static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct client *c = client_of(w);

	if (!c->stands) {
		give_up(c, wsock_outcome(end));
		return;
	}
	c->load->tally->cut++;
	fall(c);
}

static const struct wsock_handlers handlers = {on_open, on_message, on_closed};

static void
dial(void *arg)
{
	struct client *c = arg;

	/* The last return that was asked for is not the last that is needed: all are to stand. */
	if (c->cut_us != 0 && c->began_us == 0 && load_next(c->load))
		c->began_us = clock_mono_us();
	wsock_open(&c->ws, c->load, &handlers);
}

static void
on_session(void *arg, struct str id)
{
	struct client *c = arg;

	if (id.len == 0 || id.len >= sizeof(c->turn.session)) {
		load_gone(c->load);
		return;
	}
	memcpy(c->turn.session, id.p, id.len);
	dial(c);
}

/* ---- it begins ---- */

static void
hold(struct load *load)
{
	has_first = true;
	gather(load);
}

static void
start(struct load *load)
{
	clients = xcalloc(load->users, sizeof(struct client *));
}

static void
begin(struct load *load, uint32_t user)
{
	struct client *c = xcalloc(1, sizeof(*c));
	double share = load->options->active;

	check(user == begun);
	c->load = load;
	c->is_active = floor((user + 1) * share) > floor(user * share);
	clients[begun++] = c;
	sessions_open(load, on_session, c);
}

const struct scenario scenario_ws_storm = {.name = "ws-storm",
    .help = "all WebSockets are cut at once and come back, again and again",
    .prepares = true,
    .begin = begin,
    .start = start,
    .hold = hold};
