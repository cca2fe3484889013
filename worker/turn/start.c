/*
 * start - how a request becomes the live turn of its session, or is refused, or
 * turns out to be the repetition of an earlier one.
 *
 * The record decides in one transaction. A turn that waits for another one follows
 * its end; those that wait try again one after the other, in the order in which
 * they came, each a little later than the one before: the record has the last word.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/turn/turn_impl.h"

enum {
	QUEUE_STEP_MS = 30,   /* between those that wait: a begin takes a few */
	QUEUE_AGAIN_MS = 200, /* when the same turn is in the way again */
	BEGIN_TRIES_MAX = 4,  /* without waiting, past turns of dead owners */
};

static char *
arena_copy(struct turn *t, const char *s)
{
	return s != NULL && *s != '\0' ? arena_strdup(&t->arena, str_of(s)) : NULL;
}

/* ---- refused, or a repetition: told from the loop, then gone ---- */

static void
run_refusal(struct loop_post *post)
{
	struct turn *t = container_of(post, struct turn, reap);
	struct turn_started started = {.turn_id = t->existing, .is_replay = true};
	turn_on_started *on_started = t->on_started;
	void *arg = t->on_started_arg;
	int err = t->refusal;
	char *message = t->err_message;

	t->err_message = NULL;
	if (err == E_DUPLICATE)
		err = 0;
	turn_free_later(t);
	on_started(arg, err, err == 0 ? &started : NULL, message);
	free(message);
}

void
turn_refuse(struct turn *t, int err, const struct id *existing, const char *message)
{
	check(err < 0 && t->on_started != NULL);
	loop_timer_stop(t->turns->loop, &t->total_timer);
	loop_timer_stop(t->turns->loop, &t->retry_timer);
	if (t->wait_listener != 0)
		turn_detach(t->turns, t->wait_listener, false);
	t->wait_listener = 0;
	if (existing != NULL)
		t->existing = *existing;
	t->refusal = err;
	t->err_message = message != NULL ? xstrdup(message) : NULL;
	turn_enter(t, TURN_STATE_REFUSED);
	t->reap.run = run_refusal;
	loop_post(t->turns->loop, &t->reap);
}

void
turn_on_drain(struct turn *t)
{
	if (t->state == TURN_STATE_OPEN || t->state == TURN_STATE_QUEUED)
		turn_refuse(t, E_DRAINING, NULL, NULL);
}

/* ---- OPEN: the session ---- */

static void
take_session(struct turn *t, const struct store_session *s)
{
	const struct conf *conf = t->turns->conf;

	if (t->model == NULL)
		t->model = arena_copy(t, s->model);
	if (t->model == NULL && conf->models.n > 0)
		t->model = arena_copy(t, conf->models.v[0].name);
	if (t->tools == NULL && s->tools_json != NULL)
		t->tools = json_loads(s->tools_json, 0, NULL);
	if (json_array_size(t->tools) == 0) {
		json_decref(t->tools);
		t->tools = NULL;
	}
	t->system = arena_copy(t, s->system);
	if (t->system == NULL && t->app != NULL)
		t->system = arena_copy(t, t->app->system_prompt);
}

static void
on_session(void *arg, int err, const struct store_session *s)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL || t->state != TURN_STATE_OPEN)
		return;
	if (err == 0 && strcmp(s->status, "active") != 0)
		err = E_SESSION_CLOSED;
	if (err != 0) {
		turn_refuse(t, err, NULL, NULL);
		return;
	}
	take_session(t, s);
	if (t->model == NULL || !providers_know_model(t->turns->providers, t->model)) {
		turn_refuse(t, E_INVALID_VALUE, NULL, "There is no such model.");
		return;
	}
	turn_enter(t, TURN_STATE_BEGIN);
	turn_run(t);
}

enum turn_next
turn_step_open(struct turn *t)
{
	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	store_session_get(
	    t->turns->store, t->session_id.s, on_session, turn_gap_open(t->turns, t->handle));
	return TURN_NEXT_WAIT;
}

/* ---- QUEUED ---- */

static void
on_queue_timer(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, retry_timer);

	if (t->state != TURN_STATE_QUEUED)
		return;
	turn_enter(t, TURN_STATE_BEGIN);
	turn_run(t);
}

static void
on_blocker_ended(void *arg, int err, uint32_t rank)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_QUEUED);
	t->wait_listener = 0;
	if (err == E_TURN_IN_PROGRESS) {
		turn_refuse(t, err, NULL, "Too many turns wait in this session.");
		return;
	}
	/* Not found or not reachable: the record will say. */
	uint64_t delay_ms = rank * QUEUE_STEP_MS + (err != 0 ? QUEUE_AGAIN_MS : 0);

	t->retry_timer.on_fire = on_queue_timer;
	loop_timer_set(t->turns->loop, &t->retry_timer, delay_ms);
}

enum turn_next
turn_step_queued(struct turn *t)
{
	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	t->wait_listener =
	    listener_wait(t->turns, &t->session_id, &t->existing, t->ticket, on_blocker_ended, t);
	return TURN_NEXT_WAIT;
}

static void
on_total_timeout(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, total_timer);

	if (t->state == TURN_STATE_QUEUED)
		turn_refuse(t, E_TURN_IN_PROGRESS, NULL, NULL);
	else
		turn_fail(t, E_TURN_TIMEOUT, NULL);
}

/* For the wait in the queue, and anew for the turn itself. */
static void
set_total_timer(struct turn *t)
{
	uint64_t timeout_ms = t->turns->conf->turns.total_timeout_ms;

	t->total_timer.on_fire = on_total_timeout;
	loop_timer_stop(t->turns->loop, &t->total_timer);
	if (timeout_ms > 0)
		loop_timer_set(t->turns->loop, &t->total_timer, timeout_ms);
}

static void
wait_in_queue(struct turn *t, const struct id *blocker)
{
	bool is_again = str_eq(id_str(&t->existing), id_str(blocker));

	t->existing = *blocker;
	if (!loop_timer_is_set(&t->total_timer))
		set_total_timer(t);
	turn_enter(t, TURN_STATE_QUEUED);
	if (!is_again) {
		turn_run(t);
		return;
	}
	t->has_asked = true; /* not this time: let it settle */
	t->retry_timer.on_fire = on_queue_timer;
	loop_timer_set(t->turns->loop, &t->retry_timer, QUEUE_AGAIN_MS);
}

/* ---- BEGIN ---- */

static void
begun(struct turn *t)
{
	struct turn_started started = {.turn_id = t->id};
	turn_on_started *on_started = t->on_started;
	void *arg = t->on_started_arg;

	t->on_started = NULL;
	t->model_name = xstrdup(t->model);
	t->model_label = metric_label(LABEL_MODEL, str_of(t->model));
	set_total_timer(t);
	turn_emit_started(t);
	turn_announce(t);
	turn_enter(t, t->has_outcome ? TURN_STATE_SAVE : TURN_STATE_PREPARE);
	turn_run(t);
	follow_consider_user_gone(t); /* until the first listener has come */
	on_started(arg, 0, &started, NULL);
}

/* The session's live turn, or the one of this request_id, belongs to nobody: let the record say so.
 */
static void
on_blocker_lost(void *arg, int err)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL || t->state != TURN_STATE_BEGIN)
		return;
	if (err == E_STORE_UNAVAILABLE) {
		turn_unpublish(t);
		turn_refuse(t, err, NULL, NULL);
		return;
	}
	t->has_asked = false; /* once more, also when somebody else was faster */
	turn_run(t);
}

static bool
is_nobodys(struct turn *t, const struct store_turn *existing)
{
	struct backplane_addr owner;

	if (existing == NULL || strcmp(existing->state, "live") != 0)
		return false;
	if (!owner_parse(existing->owner, &owner))
		return true;
	if (owner_equal(owner, t->turns->self))
		return !turn_exists_here(t->turns, existing->id);
	return owner_is_dead(t->turns, owner);
}

static void
refused_by_record(struct turn *t, int err, const struct store_turn *existing)
{
	struct id id = {""};

	turn_unpublish(t);
	if (err == E_STORE_UNAVAILABLE)
		lost_maybe_begun(t->turns, &t->id);
	if (existing != NULL && !id_parse(str_of(existing->id), "turn", &id))
		log_error("turn id malformed in the record session=%s", t->session_id.s);
	if (t->has_outcome)
		turn_refuse(t, t->outcome == TURN_CANCELLED ? E_CANCELLED : t->err, NULL, NULL);
	else if (err == E_TURN_IN_PROGRESS && t->may_queue && t->turns->is_refusing)
		turn_refuse(t, E_DRAINING, NULL, NULL);
	else if (err == E_TURN_IN_PROGRESS && t->may_queue)
		wait_in_queue(t, &id);
	else
		turn_refuse(t, err, &id, NULL);
}

static void
on_begun(void *arg, int err, const struct store_turn *existing)
{
	struct turn *t = turn_gap_turn(arg);

	if (t == NULL)
		return;
	check(t->state == TURN_STATE_BEGIN);
	if (err == 0) {
		begun(t);
		return;
	}
	if (is_nobodys(t, existing) && t->begin_count < BEGIN_TRIES_MAX) {
		log_info("turn without an owner turn=%s owner=%s", existing->id,
		    existing->owner != NULL ? existing->owner : "-");
		store_turn_lose(t->turns->store, existing->id,
		    existing->owner != NULL ? existing->owner : "", clock_wall_ms(),
		    on_blocker_lost, turn_gap_open(t->turns, t->handle));
		return;
	}
	refused_by_record(t, err, existing);
}

static void
format_user_message(struct turn *t, struct store_message *m)
{
	json_t *body = json_pack("{s:s, s:O}", "role", "user", "content", t->input);
	char *text = json_dumps(body, JSON_COMPACT);

	check(text != NULL);
	if (t->user_message_id.s[0] == '\0')
		t->user_message_id = id_new("msg");
	*m = (struct store_message){
	    .id = t->user_message_id.s,
	    .session_id = t->session_id.s,
	    .turn_id = t->id.s,
	    .role = "user",
	    .body_json = arena_strdup(&t->arena, str_of(text)),
	    .created_at = t->created_at,
	};
	free(text);
	json_decref(body);
}

enum turn_next
turn_step_begin(struct turn *t)
{
	struct turns *ts = t->turns;
	struct store_turn_begin begin = {0};

	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	if (t->begin_count++ == 0 || !turn_exists_here(ts, t->id.s)) {
		t->created_at = clock_wall_ms();
		turn_publish(t);
	}
	begin.turn = (struct store_turn){
	    .id = t->id.s,
	    .session_id = t->session_id.s,
	    .app_id = t->app_id,
	    .key_id = t->key_id,
	    .request_id = t->request_id,
	    .input_hash = t->input_hash,
	    .state = "live",
	    .owner = ts->owner,
	    .fence = t->fence,
	    .model = t->model,
	    .created_at = t->created_at,
	};
	begin.now = t->created_at;
	format_user_message(t, &begin.message);
	store_turn_begin(ts->store, &begin, on_begun, turn_gap_open(ts, t->handle));
	return TURN_NEXT_WAIT;
}

/* ---- the request ---- */

static void
hash_input(const json_t *input, char out[SHA256_HEX_LEN + 1])
{
	uint8_t hash[SHA256_LEN];
	char *text = json_dumps(input, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

	check(text != NULL);
	crypto_sha256(str_of(text), hash);
	crypto_hex(hash, sizeof(hash), out);
	free(text);
}

static void
take_request(struct turn *t, const struct turn_start *s)
{
	t->session_id = s->session_id;
	t->app_id = arena_copy(t, s->app_id);
	t->key_id = arena_copy(t, s->key_id);
	t->app = s->app;
	if (s->app != NULL)
		t->org_id = arena_copy(t, s->app->org);
	t->request_id = arena_copy(t, s->request_id);
	t->http_request_id = arena_copy(t, s->http_request_id);
	t->traceparent = arena_copy(t, s->traceparent);
	t->model = arena_copy(t, s->model);
	t->input = json_deep_copy(s->input);
	t->tools = s->tools != NULL ? json_deep_copy(s->tools) : NULL;
	t->is_cancelled_on_disconnect = s->cancel_on_disconnect;
	t->may_queue = s->queue;
	t->originator = s->originator;
	t->key_budget = s->budget;
	t->key_tokens = s->tokens;
	hash_input(s->input, t->input_hash);
}

void
turn_start(struct turns *ts, const struct turn_start *s, turn_on_started *on_started, void *arg)
{
	struct turn *t = turn_new(ts);

	check(s->input != NULL && s->app_id != NULL);
	take_request(t, s);
	t->on_started = on_started;
	t->on_started_arg = arg;
	/* Monotonic time is the same in all workers: whoever came first is first. */
	t->ticket = t->requested_ms << 16 | (ts->ticket_count++ & 0xFFFF);
	if (ts->is_refusing)
		turn_refuse(t, E_DRAINING, NULL, NULL);
	else if (t->model != NULL && !providers_know_model(ts->providers, t->model))
		turn_refuse(t, E_INVALID_VALUE, NULL, "There is no such model.");
	else
		turn_run(t);
}
