/*
 * ws_chat_action - what a message asks for: chat, tool_result, cancel, join,
 * resume, ping.
 *
 *   chat:  fields -> rate -> session (known, loaded, or made with the first chat)
 *          -> turn_start -> the turn is followed under the request's id
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"
#include "worker/api/ws_chat_impl.h"

enum { IDEMPOTENCY_KEY_MAX = 128, ERROR_TEXT_MAX = 64 << 10, ACTION_MAX = 32 };

/* ---- chat: the turn ---- */

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
	};

	cs->present = m;
	call->session_id = start.session_id;
	turn_start(call->api->turns, &start, on_started, ask);
}

/* ---- chat: the session ---- */

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

/* ---- chat: what it says ---- */

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

/* The windows have been asked; the socket may be gone. */
static void
enter_chat(struct chat_ask *ask)
{
	const struct rate_ask *r = &ask->call.rate_ask;
	struct chat_socket *cs = chat_ask_socket(ask);
	struct chat_error error = {.err = E_RATE_LIMITED,
	    .request_id = ask->request_id,
	    .retry_after_s = rate_retry_after_s(&r->verdict)};

	if (cs != NULL && r->verdict.is_allowed) {
		choose_session(ask, cs, ask->call.session_id.s[0] != '\0');
		return;
	}
	if (cs != NULL)
		chat_socket_tell_error(cs, &error);
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

static void
chat(struct chat_ask *ask, struct chat_socket *cs)
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

/* ---- join, resume ---- */

/* The session's live turn is told from its beginning, unless it is already being told. */
static void
on_live_turn(void *arg, int err, const struct store_turn *turn)
{
	struct chat_ask *ask = arg;
	struct chat_socket *cs = chat_ask_socket(ask);
	struct chat_member *m = cs != NULL ? chat_member_find(cs, &ask->call.session_id) : NULL;
	struct chat_follow_start start = {.is_streamed = true};
	struct id live = {""};

	if (m == NULL) {
		chat_ask_end(ask);
		return;
	}
	if (err != 0 && err != E_NOT_FOUND) {
		chat_ask_fail(ask, err, NULL, NULL);
		return;
	}
	if (err == 0)
		id_parse(str_of(turn->id), "turn", &live);
	if (ask->call.turn_id.s[0] == '\0') { /* join */
		struct buf frame = BUF_INIT;

		chat_frame_joined(
		    &frame, ask->request_id, ask->call.session_id.s, err == 0 ? live.s : NULL);
		chat_socket_tell(cs, &frame);
		buf_fini(&frame);
	}
	start.turn_id = &live;
	if (err == 0 && !chat_follow_knows(m, &live))
		chat_follow(m, &start);
	chat_ask_end(ask);
}

static void
follow_session(struct chat_ask *ask, struct chat_socket *cs, struct chat_member *m)
{
	struct chat_follow_start start = {.turn_id = &ask->call.turn_id,
	    .after_seq = ask->after_seq,
	    .request_id = ask->request_id,
	    .is_own = true,
	    .is_streamed = true};

	cs->present = m;
	if (ask->call.turn_id.s[0] != '\0')
		chat_follow(m, &start);
	store_turn_live(ask->call.api->store, ask->call.session_id.s, on_live_turn, ask);
}

static bool
require_session(struct chat_ask *ask)
{
	bool is_given;

	if (!chat_ask_session_id(ask, &is_given))
		return false;
	if (is_given)
		return true;
	chat_ask_fail(ask, E_INVALID_REQUEST, "session_id", "session_id is required.");
	return false;
}

static void
join(struct chat_ask *ask, struct chat_socket *cs)
{
	(void)cs;
	if (require_session(ask))
		chat_ask_with_session(ask, follow_session);
}

/* False: it failed. An absent one leaves the id empty. */
static bool
read_turn_id(struct chat_ask *ask)
{
	const char *turn = NULL;

	if (!field_text(&ask->call, "turn_id", ID_MAX, &turn))
		return false;
	if (turn == NULL || id_parse(str_of(turn), "turn", &ask->call.turn_id))
		return true;
	chat_ask_fail(ask, E_NOT_FOUND, "turn_id", "No such turn.");
	return false;
}

static void
resume(struct chat_ask *ask, struct chat_socket *cs)
{
	(void)cs;
	if (!require_session(ask) || !read_turn_id(ask) ||
	    !field_count(&ask->call, "after", 0, INT64_MAX, &ask->after_seq))
		return;
	if (ask->call.turn_id.s[0] == '\0')
		chat_ask_fail(ask, E_INVALID_REQUEST, "turn_id", "turn_id is required.");
	else
		chat_ask_with_session(ask, follow_session);
}

/* ---- cancel ---- */

static void
on_cancelled(void *arg, int err)
{
	struct chat_ask *ask = arg;

	if (err != 0)
		chat_ask_fail(ask, err, NULL, err == E_NOT_FOUND ? "No such turn." : NULL);
	else
		chat_ask_end(ask); /* who follows the turn hears its end */
}

static void
cancel_turn(struct chat_ask *ask, struct chat_socket *cs, struct chat_member *m)
{
	(void)cs;
	(void)m;
	turn_cancel(
	    ask->call.api->turns, &ask->call.session_id, &ask->call.turn_id, on_cancelled, ask);
}

/* A chat of this id whose turn has not begun yet: it is cancelled when it has. */
static bool
cancel_starting(struct chat_ask *ask, const struct chat_socket *cs)
{
	if (cs->ask_count <= 1) /* this one */
		return false;
	list_for (node, &ask->chats->asks) {
		struct chat_ask *other = list_entry(node, struct chat_ask, node);

		if (other == ask || other->socket != ask->socket || other->input == NULL ||
		    (ask->request_id != NULL &&
			(other->request_id == NULL ||
			    strcmp(other->request_id, ask->request_id) != 0)))
			continue;
		other->is_cancelled = true;
		return true;
	}
	return false;
}

/*
 * Which turn: payload.turn_id, else the one that the chat with this request_id began. Without a
 * request_id the conversation's. Never another one: the one that is meant may just have ended.
 */
static void
cancel(struct chat_ask *ask, struct chat_socket *cs)
{
	struct api_call *call = &ask->call;
	bool is_given, is_found;

	if (!chat_ask_session_id(ask, &is_given) || !read_turn_id(ask))
		return;
	if (call->turn_id.s[0] != '\0') {
		if (!is_given && cs->present != NULL)
			call->session_id = chat_member_session(cs->present);
		is_found = is_given || cs->present != NULL;
	} else if (ask->request_id != NULL) {
		is_found = chat_follow_find(cs, ask->request_id, &call->session_id, &call->turn_id);
	} else {
		is_found = cs->present != NULL && chat_follow_live(cs->present, &call->turn_id);
		if (is_found)
			call->session_id = chat_member_session(cs->present);
	}
	if (is_found)
		chat_ask_with_session(ask, cancel_turn);
	else if (call->turn_id.s[0] == '\0' && cancel_starting(ask, cs))
		chat_ask_end(ask);
	else
		chat_ask_fail(ask, E_NOT_FOUND, NULL, "There is no such turn to cancel.");
}

/* ---- tool_result ---- */

static void try_session(struct chat_ask *ask);

static void
on_tool_result(void *arg, int err, bool is_same_output)
{
	struct chat_ask *ask = arg;
	struct chat_socket *cs = chat_ask_socket(ask);
	struct chat_error error = {
	    .err = err, .request_id = ask->request_id, .is_same_output = is_same_output};

	if (err == E_UNKNOWN_TOOL_CALL && ask->session_next < ask->session_count) {
		try_session(ask);
		return;
	}
	if (err != 0 && cs != NULL)
		chat_socket_tell_error(cs, &error);
	chat_ask_end(ask);
}

static void
try_session(struct chat_ask *ask)
{
	struct turn_tool_result result = {
	    .session_id = ask->sessions[ask->session_next++],
	    .tool_call_id = ask->tool_call_id,
	    .output = ask->tool_output,
	    .error = ask->tool_error,
	};

	turn_tool_result(ask->call.api->turns, &result, on_tool_result, ask);
}

/* A call is known only under its session: the one that is named, or those that are followed. */
static void
list_sessions(struct chat_ask *ask, struct chat_socket *cs, bool is_given)
{
	ask->sessions =
	    arena_alloc(&ask->call.arena, (cs->member_count + 1u) * sizeof(ask->sessions[0]));
	if (is_given)
		ask->sessions[ask->session_count++] = ask->call.session_id;
	else
		ask->session_count = chat_members_with_turns(cs, ask->sessions);
}

static void
send_result(struct chat_ask *ask, struct chat_socket *cs, struct chat_member *m)
{
	(void)cs;
	(void)m;
	try_session(ask);
}

static void
tool_result(struct chat_ask *ask, struct chat_socket *cs)
{
	bool is_given;

	if (!field_text(&ask->call, "tool_call_id", ID_MAX, &ask->tool_call_id) ||
	    !field_text(&ask->call, "error", ERROR_TEXT_MAX, &ask->tool_error) ||
	    !chat_ask_session_id(ask, &is_given))
		return;
	ask->tool_output = json_object_get(ask->call.body, "output");
	if (ask->tool_call_id == NULL) {
		chat_ask_fail(ask, E_INVALID_REQUEST, "tool_call_id", "tool_call_id is required.");
		return;
	}
	if ((ask->tool_output == NULL) == (ask->tool_error == NULL)) {
		chat_ask_fail(ask, E_INVALID_REQUEST, "output",
		    "Exactly one of output and error is required.");
		return;
	}
	list_sessions(ask, cs, is_given);
	if (is_given)
		chat_ask_with_session(ask, send_result);
	else if (ask->session_count > 0)
		try_session(ask);
	else
		chat_ask_fail(ask, E_UNKNOWN_TOOL_CALL, NULL, NULL);
}

/* ---- ping ---- */

static void
ping(struct chat_ask *ask, struct chat_socket *cs)
{
	struct buf frame = BUF_INIT;

	chat_frame_pong(&frame, ask->request_id);
	chat_socket_tell(cs, &frame);
	buf_fini(&frame);
	chat_ask_end(ask);
}

/* ---- the message ---- */

static const struct {
	const char *name;
	void (*run)(struct chat_ask *, struct chat_socket *);
	bool has_payload;
} actions[] = {
    {"chat", chat, true},
    {"tool_result", tool_result, true},
    {"cancel", cancel, false},
    {"join", join, true},
    {"resume", resume, true},
    {"ping", ping, false},
};

static void
run_action(struct chat_ask *ask, struct chat_socket *cs, const char *name)
{
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(actions); i++) {
		if (strcmp(actions[i].name, name) != 0)
			continue;
		if (actions[i].has_payload && !json_is_object(ask->call.body)) {
			chat_ask_fail(
			    ask, E_INVALID_REQUEST, "payload", "payload must be an object.");
			return;
		}
		actions[i].run(ask, cs);
		return;
	}
	chat_ask_fail(ask, E_INVALID_REQUEST, "action",
	    "action must be chat, tool_result, cancel, join, resume or ping.");
}

void
chat_on_message(struct chat_socket *cs, struct str data, bool is_text)
{
	struct chat_error not_json = {.err = E_INVALID_JSON,
	    .message =
		is_text ? "The message is not a JSON object." : "Messages must be text frames."};
	json_t *message =
	    is_text ? json_loadb(data.p, data.len, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (!json_is_object(message)) {
		json_decref(message);
		chat_socket_tell_error(cs, &not_json);
		return;
	}
	struct chat_ask *ask = chat_ask_new(cs, message);
	if (ask != NULL)
		run_action(ask, cs, json_string_value(json_object_get(message, "action")));
	json_decref(message);
}
