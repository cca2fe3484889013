/*
 * remote - questions and orders about a turn, from any worker: its state, its end,
 * the result of a tool.
 *
 * A question is made where it is put, looks for the turn and is answered here, or
 * by the owner over the backplane, or by the record. At the owner it becomes an
 * ask, which waits with the turn until the answer is due. Callbacks come from the
 * loop, never from inside the verb.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/metric.h"
#include "common/region.h"
#include "worker/turn/turn_impl.h"

enum {
	RETRY_MS = 50,
	FIND_MS = 3000,       /* a turn between two owners, or none */
	CANCEL_WAIT_MS = 800, /* a cancel is answered when the record has it, or by then */
};

enum question_kind { ASKS_STATE, ASKS_CANCEL, GIVES_RESULT };

struct question {
	struct list node;
	struct turns *turns;
	uint64_t handle;   /* in turns->question_handles */
	uint64_t since_us; /* the owner of a call is looked for */
	enum question_kind kind;
	struct id session_id, turn_id, call_id;
	uint64_t wait_until_ms, give_up_ms;
	uint32_t tries;  /* since its owner could not be reached */
	bool is_waiting; /* for news; else it is answered within backplane.call_timeout */
	bool is_record_only;
	char *result; /* JSON of the output, or the error's text */
	bool is_error;
	turn_on_state *on_state;
	turn_on_done *on_done;
	turn_on_tool_result *on_result;
	void *arg;
	struct loop_timer timer;
};

/* At the owner: a question of this worker, or of a peer. */
struct turn_ask {
	struct list node;
	struct turn *turn;
	enum question_kind kind;
	uint64_t question; /* 0: a peer's */
	struct backplane_addr addr;
	uint64_t call_id;
	struct loop_timer timer; /* then it is answered as things are */
	bool is_due;
};

/* ---- the end of a question ---- */

static void
question_free(struct question *q)
{
	loop_timer_stop(q->turns->loop, &q->timer);
	list_del(&q->node);
	idmap_remove(q->turns->question_handles, q->handle);
	free(q->result);
	free(q);
}

static void
answer_question(struct question *q, int err, json_t *state, bool is_same)
{
	struct question was = *q;

	question_free(q);
	if (was.kind == ASKS_STATE)
		was.on_state(was.arg, err, err == 0 ? state : NULL);
	else if (was.kind == ASKS_CANCEL)
		was.on_done(was.arg, err);
	else
		was.on_result(was.arg, err, is_same);
}

static void run_question(struct question *);

static void
on_question_timer(struct loop_timer *timer)
{
	run_question(container_of(timer, struct question, timer));
}

static void
ask_again(struct question *q, uint64_t delay_ms)
{
	struct loop *loop = q->turns->loop;

	if (loop_now_ms(loop) >= q->give_up_ms)
		answer_question(q, E_OWNER_UNAVAILABLE, NULL, false);
	else
		loop_timer_set(loop, &q->timer, delay_ms);
}

/* The owner cannot be reached: the record hears of its end, or of the turn's. */
static void
ask_record_later(struct question *q)
{
	q->is_record_only = true;
	ask_again(q, turn_route_retry_ms(q->tries++));
}

static struct question *
gap_question(void *gap)
{
	uint64_t handle;
	struct turns *ts = turn_gap_close(gap, &handle);

	return idmap_get(ts->question_handles, handle);
}

/* ---- asks: at the owner ---- */

static void
ask_free(struct turn_ask *a)
{
	loop_timer_stop(a->turn->turns->loop, &a->timer);
	list_del(&a->node);
	free(a);
}

static void
reply_json(struct turns *ts, struct backplane_addr to, uint64_t call_id, json_t *v)
{
	char *text = v != NULL ? json_dumps(v, JSON_COMPACT) : NULL;

	backplane_reply(ts->backplane, to, call_id, 0, str_of(text));
	free(text);
}

static void
answer_ask(struct turn_ask *a)
{
	struct turn *t = a->turn;
	struct turns *ts = t->turns;
	struct question *q = idmap_get(ts->question_handles, a->question);
	json_t *state = a->kind == ASKS_STATE ? turn_format_state(t) : NULL;
	struct turn_ask was = *a;

	ask_free(a);
	if (was.question == 0)
		reply_json(ts, was.addr, was.call_id, state);
	else if (q != NULL)
		answer_question(q, 0, state, false);
	json_decref(state);
}

static bool
is_due(const struct turn_ask *a)
{
	const struct turn *t = a->turn;

	if (a->is_due || turn_has_ended(t))
		return true;
	return a->kind == ASKS_STATE && t->state == TURN_STATE_TOOLS && turn_tools_pending(t) > 0;
}

/* A callback may ask again: that goes to the end of the list and is looked at in its turn. */
void
ask_answer_due(struct turn *t)
{
	list_for_safe (node, &t->asks) {
		struct turn_ask *a = list_entry(node, struct turn_ask, node);

		if (is_due(a))
			answer_ask(a);
	}
}

void
ask_drop_all(struct turn *t)
{
	struct turns *ts = t->turns;

	list_for_safe (node, &t->asks) {
		struct turn_ask *a = list_entry(node, struct turn_ask, node);
		struct question *q = idmap_get(ts->question_handles, a->question);

		if (a->question == 0)
			backplane_reply(ts->backplane, a->addr, a->call_id, E_NOT_FOUND, STR_NONE);
		ask_free(a);
		if (q != NULL)
			ask_again(q, RETRY_MS);
	}
}

static void
on_ask_timer(struct loop_timer *timer)
{
	struct turn_ask *a = container_of(timer, struct turn_ask, timer);

	a->is_due = true;
	follow_flush_soon(a->turn);
}

static struct turn_ask *
ask_new(struct turn *t, enum question_kind kind, uint64_t wait_ms)
{
	struct turn_ask *a = xcalloc(1, sizeof(*a));

	a->turn = t;
	a->kind = kind;
	a->is_due = wait_ms == 0;
	a->timer.on_fire = on_ask_timer;
	if (wait_ms > 0)
		loop_timer_set(t->turns->loop, &a->timer, wait_ms);
	list_add_tail(&t->asks, &a->node);
	follow_flush_soon(t);
	return a;
}

static void
ask_here(struct turn *t, struct question *q, uint64_t wait_ms)
{
	ask_new(t, q->kind, wait_ms)->question = q->handle;
	if (q->kind == ASKS_CANCEL)
		turn_stop(t);
}

/* ---- state and cancel: from here to wherever the turn is ---- */

static uint64_t
wait_left_ms(const struct question *q)
{
	uint64_t now = loop_now_ms(q->turns->loop);

	return q->wait_until_ms > now ? q->wait_until_ms - now : 0;
}

static void
on_peer_answer(void *arg, int err, struct str payload)
{
	struct question *q = gap_question(arg);
	json_t *state = NULL;

	if (q == NULL)
		return;
	bool is_silent = err == E_OWNER_UNAVAILABLE && q->kind == ASKS_STATE && q->is_waiting;
	if ((err == E_NOT_FOUND || is_silent) && !q->is_record_only) {
		q->is_record_only = true;
		ask_again(q, 0);
		return;
	}
	if (err == E_NOT_FOUND || err == E_GONE || (err == E_BUSY && wait_left_ms(q) > 0)) {
		ask_record_later(q);
		return;
	}
	if (err == 0 && q->kind == ASKS_STATE) {
		state = json_loadb(payload.p, payload.len, 0, NULL);
		err = state != NULL ? 0 : E_INTERNAL;
	}
	answer_question(q, err == E_BUSY ? E_OWNER_UNAVAILABLE : err, state, false);
	json_decref(state);
}

static void
ask_peer(struct question *q, struct backplane_addr peer)
{
	struct turns *ts = q->turns;
	uint64_t wait_ms = wait_left_ms(q);
	struct buf message = BUF_INIT;

	backplane_put_str(&message, id_str(&q->session_id));
	backplane_put_str(&message, id_str(&q->turn_id));
	backplane_put_u64(&message, wait_ms);
	backplane_send_call(ts->backplane, peer,
	    q->kind == ASKS_STATE ? BACKPLANE_TURN_STATE : BACKPLANE_TURN_CANCEL, buf_str(&message),
	    (uint32_t)(wait_ms + ts->conf->backplane.call_timeout_ms), on_peer_answer,
	    turn_gap_open(ts, q->handle));
	buf_fini(&message);
}

static void
answer_from_record(struct question *q, const struct store_turn *record)
{
	json_t *state = q->kind == ASKS_STATE ? turn_format_record(record) : NULL;

	answer_question(q, 0, state, false);
	json_decref(state);
}

static void
on_route(void *arg, struct turns *ts, uint64_t handle, const struct route *r)
{
	struct question *q = idmap_get(ts->question_handles, handle);

	(void)arg;
	if (q == NULL)
		return;
	switch (r->kind) {
	case ROUTE_HERE:
		ask_here(turn_by_id(ts, &q->session_id, &q->turn_id), q, wait_left_ms(q));
		break;
	case ROUTE_PEER:
		ask_peer(q, r->peer);
		break;
	case ROUTE_RECORD:
		answer_from_record(q, r->record);
		break;
	case ROUTE_FAILED:
		answer_question(q, r->err, NULL, false);
	}
}

/* ---- a tool's result ---- */

static void ask_record_for_owner(struct question *);

/* At the owner. */
static int
take_result(struct turns *ts, const struct id *session_id, const struct id *call_id,
    const json_t *output, const char *error, bool *ret_is_same)
{
	struct tool_call *c = tool_call_find(ts->calls, session_id, call_id);
	struct turn *t = c != NULL ? idmap_get(ts->handles, c->turn) : NULL;

	if (t == NULL || (c->state == TOOL_PENDING && t->state != TURN_STATE_TOOLS))
		return E_UNKNOWN_TOOL_CALL;
	int err = tool_call_answer(c, output, error, ret_is_same);
	if (err == 0)
		turn_tool_answered(t, c, output, error);
	else
		metric_add(METRIC_TOOL_CALLS, RUN_BY_CLIENT, TOOL_OUTCOME_DUPLICATE, 1);
	return err;
}

static int
take_result_text(struct turns *ts, const struct id *session_id, const struct id *call_id,
    bool is_error, const char *text, size_t len, bool *ret_is_same)
{
	json_t *output = is_error ? NULL : json_loadb(text, len, JSON_DECODE_ANY, NULL);
	char *error = is_error ? xstrndup(text, len) : NULL;
	int err = E_INTERNAL;

	if (is_error || output != NULL)
		err = take_result(ts, session_id, call_id, output, error, ret_is_same);
	free(error);
	json_decref(output);
	return err;
}

static void
on_result_answer(void *arg, int err, struct str payload)
{
	struct question *q = gap_question(arg);
	uint64_t is_same = 0;

	if (q == NULL)
		return;
	if (err == E_ALREADY_ANSWERED)
		backplane_take_u64(&payload, &is_same);
	/* Where Redis says the owner is there may be nobody any more: the record knows. */
	if (err == E_GONE && !q->is_record_only) {
		ask_record_for_owner(q);
		return;
	}
	/* An owner that has just died says nothing about the call: ask again, never "unknown". */
	if (err == E_GONE || err == E_BUSY)
		err = E_OWNER_UNAVAILABLE;
	answer_question(q, err, NULL, is_same != 0);
}

static void
give_to_peer(struct question *q, struct backplane_addr peer)
{
	struct turns *ts = q->turns;
	struct buf message = BUF_INIT;

	backplane_put_str(&message, id_str(&q->session_id));
	backplane_put_str(&message, id_str(&q->call_id));
	backplane_put_u64(&message, q->is_error ? 1 : 0);
	backplane_put_str(&message, str_of(q->result));
	backplane_send_call(ts->backplane, peer, BACKPLANE_TOOL_RESULT, buf_str(&message),
	    (uint32_t)ts->conf->backplane.call_timeout_ms, on_result_answer,
	    turn_gap_open(ts, q->handle));
	buf_fini(&message);
}

/* The record knows the session's live turn, and so who could know the call. */
static void
on_live_turn(void *arg, int err, const struct store_turn *live)
{
	struct question *q = gap_question(arg);
	struct backplane_addr owner;

	if (q == NULL)
		return;
	if (err == 0 && owner_parse(live->owner, &owner) && !owner_equal(owner, q->turns->self) &&
	    !owner_is_dead(q->turns, owner))
		give_to_peer(q, owner);
	else
		answer_question(
		    q, err == 0 || err == E_NOT_FOUND ? E_UNKNOWN_TOOL_CALL : err, NULL, false);
}

static void
ask_record_for_owner(struct question *q)
{
	q->is_record_only = true;
	store_turn_live(
	    q->turns->store, q->session_id.s, on_live_turn, turn_gap_open(q->turns, q->handle));
}

static void
on_call_owner(void *arg, int err, struct backplane_addr owner)
{
	struct question *q = gap_question(arg);

	if (q == NULL)
		return;
	bool is_found = err == 0 && !owner_equal(owner, q->turns->self);
	region_count(REGION_TOOLS, is_found, q->since_us);
	if (is_found)
		give_to_peer(q, owner);
	else
		ask_record_for_owner(q);
}

static void
give_result(struct question *q)
{
	struct turns *ts = q->turns;
	bool is_same = false;

	uint64_t max = ts->conf->tools.max_output_bytes;

	if (q->call_id.s[0] == '\0') {
		answer_question(q, E_UNKNOWN_TOOL_CALL, NULL, false);
		return;
	}
	if (max > 0 && strlen(q->result) > max) {
		answer_question(q, E_PAYLOAD_TOO_LARGE, NULL, false);
		return;
	}
	q->since_us = clock_mono_us();
	if (tool_call_find(ts->calls, &q->session_id, &q->call_id) == NULL) {
		backplane_find_owner(
		    ts->backplane, &q->call_id, on_call_owner, turn_gap_open(ts, q->handle));
		return;
	}
	region_count(REGION_TOOLS, true, q->since_us);
	int err = take_result_text(
	    ts, &q->session_id, &q->call_id, q->is_error, q->result, strlen(q->result), &is_same);
	answer_question(q, err, NULL, is_same);
}

/* ---- putting a question ---- */

static void
run_question(struct question *q)
{
	if (q->kind == GIVES_RESULT)
		give_result(q);
	else
		turn_route_find(q->turns, &q->session_id, &q->turn_id, q->is_record_only, on_route,
		    q->handle, NULL);
}

static struct question *
question_new(
    struct turns *ts, enum question_kind kind, const struct id *session_id, uint64_t wait_ms)
{
	struct question *q = xcalloc(1, sizeof(*q));
	uint64_t now = loop_now_ms(ts->loop);

	q->turns = ts;
	q->kind = kind;
	q->session_id = *session_id;
	q->handle = idmap_add(ts->question_handles, q);
	q->is_waiting = wait_ms > 0;
	q->wait_until_ms = now + wait_ms;
	q->give_up_ms = now + wait_ms + FIND_MS;
	q->timer.on_fire = on_question_timer;
	loop_timer_set(ts->loop, &q->timer, 0);
	list_add_tail(&ts->questions, &q->node);
	return q;
}

uint64_t
turn_get_state(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    uint32_t wait_ms, turn_on_state *on_state, void *arg)
{
	struct question *q = question_new(ts, ASKS_STATE, session_id, wait_ms);

	q->turn_id = *turn_id;
	q->on_state = on_state;
	q->arg = arg;
	return q->handle;
}

/* A peer that was asked to wait is asked again, not to: whichever answer comes first is the one. */
void
turn_hurry_state(struct turns *ts, uint64_t handle)
{
	struct question *q = idmap_get(ts->question_handles, handle);
	struct turn *t = q != NULL ? turn_by_id(ts, &q->session_id, &q->turn_id) : NULL;
	uint64_t now_ms = loop_now_ms(ts->loop);

	if (q == NULL || q->wait_until_ms <= now_ms)
		return;
	check(q->kind == ASKS_STATE);
	q->wait_until_ms = now_ms;
	q->give_up_ms = now_ms + FIND_MS;
	if (t == NULL) {
		loop_timer_set(ts->loop, &q->timer, 0);
		return;
	}
	list_for (node, &t->asks) {
		struct turn_ask *a = list_entry(node, struct turn_ask, node);

		a->is_due = a->is_due || a->question == handle;
	}
	follow_flush_soon(t);
}

/* What was asked of a peer is answered in its time, and finds nobody. */
void
turn_forget_state(struct turns *ts, uint64_t handle)
{
	struct question *q = idmap_get(ts->question_handles, handle);
	struct turn *t = q != NULL ? turn_by_id(ts, &q->session_id, &q->turn_id) : NULL;

	if (q == NULL)
		return;
	check(q->kind == ASKS_STATE);
	if (t != NULL)
		list_for_safe (node, &t->asks) {
			struct turn_ask *a = list_entry(node, struct turn_ask, node);

			if (a->question == handle)
				ask_free(a);
		}
	question_free(q);
}

void
turn_cancel(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    turn_on_done *on_done, void *arg)
{
	struct question *q = question_new(ts, ASKS_CANCEL, session_id, CANCEL_WAIT_MS);

	q->turn_id = *turn_id;
	q->on_done = on_done;
	q->arg = arg;
}

void
turn_tool_result(
    struct turns *ts, const struct turn_tool_result *r, turn_on_tool_result *on_result, void *arg)
{
	struct question *q = question_new(ts, GIVES_RESULT, &r->session_id, 0);

	check((r->output != NULL) != (r->error != NULL));
	if (!id_parse(str_of(r->tool_call_id), "call", &q->call_id))
		q->call_id.s[0] = '\0';
	q->is_error = r->error != NULL;
	q->result =
	    q->is_error ? xstrdup(r->error) : json_dumps(r->output, JSON_COMPACT | JSON_ENCODE_ANY);
	check(q->result != NULL);
	q->on_result = on_result;
	q->arg = arg;
}

/* ---- from peers ---- */

static void
take_peer_ask(struct turns *ts, const struct backplane_call *call, enum question_kind kind)
{
	struct str rest = call->payload, session, turn;
	struct id session_id, turn_id;
	uint64_t wait_ms;
	struct turn *t = NULL;

	if (backplane_take_str(&rest, &session) && backplane_take_str(&rest, &turn) &&
	    backplane_take_u64(&rest, &wait_ms) && id_parse(session, "sess", &session_id) &&
	    id_parse(turn, "turn", &turn_id))
		t = turn_by_id(ts, &session_id, &turn_id);
	if (t == NULL) {
		backplane_reply(ts->backplane, call->from, call->call_id, E_NOT_FOUND, STR_NONE);
		return;
	}
	struct turn_ask *a = ask_new(t, kind, wait_ms);
	a->addr = call->from;
	a->call_id = call->call_id;
	if (kind == ASKS_CANCEL)
		turn_stop(t);
}

static void
on_peer_state(void *arg, const struct backplane_call *call)
{
	take_peer_ask(arg, call, ASKS_STATE);
}

static void
on_peer_cancel(void *arg, const struct backplane_call *call)
{
	take_peer_ask(arg, call, ASKS_CANCEL);
}

static void
on_peer_result(void *arg, const struct backplane_call *call)
{
	struct turns *ts = arg;
	struct str rest = call->payload, session, id, text;
	struct id session_id, call_id;
	struct buf same = BUF_INIT;
	uint64_t is_error;
	bool is_same = false;
	int err = E_UNKNOWN_TOOL_CALL;

	if (backplane_take_str(&rest, &session) && backplane_take_str(&rest, &id) &&
	    backplane_take_u64(&rest, &is_error) && backplane_take_str(&rest, &text) &&
	    id_parse(session, "sess", &session_id) && id_parse(id, "call", &call_id))
		err = take_result_text(
		    ts, &session_id, &call_id, is_error != 0, text.p, text.len, &is_same);
	backplane_put_u64(&same, is_same ? 1 : 0);
	backplane_reply(ts->backplane, call->from, call->call_id, err, buf_str(&same));
	buf_fini(&same);
}

void
remote_init(struct turns *ts)
{
	list_init(&ts->questions);
	ts->question_handles = idmap_new();
	backplane_serve(ts->backplane, BACKPLANE_TURN_STATE, on_peer_state, ts);
	backplane_serve(ts->backplane, BACKPLANE_TURN_CANCEL, on_peer_cancel, ts);
	backplane_serve(ts->backplane, BACKPLANE_TOOL_RESULT, on_peer_result, ts);
}

/* Unanswered: who asked is going too. */
void
remote_fini(struct turns *ts)
{
	list_for_safe (node, &ts->questions)
		question_free(list_entry(node, struct question, node));
}
