/*
 * ws_chat_say - the action chat: what a user says becomes a turn.
 *
 *   fields -> rate -> session (known, loaded, or made with the first chat)
 *          -> turn_start -> the turn is followed under the request's id
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/api/fields.h"
#include "worker/api/rate_warn.h"
#include "worker/api/shapes.h"
#include "worker/api/ws_chat_impl.h"
#include "worker/usage/refusal.h"

enum { IDEMPOTENCY_KEY_MAX = 128 };

/* ---- the turn ---- */

/* Who follows the turn hears its end. */
static void
on_cancelled_at_start(void *arg, int err)
{
	(void)arg;
	(void)err;
}

static void
on_started(void *arg, int err, const struct turn_started *started, const char *message)
{
	struct chat_ask *ask = arg;
	struct chat_socket *cs = chat_ask_socket(ask);

	if (err != 0) {
		chat_ask_fail(ask, err, err == E_INVALID_VALUE ? "model" : NULL, message);
		return;
	}
	struct chat_member *m = cs != NULL ? chat_member_find(cs, &ask->call.session_id) : NULL;
	struct chat_follow_start start = {.turn_id = &started->turn_id,
	    .request_id = ask->request_id,
	    .is_own = true,
	    .is_streamed = ask->is_streamed};
	if (m != NULL)
		chat_follow(m, &start);
	ask->call.turn_id = started->turn_id;
	if (ask->is_cancelled)
		turn_cancel(ask->call.api->turns, &ask->call.session_id, &ask->call.turn_id,
		    on_cancelled_at_start, NULL);
	chat_ask_end(ask);
}

static void
start_turn(struct chat_ask *ask, struct chat_socket *cs, struct chat_member *m)
{
	struct api_call *call = &ask->call;
	struct turn_start start = {
	    .session_id = chat_member_session(m),
	    .app_id = call->app_id,
	    .key_id = call->key_id,
	    .app = call->app,
	    .input = ask->input,
	    .request_id = ask->idempotency_key,
	    .tools = ask->tools,
	    .model = ask->model,
	    .cancel_on_disconnect = ask->cancels_on_disconnect,
	    .queue = ask->may_queue,
	    .originator = cs->originator,
	    .budget = call->budget,
	    .tokens = cs->key->rate.tpm,
	};

	cs->present = m;
	call->session_id = start.session_id;
	turn_start(call->api->turns, &start, on_started, ask);
}

/* ---- the session ---- */

/* Those that came while the conversation was being made; cs NULL: for nobody any more. */
static void
go_on_waiting(struct chats *c, uint64_t handle, struct chat_socket *cs, int err)
{
	list_for_safe (node, &c->asks) {
		struct chat_ask *ask = list_entry(node, struct chat_ask, node);

		if (ask->socket != handle || !ask->is_waiting)
			continue;
		ask->is_waiting = false;
		if (cs == NULL || err != 0)
			chat_ask_fail(ask, err, NULL, NULL);
		else
			start_turn(ask, cs, cs->present);
	}
}

static void
on_opened(void *arg, int err, const struct store_session *session, bool is_reused)
{
	struct chat_ask *ask = arg;
	struct chats *c = ask->chats;
	uint64_t handle = ask->socket;
	struct chat_socket *cs = chat_ask_socket(ask);

	(void)session;
	(void)is_reused;
	if (cs != NULL && err == 0)
		start_turn(ask, cs, chat_member_new(cs, &ask->call.session_id));
	else
		chat_ask_fail(ask, err, NULL, NULL);
	if (cs == NULL || cs->has_waiting)
		go_on_waiting(c, handle, cs, err);
	if (cs != NULL)
		cs->is_opening_session = cs->has_waiting = false;
}

static void
open_session(struct chat_ask *ask, struct chat_socket *cs)
{
	struct api_call *call = &ask->call;
	int64_t now = clock_wall_ms();
	struct store_session_open open = {.now = now};

	call->session_id = id_new("sess");
	open.session = (struct store_session){
	    .id = call->session_id.s,
	    .app_id = call->app_id,
	    .device_id = call->device_id,
	    .status = "active",
	    .model = ask->model,
	    .tools_json = shape_dump(&call->arena, ask->tools),
	    .metadata_json = ask->metadata_json,
	    .created_at = now,
	    .last_activity_at = now,
	};
	cs->is_opening_session = true;
	store_session_open(call->api->store, &open, on_opened, ask);
}

static void
choose_session(struct chat_ask *ask, struct chat_socket *cs, bool is_given)
{
	if (is_given) {
		chat_ask_with_session(ask, start_turn);
	} else if (cs->present != NULL) {
		start_turn(ask, cs, cs->present);
	} else if (cs->is_opening_session) {
		ask->is_waiting = cs->has_waiting = true;
	} else {
		open_session(ask, cs);
	}
}

/* ---- what was sent ---- */

/* False: the core is overloaded, it was told. */
static bool
may_begin(struct chat_ask *ask, struct chat_socket *cs)
{
	struct admission *a = loop_admission(ask->chats->api->loop);
	struct chat_error error = {.err = E_AT_CAPACITY,
	    .request_id = ask->request_id,
	    .retry_after_s = HTTP_CAPACITY_RETRY_S};

	ask->is_work = admission_allows(a);
	if (ask->is_work) {
		admission_enter(a);
		return true;
	}
	log_warn("chat refused reason=overload delay_us=%llu work=%u",
	    (unsigned long long)a->delay_us, a->live);
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_OVERLOAD, 0, 1);
	chat_socket_tell_error(cs, &error);
	chat_ask_end(ask);
	return false;
}

/* Which limit, and when it ends. */
static void
tell_limit(struct chat_ask *ask, struct chat_socket *cs)
{
	const struct rate_ask *r = &ask->call.rate_ask;
	struct buf message = BUF_INIT;

	refusal_message(&r->verdict, r->unit, &message);
	chat_socket_tell_error(cs, &(struct chat_error){.err = E_RATE_LIMITED,
				       .request_id = ask->request_id,
				       .message = message.data,
				       .retry_after_s = rate_retry_after_s(&r->verdict)});
	buf_fini(&message);
}

/* The windows have been asked; the socket may be gone. */
static void
enter_chat(struct chat_ask *ask)
{
	struct chat_socket *cs = chat_ask_socket(ask);

	if (cs != NULL)
		rate_warn(ask->call.api->rate_warns, ask->call.app_id, ask->call.key_id,
		    &ask->call.rate_ask);
	if (cs != NULL && ask->call.rate_ask.verdict.is_allowed) {
		choose_session(ask, cs, ask->call.session_id.s[0] != '\0');
		return;
	}
	if (cs != NULL)
		tell_limit(ask, cs);
	chat_ask_end(ask);
}

static void
on_rate_decided(struct rate_ask *r)
{
	struct api_call *call = container_of(r, struct api_call, rate_ask);

	enter_chat(container_of(call, struct chat_ask, call));
}

static void
ask_rate(struct chat_ask *ask, struct chat_socket *cs)
{
	struct rate_of rate = cs->key->rate;
	struct api_call *call = &ask->call;

	rate.own = cs->rate_own;
	call->rate_ask.on_decided = on_rate_decided;
	if (rate_take(call->api->limits, &rate, &call->rate_ask))
		enter_chat(ask);
}

static bool
read_text(struct chat_ask *ask)
{
	ask->input = json_object_get(ask->call.body, "text");
	if (json_string_length(ask->input) > 0)
		return true;
	chat_ask_fail(ask, E_INVALID_VALUE, "text", "text must be a string that is not empty.");
	return false;
}

static bool
read_metadata(struct chat_ask *ask)
{
	size_t max = ask->call.api->conf->sessions.max_metadata_bytes;
	const json_t *metadata = NULL;

	if (!field_json(&ask->call, "metadata", JSON_OBJECT, &metadata))
		return false;
	ask->metadata_json = shape_dump(&ask->call.arena, metadata);
	if (ask->metadata_json == NULL || max == 0 || strlen(ask->metadata_json) <= max)
		return true;
	chat_ask_fail(ask, E_INVALID_VALUE, "metadata", "metadata is too large.");
	return false;
}

static bool
read_on_disconnect(struct chat_ask *ask)
{
	const char *policy = "continue";

	if (!field_text(&ask->call, "on_disconnect", 16, &policy))
		return false;
	ask->cancels_on_disconnect = strcmp(policy, "cancel") == 0;
	if (ask->cancels_on_disconnect || strcmp(policy, "continue") == 0)
		return true;
	chat_ask_fail(
	    ask, E_INVALID_VALUE, "on_disconnect", "on_disconnect must be cancel or continue.");
	return false;
}

void
chat_say(struct chat_ask *ask, struct chat_socket *cs)
{
	struct api_call *call = &ask->call;
	bool is_given;

	if (!may_begin(ask, cs))
		return;
	ask->is_streamed = true;
	if (!read_text(ask) || !field_bool(call, "streaming", &ask->is_streamed) ||
	    !field_may_choose(call, "tools") || !field_tools(call, &ask->tools) ||
	    !field_may_choose(call, "model") || !field_model(call, &ask->model) ||
	    !field_text(call, "idempotency_key", IDEMPOTENCY_KEY_MAX, &ask->idempotency_key) ||
	    !read_metadata(ask) || !read_on_disconnect(ask) ||
	    !field_bool(call, "queue", &ask->may_queue) || !chat_ask_session_id(ask, &is_given))
		return;
	ask_rate(ask, cs);
}
