/*
 * steadfast - people who do not give up, every other one over a WebSocket, the rest
 * over event streams: whatever is done to the servers, each asks at its --pace,
 * follows the turn over as many connections as it takes, and asks again under the
 * same id when it was lost. An operation is a question; told to end they wait for
 * the answers that are due. --journal says what became of everything.
 *
 *      (a session) -> (dialled, joined) -> stands -> asks, is answered, thinks, asks ..
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/asker.h"
#include "loadtest/parley_load/chat_frame.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/journal.h"
#include "loadtest/parley_load/sessions.h"
#include "loadtest/parley_load/user.h"
#include "loadtest/parley_load/ws_turn.h"

enum { BACK_MS = 500, TAIL = 512 };

static struct asker **askers;
static uint32_t begun, standing;

static void
stand(struct asker *a)
{
	if (++standing == a->load->users)
		load_stands(a->load);
}

/* ---- over a WebSocket ---- */

struct socket_user {
	struct asker asker;
	struct wsock ws;
	struct ws_turn turn;
	bool has_stood;
	bool must_resume; /* the server could not look, and is asked again */
};

static void dial(void *arg);

static struct socket_user *
of_socket(struct wsock *w)
{
	return container_of(w, struct socket_user, ws);
}

/* The turn that was under way is found by its id, or by that of the question. */
static void
go_on(struct socket_user *u)
{
	if (u->turn.is_live && ws_turn_resume(&u->turn, &u->ws))
		return;
	u->turn.is_live = false;
	ws_turn_ask_as(&u->turn, &u->ws, u->asker.key);
}

static void
go_socket(struct asker *a)
{
	struct socket_user *u = container_of(a, struct socket_user, asker);

	if (!wsock_is_open(&u->ws) || (u->turn.is_live && !u->must_resume))
		return;
	u->must_resume = false;
	go_on(u);
}

static const struct asker_kind over_socket = {"ws", go_socket};

static void
on_open(struct wsock *w)
{
	struct socket_user *u = of_socket(w);
	struct buf text = BUF_INIT;

	u->must_resume = false;
	if (u->asker.is_asking) {
		go_on(u);
		return;
	}
	buf_printf(
	    &text, "{\"action\":\"join\",\"payload\":{\"session_id\":\"%s\"}}", u->turn.session);
	wsock_say(w, buf_str(&text));
	buf_fini(&text);
}

/* No event of a turn: what was asked for was refused, or the turn cannot be followed now, or not at
 * all. */
static void
on_refused(struct socket_user *u, struct str frame)
{
	uint64_t retry_after_s = chat_frame_number(frame, "retry_after");

	asker_was_told(&u->asker, 0, chat_frame_text(frame, "code"));
	if (!u->asker.is_asking)
		return;
	u->must_resume = ws_turn_may_resume(frame) && u->turn.turn[0] != '\0';
	u->turn.is_live = u->must_resume;
	asker_go_later(&u->asker, 1000 * retry_after_s);
}

static void
on_ended(struct socket_user *u, enum ws_turn_said said, struct str code)
{
	if (u->asker.first_us == 0)
		u->asker.first_us = u->turn.first_us;
	asker_turn_ended(&u->asker, u->turn.turn, said == WS_TURN_WHOLE ? STR_NONE : code,
	    u->turn.seq, !u->turn.is_broken);
}

static void
on_message(struct wsock *w, struct str frame)
{
	struct socket_user *u = of_socket(w);
	enum chat_status status = chat_frame_status(frame);

	if (status == CHAT_JOINED && !u->has_stood) {
		u->has_stood = true;
		stand(&u->asker);
	}
	if (status == CHAT_JOINED || status == CHAT_PONG)
		return;
	if (status == CHAT_ERROR && chat_frame_number(frame, "seq") == 0) {
		on_refused(u, frame);
		return;
	}
	enum ws_turn_said said = ws_turn_take(&u->turn, w, frame);
	if (said != WS_TURN_GOES_ON)
		on_ended(u, said, chat_frame_text(frame, "code"));
}

static void
on_closed(struct wsock *w, const struct wsock_end *end)
{
	struct socket_user *u = of_socket(w);
	uint64_t back_ms = end->retry_after_ms;

	if (end->status != 0)
		asker_was_told(&u->asker, end->status, STR_NONE);
	else if (end->code == WSOCK_BROKEN)
		asker_was_cut(&u->asker, u->turn.seq);
	else
		asker_was_closed(&u->asker, end->code);
	if (back_ms == 0)
		back_ms = (uint64_t)random() % BACK_MS;
	load_after(u->asker.load, back_ms, dial, u);
}

static const struct wsock_handlers socket_handlers = {on_open, on_message, on_closed};

static void
dial(void *arg)
{
	struct socket_user *u = arg;

	wsock_open(&u->ws, u->asker.load, &socket_handlers);
	asker_keep_address(&u->asker, wsock_address(&u->ws));
}

/* ---- over event streams ---- */

struct stream_user {
	struct asker asker;
	struct conn *conn;
	struct event_reader reader;
	char turn[ASKER_ID_MAX]; /* "": not known yet */
	uint64_t seq, last_us;
	char tail[TAIL]; /* of what came last: an error says there why */
	size_t tail_len;
	bool is_under_way, is_broken, is_over;
	bool is_excused; /* it could not be followed, and that was said */
};

static void
go_stream(struct asker *a)
{
	struct stream_user *u = container_of(a, struct stream_user, asker);
	const struct options *o = a->load->options;
	struct buf body = BUF_INIT;
	char path[160], last[64];

	if (u->is_under_way)
		return;
	u->is_under_way = true;
	u->is_over = u->is_excused = false;
	u->reader = (struct event_reader){0};
	u->tail_len = 0;
	if (u->turn[0] != '\0') {
		snprintf(
		    path, sizeof(path), "/v1/sessions/%s/turns/%s/events", a->session, u->turn);
		snprintf(last, sizeof(last), "%s.%llu", u->turn, (unsigned long long)u->seq);
		conn_follow(u->conn, path, last);
	} else {
		u->seq = u->last_us = 0;
		u->is_broken = false;
		snprintf(path, sizeof(path), "/v1/sessions/%s/turns", a->session);
		buf_printf(&body,
		    "{\"input\":\"[[mock tokens=%u interval=%u]]\",\"stream\":true,"
		    "\"request_id\":\"%s\"}",
		    o->tokens, o->interval_ms, a->key);
		conn_request(u->conn, "POST", path, buf_str(&body));
	}
	asker_keep_address(a, conn_address(u->conn));
	buf_fini(&body);
}

static const struct asker_kind over_streams = {"sse", go_stream};

static void
check_order(struct stream_user *u, const struct seen_event *event)
{
	struct tally *t = u->asker.load->tally;

	if (event->seq <= u->seq)
		t->doubled++;
	else if (!str_eq(event->name, STR("turn.snapshot")))
		t->lost += event->seq - u->seq - 1;
	if (event->seq <= u->seq ||
	    (event->seq != u->seq + 1 && !str_eq(event->name, STR("turn.snapshot"))))
		u->is_broken = true;
	if (event->seq > u->seq)
		u->seq = event->seq;
}

static void
take_event(struct stream_user *u, const struct seen_event *event)
{
	struct tally *t = u->asker.load->tally;
	uint64_t now_us = clock_mono_us();

	if (str_eq(event->name, STR("error"))) {
		u->is_excused = true;
		return;
	}
	snprintf(u->turn, sizeof(u->turn), "%s", u->reader.turn);
	check_order(u, event);
	if (u->last_us != 0)
		latency_add(&t->gap, now_us - u->last_us);
	u->last_us = now_us;
	u->is_over |= str_eq(event->name, STR("turn.completed")) ||
		      str_eq(event->name, STR("turn.failed")) ||
		      str_eq(event->name, STR("turn.cancelled"));
	if (!str_eq(event->name, STR("text.delta")))
		return;
	t->deltas++;
	if (u->asker.first_us == 0)
		u->asker.first_us = now_us;
}

static void
keep_tail(struct stream_user *u, struct str bytes)
{
	size_t n = bytes.len < TAIL ? bytes.len : TAIL, stays = u->tail_len;

	if (stays + n > TAIL)
		stays = TAIL - n;
	memmove(u->tail, u->tail + u->tail_len - stays, stays);
	memcpy(u->tail + stays, bytes.p + bytes.len - n, n);
	u->tail_len = stays + n;
}

static void
on_data(void *arg, struct str bytes)
{
	struct stream_user *u = arg;
	struct seen_event event;

	keep_tail(u, bytes);
	if (conn_status(u->conn) != 200)
		return;
	while (event_reader_next(&u->reader, &bytes, &event))
		take_event(u, &event);
}

static struct str
code_of(const struct stream_user *u)
{
	return user_find(str_sub(u->tail, u->tail_len), "code");
}

static void
on_stream_end(struct stream_user *u)
{
	char turn[ASKER_ID_MAX];

	/* The next question comes much later, over a connection of its own: where a kept one breaks
	 * at its next request a proxy closes without a word, and who cut it could not be told. */
	conn_close(u->conn);
	memcpy(turn, u->turn, sizeof(turn));
	u->turn[0] = '\0';
	asker_turn_ended(&u->asker, turn, code_of(u), u->seq, !u->is_broken);
}

static void
on_done(void *arg, int status)
{
	struct stream_user *u = arg;
	uint64_t retry_after_s = conn_retry_after_s(u->conn);

	u->is_under_way = false;
	if (u->is_over) {
		on_stream_end(u);
		return;
	}
	if (status == 0)
		asker_was_cut(&u->asker, u->seq);
	else if (status != 200 || u->is_excused)
		asker_was_told(&u->asker, status, code_of(u));
	else
		asker_was_closed(&u->asker, 0);
	if (status == 404)
		u->turn[0] = '\0';
	u->asker.load->tally->unexplained += status == 503 && retry_after_s == 0;
	asker_go_later(&u->asker, 1000 * retry_after_s);
}

static const struct conn_handlers stream_handlers = {on_data, on_done};

/* ---- it begins ---- */

static void
hold(struct load *load)
{
	for (uint32_t i = 0; i < begun; i++)
		asker_begin(askers[i],
		    (uint64_t)(load->options->pace_s * 1e3 * (double)random() / RAND_MAX));
}

static void
on_session(void *arg, struct str id)
{
	struct asker *a = arg;

	if (!user_keep_session(a->load, id, a->session))
		return;
	if (a->kind == &over_socket) {
		struct socket_user *u = container_of(a, struct socket_user, asker);

		check(id.len < sizeof(u->turn.session));
		memcpy(u->turn.session, a->session, id.len + 1);
		dial(u);
	} else {
		stand(a);
	}
}

static void
start(struct load *load)
{
	askers = xcalloc(load->users, sizeof(*askers));
	journal_open(load->options->journal, load->process);
}

static struct asker *
asker_new(struct load *load, uint32_t user)
{
	if (user % 2 == 0) {
		struct socket_user *u = xcalloc(1, sizeof(*u));

		asker_init(&u->asker, load, &over_socket);
		return &u->asker;
	}
	struct stream_user *u = xcalloc(1, sizeof(*u));

	asker_init(&u->asker, load, &over_streams);
	u->conn = conn_new(&load->target, &stream_handlers, u);
	return &u->asker;
}

static void
begin(struct load *load, uint32_t user)
{
	struct asker *a = asker_new(load, user);

	check(user == begun);
	askers[begun++] = a;
	sessions_open(load, on_session, a);
}

const struct scenario scenario_steadfast = {.name = "steadfast",
    .help = "people who ask until they are answered, whatever happens to the servers",
    .prepares = true,
    .finishes = true,
    .begin = begin,
    .start = start,
    .hold = hold};
