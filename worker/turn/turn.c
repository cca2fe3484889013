/*
 * turn - the machine: which state follows which, and the ways to an end.
 *
 *   OPEN -> BEGIN -> PREPARE -> CALL -> STREAM --+-> SAVE -> DONE
 *    |  \   ^ |                  ^        |      |    |
 *    |   QUEUED                  +- TOOLS-+      |    +-> FAILED, CANCELLED
 *    +-> REFUSED (nothing was written)           +-- a failure or a cancel from anywhere
 *
 * A step does its state's work when it is entered and is run again whenever
 * something that it waits for has come. turn_enter() is the only place that
 * changes the state.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/turn/turn_impl.h"

static const struct {
	enum turn_next (*step)(struct turn *);
	const char *name;
	bool is_live;
} states[TURN_STATE_COUNT] = {
#define X(name, step, text, is_live) {step, text, is_live},
#include "worker/turn/turn_states.tbl"
#undef X
};

const char *
turn_state_name(enum turn_state state)
{
	check(state < TURN_STATE_COUNT);
	return states[state].name;
}

bool
turn_is_live(const struct turn *t)
{
	return states[t->state].is_live;
}

bool
turn_has_ended(const struct turn *t)
{
	return t->state == TURN_STATE_DONE || t->state == TURN_STATE_FAILED ||
	       t->state == TURN_STATE_CANCELLED;
}

void
turn_enter(struct turn *t, enum turn_state state)
{
	check(states[t->state].step != NULL); /* an ended turn stays what it is */
	log_debug("turn state turn=%s from=%s to=%s hop=%u", t->id.s, states[t->state].name,
	    states[state].name, t->hop);
	t->state = state;
	t->has_asked = false;
}

void
turn_run(struct turn *t)
{
	while (states[t->state].step != NULL && states[t->state].step(t) == TURN_NEXT_STEP)
		;
}

/* ---- the ways to an outcome ---- */

static const char *
hop_text(const struct turn *t)
{
	return t->feed.text.len > t->hop_text ? t->feed.text.data + t->hop_text : "";
}

/* The answer, or its part; a call of tools that got no results is not part of it. */
static void
save_answer(struct turn *t, bool is_partial)
{
	const char *text = hop_text(t);

	if (is_partial && *text == '\0')
		return;
	t->message_id = id_new("msg");
	turn_save_message(t, &t->message_id, "assistant",
	    json_pack("{s:s, s:s}", "role", "assistant", "content", text), is_partial);
}

static void
conclude(struct turn *t)
{
	bool has_begun = t->state != TURN_STATE_BEGIN;

	turn_cancel_call(t);
	turn_stop_serving(t);
	loop_timer_stop(t->turns->loop, &t->tool_timer);
	loop_timer_stop(t->turns->loop, &t->gone_timer);
	if (!has_begun)
		return; /* the record's answer leads to SAVE */
	/* While tools run, this hop's text is in no message yet. */
	save_answer(t, t->outcome != TURN_COMPLETED);
	turn_enter(t, TURN_STATE_SAVE);
	turn_run(t);
}

static bool
may_decide(struct turn *t)
{
	if (t->has_outcome || !turn_is_live(t) || t->state == TURN_STATE_SAVE)
		return false;
	t->has_outcome = true;
	return true;
}

void
turn_complete(struct turn *t, const char *finish_reason)
{
	if (!may_decide(t))
		return;
	t->outcome = TURN_COMPLETED;
	t->finish_reason = finish_reason;
	conclude(t);
}

static void
set_error(struct turn *t, int err, const char *message)
{
	if (message == NULL || *message == '\0' || !str_is_utf8(str_of(message)))
		message = err_info(err)->text;
	free(t->err_message);
	t->err = err;
	t->err_message = xstrdup(message);
}

void
turn_fail(struct turn *t, int err, const char *message)
{
	check(err < 0);
	if (t->state == TURN_STATE_OPEN || t->state == TURN_STATE_QUEUED) {
		turn_refuse(t, err, NULL, message);
		return;
	}
	if (!may_decide(t))
		return;
	t->outcome = TURN_FAILED;
	set_error(t, err, message);
	conclude(t);
}

void
turn_stop(struct turn *t)
{
	if (!may_decide(t))
		return;
	t->outcome = TURN_CANCELLED;
	conclude(t);
}

/* ---- SAVE and what comes after ---- */

enum turn_next
turn_step_save(struct turn *t)
{
	check(t->has_outcome);
	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	turn_emit_usage(t);
	t->ended_at = clock_wall_ms();
	t->result_json = turn_format_end(t);
	turn_save_end(t);
	return TURN_NEXT_WAIT;
}

void
turn_end_failed(struct turn *t, int err)
{
	check(t->state == TURN_STATE_SAVE && err < 0);
	if (t->outcome == TURN_COMPLETED || err == E_WORKER_LOST) {
		t->outcome = TURN_FAILED;
		t->finish_reason = NULL;
		t->exceeded = NULL;
		set_error(t, err, NULL);
		free(t->result_json);
		t->result_json = turn_format_end(t);
		t->webhooks_of = NULL;
	}
}

static unsigned
outcome_label(const struct turn *t)
{
	if (t->outcome == TURN_CANCELLED)
		return TURN_OUTCOME_CANCELLED;
	if (t->outcome == TURN_FAILED)
		return t->err == E_WORKER_LOST ? TURN_OUTCOME_WORKER_LOST : TURN_OUTCOME_FAILED;
	return strcmp(t->finish_reason, "tool_limit_reached") == 0 ? TURN_OUTCOME_TOOL_LIMIT
								   : TURN_OUTCOME_COMPLETED;
}

static enum turn_state
outcome_state(const struct turn *t)
{
	switch (t->outcome) {
	case TURN_COMPLETED:
		return TURN_STATE_DONE;
	case TURN_CANCELLED:
		return TURN_STATE_CANCELLED;
	default:
		return TURN_STATE_FAILED;
	}
}

static void
log_end(const struct turn *t)
{
	if (t->outcome == TURN_FAILED)
		log_info("turn failed turn=%s session=%s code=%s hops=%u", t->id.s, t->session_id.s,
		    err_info(t->err)->code, t->hop);
	else
		log_debug("turn ended turn=%s session=%s outcome=%s hops=%u", t->id.s,
		    t->session_id.s, states[t->state].name, t->hop);
}

void
turn_finish(struct turn *t)
{
	json_t *calls = turn_format_calls(t);

	turn_enter(t, outcome_state(t));
	feed_add(&t->feed, t->outcome, str_of(t->result_json));
	t->calls_json = json_dumps(calls, JSON_COMPACT);
	json_decref(calls);
	metric_add(METRIC_TURNS, outcome_label(t), 0, 1);
	log_end(t);
	turn_tell_events(t, t->outcome == TURN_COMPLETED   ? "turn.completed"
			    : t->outcome == TURN_CANCELLED ? "turn.cancelled"
							   : "turn.failed");
	turn_release_work(t);
	turn_retain(t);
	follow_flush_soon(t);
}
