/*
 * ws_chat_action - what a message asks for, and what of that is not chat: tool_result,
 * cancel, join, resume, ping.
 */
#include "worker/api/fields.h"
#include "worker/api/ws_chat_impl.h"

enum { ERROR_TEXT_MAX = 64 << 10 };

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
    {"chat", chat_say, true},
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
