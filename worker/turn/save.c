/*
 * save - a turn's writes to the record.
 *
 * Messages and usage wait here until the record has acknowledged them: a hop's
 * write that fails is not the turn's failure, its rows go with the next one, and
 * at the latest with the end. Ids make repetition harmless. One such write is on
 * its way at a time. Every write names the fence: E_FENCED says that somebody
 * has declared this worker dead and ended the turn. Then, and when the end is not
 * taken now, the rows of usage go without the turn (usage.h).
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/turn/turn_impl.h"

enum { RETRY_MIN_MS = 1000, RETRY_MAX_MS = 30000 };

/* ---- what is to be written ---- */

void
turn_save_message(
    struct turn *t, const struct id *id, const char *role, json_t *body, bool is_partial)
{
	struct turn_unsaved *u = &t->unsaved;
	char *text = json_dumps(body, JSON_COMPACT);

	check(text != NULL);
	if (u->message_count == u->message_cap) {
		u->message_cap = u->message_cap > 0 ? u->message_cap * 2 : 4;
		u->messages = xrealloc(u->messages, u->message_cap * sizeof(*u->messages));
	}
	u->messages[u->message_count++] = (struct store_message){
	    .id = arena_strdup(&t->arena, id_str(id)),
	    .session_id = t->session_id.s,
	    .turn_id = t->id.s,
	    .role = role,
	    .body_json = arena_strdup(&t->arena, str_of(text)),
	    .is_partial = is_partial,
	    .created_at = clock_wall_ms(),
	};
	free(text);
	json_decref(body);
}

void
turn_save_usage(struct turn *t, const struct store_usage *row)
{
	struct turn_unsaved *u = &t->unsaved;

	if (u->usage_count == u->usage_cap) {
		u->usage_cap = u->usage_cap > 0 ? u->usage_cap * 2 : 4;
		u->usage = xrealloc(u->usage, u->usage_cap * sizeof(*u->usage));
	}
	u->usage[u->usage_count] = *row;
	if (row->provider != NULL) {
		u->usage[u->usage_count].provider = arena_strdup(&t->arena, str_of(row->provider));
		u->usage[u->usage_count].provider_model =
		    arena_strdup(&t->arena, str_of(row->provider_model));
	}
	u->usage_count++;
}

void
turn_save_fini(struct turn *t)
{
	free(t->unsaved.messages);
	free(t->unsaved.usage);
	t->unsaved = (struct turn_unsaved){0};
}

static void
forget_written(struct turn_unsaved *u)
{
	u->message_count -= u->written_messages;
	u->usage_count -= u->written_usage;
	if (u->message_count > 0)
		memmove(u->messages, u->messages + u->written_messages,
		    u->message_count * sizeof(*u->messages));
	if (u->usage_count > 0)
		memmove(u->usage, u->usage + u->written_usage, u->usage_count * sizeof(*u->usage));
}

/* The turn's own writes cannot take it to the record, or not now: it was used all the same, and
 * goes with the rows of others. */
static void
give_usage_away(struct turn *t)
{
	struct turn_unsaved *u = &t->unsaved;

	for (size_t i = 0; i < u->usage_count && t->turns->usages != NULL; i++)
		usage_add_late(t->turns->usages, &u->usage[i]);
	u->usage_count = 0;
}

/* ---- fenced ---- */

static void
fenced(struct turn *t)
{
	log_warn("turn taken over turn=%s session=%s", t->id.s, t->session_id.s);
	t->is_fenced = true;
	turn_fail(t, E_WORKER_LOST, NULL);
}

/* ---- between the hops ---- */

static void
on_hop_saved(void *arg, int err)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL || turn_has_ended(t))
		return;
	t->unsaved.is_writing = false;
	if (err == 0)
		forget_written(&t->unsaved);
	else
		log_warn("turn hop not saved turn=%s err=%s", t->id.s, err_info(err)->name);
	if (err == E_FENCED)
		fenced(t);
	if (t->is_end_wanted)
		turn_save_end(t);
}

void
turn_save_hop(struct turn *t)
{
	struct turn_unsaved *u = &t->unsaved;

	if (u->is_writing || u->message_count + u->usage_count == 0)
		return;
	u->is_writing = true;
	u->written_messages = u->message_count;
	u->written_usage = u->usage_count;
	store_turn_add(t->turns->store, t->id.s, t->fence, u->messages, u->message_count, u->usage,
	    u->usage_count, on_hop_saved, turn_gap_open(t->turns, t->handle));
}

/* ---- while it streams ---- */

static void
on_progress_saved(void *arg, int err)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL || turn_has_ended(t))
		return;
	t->is_progress_pending = false;
	if (err == E_FENCED && t->state != TURN_STATE_SAVE)
		fenced(t);
}

static void
on_progress_timer(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, progress_timer);

	feed_settle(&t->feed);
	follow_flush_soon(t);
	if (t->state == TURN_STATE_SAVE || t->feed.head == t->progress_seq)
		return;
	if (t->is_progress_pending) { /* the record is slow: not one more */
		turn_save_progress_soon(t);
		return;
	}
	t->is_progress_pending = true;
	t->progress_seq = t->feed.head;
	store_turn_progress(t->turns->store, t->id.s, t->fence,
	    t->feed.text.len > 0 ? t->feed.text.data : "", t->feed.head, on_progress_saved,
	    turn_gap_open(t->turns, t->handle));
}

void
turn_save_progress_soon(struct turn *t)
{
	if (loop_timer_is_set(&t->progress_timer) || !turn_is_live(t))
		return;
	t->progress_timer.on_fire = on_progress_timer;
	loop_timer_set(
	    t->turns->loop, &t->progress_timer, t->turns->conf->turns.progress_interval_ms);
}

/* ---- the end ---- */

/* Made once for an outcome: repeated, the write has the same ids. */
static void
make_webhooks(struct turn *t)
{
	const struct turn_hooks *hooks = &t->turns->hooks;
	struct turn_ending ending = {
	    t->app_id, t->session_id.s, t->id.s, t->outcome, t->result_json};

	if (hooks->rows == NULL || t->webhooks_of == t->result_json)
		return;
	t->webhooks_of = t->result_json;
	t->webhook_count = hooks->rows(hooks->arg, &ending, &t->arena, &t->webhooks);
}

static void
tell_webhooks(const struct turn *t)
{
	if (t->webhook_count > 0)
		t->turns->hooks.on_written(t->turns->hooks.arg);
}

static void
write_end(struct turn *t, store_on_done *on_done)
{
	make_webhooks(t);
	bool is_failed = t->outcome == TURN_FAILED;
	struct store_turn_end end = {
	    .turn_id = t->id.s,
	    .session_id = t->session_id.s,
	    .fence = t->fence,
	    .state = t->outcome == TURN_COMPLETED ? "completed"
		     : is_failed                  ? "failed"
						  : "cancelled",
	    .error_code = is_failed ? err_info(t->err)->code : NULL,
	    .error_message = is_failed ? t->err_message : NULL,
	    .finish_reason = t->finish_reason,
	    .text = t->feed.text.len > 0 ? t->feed.text.data : "",
	    .result_json = t->result_json,
	    /* The last event comes after the commit. */
	    .last_seq = turn_has_ended(t) ? t->feed.head : t->feed.head + 1,
	    .messages = t->unsaved.messages,
	    .message_count = t->unsaved.message_count,
	    .usage = t->unsaved.usage,
	    .usage_count = t->unsaved.usage_count,
	    .webhooks = t->webhooks,
	    .webhook_count = t->webhook_count,
	    .now = t->ended_at,
	};

	store_turn_end(t->turns->store, &end, on_done, turn_gap_open(t->turns, t->handle));
}

static void on_end_repeated(void *arg, int err);

static void
on_retry_timer(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, retry_timer);

	write_end(t, on_end_repeated);
}

/*
 * The record has it as live until it can be told otherwise, and would let no other
 * turn begin in the session: it is told until it hears.
 */
static void
retry_later(struct turn *t)
{
	t->retry_delay_ms = t->retry_delay_ms > 0 ? t->retry_delay_ms * 2 : RETRY_MIN_MS;
	if (t->retry_delay_ms > RETRY_MAX_MS)
		t->retry_delay_ms = RETRY_MAX_MS;
	t->retry_timer.on_fire = on_retry_timer;
	loop_timer_set(t->turns->loop, &t->retry_timer, t->retry_delay_ms);
}

/* Somebody else has ended it, or it was erased: there is nothing left to say. */
static bool
is_final(int err)
{
	return err == 0 || err == E_FENCED || err == E_NOT_FOUND;
}

static void
on_end_repeated(void *arg, int err)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL)
		return;
	if (!is_final(err)) {
		retry_later(t);
		return;
	}
	log_info(
	    "turn recorded late turn=%s err=%s", t->id.s, err == 0 ? "-" : err_info(err)->name);
	t->is_unrecorded = false;
	tell_webhooks(t);
	turn_release_work(t);
}

static void
mark_partial(struct turn *t)
{
	for (size_t i = 0; i < t->unsaved.message_count; i++)
		if (strcmp(t->unsaved.messages[i].id, t->message_id.s) == 0)
			t->unsaved.messages[i].is_partial = true;
}

static void
on_end_saved(void *arg, int err)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL)
		return;
	check(t->state == TURN_STATE_SAVE);
	if (err != 0) {
		log_warn("turn end not saved turn=%s err=%s", t->id.s, err_info(err)->name);
		t->is_unrecorded = !is_final(err);
		give_usage_away(t);
		if (t->outcome == TURN_COMPLETED)
			mark_partial(t);
		turn_end_failed(t, err == E_FENCED ? E_WORKER_LOST : E_STORE_UNAVAILABLE);
	} else {
		tell_webhooks(t);
	}
	turn_finish(t);
	if (t->is_unrecorded)
		retry_later(t);
}

void
turn_save_end(struct turn *t)
{
	t->is_end_wanted = true;
	if (t->unsaved.is_writing)
		return;
	t->is_end_wanted = false;
	if (!t->is_fenced) {
		write_end(t, on_end_saved);
		return;
	}
	give_usage_away(t);
	turn_end_failed(t, E_WORKER_LOST);
	turn_finish(t);
}
