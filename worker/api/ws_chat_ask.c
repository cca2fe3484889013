/* ws_chat_ask - a message, and the session that it is about. */
#include <stdlib.h>

#include "worker/api/fields.h"
#include "worker/api/ws_chat_impl.h"

static struct chat_ask *
ask_of(struct api_call *call)
{
	return container_of(call, struct chat_ask, call);
}

static void
on_error(struct api_call *call, int err, const char *param, const char *message)
{
	chat_ask_fail(ask_of(call), err, param, message);
}

static const char *
request_id_of(const json_t *message)
{
	const json_t *id = json_object_get(message, "request_id");
	size_t len = json_string_length(id);

	return len > 0 && len <= CHAT_REQUEST_ID_MAX ? json_string_value(id) : NULL;
}

static struct chat_ask *
ask_new(struct chat_socket *cs, json_t *message)
{
	struct chat_ask *ask = xcalloc(1, sizeof(*ask));
	const struct chat_key *key = cs->key;
	struct api_call *call = &ask->call;
	const char *request_id = request_id_of(message);

	ask->chats = cs->chats;
	ask->socket = cs->handle;
	call->api = cs->chats->api;
	call->on_error = on_error;
	call->kind = key->kind;
	call->app = key->app;
	call->budget = key->budget;
	call->key_id = arena_strdup(&call->arena, str_of(key->key_id));
	call->app_id = arena_strdup(&call->arena, str_of(key->app_id));
	if (key->device_id != NULL)
		call->device_id = arena_strdup(&call->arena, str_of(key->device_id));
	if (request_id != NULL)
		ask->request_id = arena_strdup(&call->arena, str_of(request_id));
	call->body = json_incref(json_object_get(message, "payload"));
	list_add_tail(&cs->chats->asks, &ask->node);
	cs->ask_count++;
	return ask;
}

struct chat_ask *
chat_ask_new(struct chat_socket *cs, json_t *message)
{
	struct chat_error error = {.err = E_BUSY,
	    .request_id = request_id_of(message),
	    .message = "Too many messages are in progress."};

	if (cs->ask_count < cs->chats->api->conf->websocket.max_pending)
		return ask_new(cs, message);
	chat_socket_tell_error(cs, &error);
	return NULL;
}

struct chat_socket *
chat_ask_socket(struct chat_ask *ask)
{
	return chat_socket_find(ask->chats, ask->socket);
}

void
chat_ask_end(struct chat_ask *ask)
{
	struct chat_socket *cs = idmap_get(ask->chats->sockets, ask->socket);

	list_del(&ask->node);
	if (ask->is_work)
		admission_leave(loop_admission(ask->chats->api->loop));
	json_decref(ask->call.body);
	arena_fini(&ask->call.arena);
	free(ask);
	if (cs == NULL)
		return;
	cs->ask_count--;
	chat_socket_consider_drain(cs);
}

void
chat_ask_fail(struct chat_ask *ask, int err, const char *param, const char *message)
{
	struct chat_socket *cs = chat_ask_socket(ask);
	struct chat_error error = {
	    .err = err, .request_id = ask->request_id, .param = param, .message = message};

	if (cs != NULL)
		chat_socket_tell_error(cs, &error);
	chat_ask_end(ask);
}

/* ---- the session ---- */

bool
chat_ask_session_id(struct chat_ask *ask, bool *ret_is_given)
{
	const char *text = NULL;

	if (!field_text(&ask->call, "session_id", ID_MAX, &text))
		return false;
	*ret_is_given = text != NULL;
	if (text == NULL || id_parse(str_of(text), "sess", &ask->call.session_id))
		return true;
	chat_ask_fail(ask, E_NOT_FOUND, "session_id", "No such session.");
	return false;
}

/* The app's own. A turn's owner keeps its events for a while after they were erased: nobody is
 * shown them. */
static int
may_see(const struct chat_ask *ask, const struct store_session *s)
{
	bool is_about_turn = ask->call.turn_id.s[0] != '\0';

	return strcmp(s->app_id, ask->call.app_id) != 0 || (s->is_erased && is_about_turn)
		   ? E_NOT_FOUND
		   : 0;
}

static int
may_follow(const struct chat_ask *ask, const struct chat_socket *cs)
{
	if (cs->member_count >= ask->call.api->conf->websocket.max_sessions)
		return E_BUSY;
	return 0;
}

static void
on_session(void *arg, int err, const struct store_session *s)
{
	struct chat_ask *ask = arg;
	struct chat_socket *cs = chat_ask_socket(ask);

	if (cs == NULL) {
		chat_ask_end(ask);
		return;
	}
	struct chat_member *m = chat_member_find(cs, &ask->call.session_id);
	if (err == 0)
		err = may_see(ask, s);
	if (err == 0 && m == NULL)
		err = may_follow(ask, cs);
	if (err != 0) {
		chat_ask_fail(ask, err, "session_id",
		    err == E_NOT_FOUND ? "No such session."
		    : err == E_BUSY    ? "This socket follows too many sessions."
				       : NULL);
		return;
	}
	if (m == NULL)
		m = chat_member_new(cs, &ask->call.session_id);
	ask->on_session(ask, cs, m);
}

void
chat_ask_with_session(struct chat_ask *ask,
    void (*then)(struct chat_ask *, struct chat_socket *, struct chat_member *))
{
	struct chat_socket *cs = chat_ask_socket(ask);
	struct chat_member *m = chat_member_find(cs, &ask->call.session_id);

	ask->on_session = then;
	if (m != NULL && ask->call.turn_id.s[0] == '\0')
		then(ask, cs, m);
	else
		store_session_get(ask->call.api->store, ask->call.session_id.s, on_session, ask);
}
