/*
 * sessions - /v1/sessions: open, show, list, messages, close.
 */
#include <stdio.h>

#include "common/clock.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"

enum { DEVICE_ID_MAX = 256, SYSTEM_MAX = 256 << 10, LIST_DEFAULT = 20, LIST_MAX = 100 };

/* ---- POST /v1/sessions ---- */

static void
on_opened(void *arg, int err, const struct store_session *session, bool is_reused)
{
	struct api_call *call = arg;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	json_t *json = shape_session(session, call->kind == KEY_SERVER);
	json_object_set_new(json, "reused", json_boolean(is_reused));
	call_reply_json(call, is_reused ? 200 : 201, json);
}

/*
 * Whose session it is. A bound key names its device; an unbound client key may name one
 * only where the app trusts its clients' ids, or it could plant a session for another
 * device to reuse (or reuse another's): refused with reuse, not recorded without.
 */
static bool
choose_device(struct api_call *call, bool reuse, const char **device_id)
{
	if (call->device_id != NULL) {
		if (*device_id != NULL && strcmp(*device_id, call->device_id) != 0) {
			call_reply_error(
			    call, E_FORBIDDEN, "device_id", "This key is bound to another device.");
			return false;
		}
		*device_id = call->device_id;
		return true;
	}
	if (call->kind == KEY_SERVER || (call->app != NULL && call->app->trust_device_id) ||
	    *device_id == NULL)
		return true;
	if (reuse) {
		call_reply_error(call, E_FORBIDDEN, "device_id",
		    "Reuse by device needs a key that is bound to the device.");
		return false;
	}
	*device_id = NULL;
	return true;
}

static void
session_open(struct api_call *call, struct http_req *req)
{
	struct store_session_open open = {.now = clock_wall_ms()};
	struct store_session *s = &open.session;
	const json_t *tools = NULL, *metadata = NULL;
	size_t metadata_max = call->api->conf->sessions.max_metadata_bytes;

	if (!fields_body(call, req, false) ||
	    !field_text(call, "device_id", DEVICE_ID_MAX, &s->device_id) ||
	    !field_bool(call, "reuse", &open.reuse) || !field_may_choose(call, "model") ||
	    !field_model(call, &s->model) || !field_may_choose(call, "system") ||
	    !field_text(call, "system", SYSTEM_MAX, &s->system) ||
	    !field_may_choose(call, "tools") || !field_tools(call, &tools) ||
	    !field_json(call, "metadata", JSON_OBJECT, &metadata) ||
	    !choose_device(call, open.reuse, &s->device_id))
		return;
	if (open.reuse && s->device_id == NULL) {
		call_reply_error(call, E_INVALID_VALUE, "device_id", "reuse needs a device_id.");
		return;
	}
	struct id id = id_new("sess");
	s->id = id.s;
	s->app_id = call->app_id;
	s->status = "active";
	s->tools_json = shape_dump(&call->arena, tools);
	s->metadata_json = shape_dump(&call->arena, metadata);
	if (s->metadata_json != NULL && metadata_max > 0 &&
	    strlen(s->metadata_json) > metadata_max) {
		call_reply_error(call, E_INVALID_VALUE, "metadata", "metadata is too large.");
		return;
	}
	s->created_at = s->last_activity_at = open.now;
	open.reuse_after = open.now - (int64_t)call->api->conf->sessions.reuse_window_ms;
	store_session_open(call->api->store, &open, on_opened, call);
}

/* ---- pages of a list ---- */

/* Takes the reference. */
static void
reply_page(struct api_call *call, int err, json_t *data, bool has_more)
{
	if (err == 0) {
		call_reply_json(call, 200, shape_list(data, has_more));
		return;
	}
	json_decref(data);
	call_reply_error(call, err, NULL, NULL);
}

/* False after a refusal. An absent `after` leaves *ret alone. */
static bool
query_after(struct api_call *call, struct http_req *req, const char *prefix, const char **ret)
{
	const char *text = http_query(req, "after");
	struct id id;

	if (text == NULL)
		return true;
	if (!id_parse(str_of(text), prefix, &id)) {
		call_reply_error(
		    call, E_INVALID_VALUE, "after", "after must be an id of this list.");
		return false;
	}
	*ret = arena_strdup(&call->arena, id_str(&id));
	return true;
}

/* ---- GET /v1/sessions ---- */

static void
on_sessions(void *arg, int err, const struct store_session *sessions, size_t count, bool has_more)
{
	json_t *data = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(data, shape_session(&sessions[i], true));
	reply_page(arg, err, data, has_more);
}

static bool
is_session_status(const char *status)
{
	return strcmp(status, "active") == 0 || strcmp(status, "closed") == 0 ||
	       strcmp(status, "expired") == 0;
}

static void
session_list(struct api_call *call, struct http_req *req)
{
	struct store_session_filter filter = {.app_id = call->app_id};
	uint64_t limit = LIST_DEFAULT;

	filter.device_id = http_query(req, "device_id");
	filter.status = http_query(req, "status");
	if (filter.status != NULL && !is_session_status(filter.status)) {
		call_reply_error(
		    call, E_INVALID_VALUE, "status", "status must be active, closed or expired.");
		return;
	}
	if (!query_count(call, req, "limit", 1, LIST_MAX, &limit) ||
	    !query_after(call, req, "sess", &filter.after))
		return;
	filter.limit = (uint32_t)limit;
	store_session_list(call->api->store, &filter, on_sessions, call);
}

/* ---- GET /v1/sessions/{session} ---- */

static void
show(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	(void)req;
	call_reply_json(call, 200, shape_session(session, call->kind == KEY_SERVER));
}

static void
session_show(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, show);
}

/* ---- GET /v1/sessions/{session}/messages ---- */

static void
on_messages(void *arg, int err, const struct store_message *messages, size_t count, bool has_more)
{
	json_t *data = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(data, shape_message(&messages[i]));
	reply_page(arg, err, data, has_more);
}

static void
list_messages(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	const char *after = NULL;
	uint64_t limit = LIST_DEFAULT;

	if (!query_count(call, req, "limit", 1, LIST_MAX, &limit) ||
	    !query_after(call, req, "msg", &after))
		return;
	store_message_list(
	    call->api->store, session->id, after, (uint32_t)limit, on_messages, call);
}

static void
session_messages(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, list_messages);
}

/* ---- DELETE /v1/sessions/{session}: closed, so that no turn begins; then the live one ends ----
 */

static bool
wants_erase(struct http_req *req)
{
	const char *erase = http_query(req, "erase");

	return erase != NULL && strcmp(erase, "true") == 0;
}

static void
on_deleted(void *arg, int err)
{
	struct api_call *call = arg;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	call_reply_json(
	    call, 200, json_pack("{s:s,s:s}", "id", call->session_id.s, "status", "closed"));
}

static void on_emptied(void *arg, int err, uint64_t left);

static void
empty_some(struct api_call *call)
{
	store_session_empty(call->api->store, call->session_id.s,
	    (uint32_t)call->api->conf->sessions.sweep_batch, on_emptied, call);
}

static void
on_emptied(void *arg, int err, uint64_t left)
{
	if (err == 0 && left > 0)
		empty_some(arg);
	else
		on_deleted(arg, err);
}

static void
on_erased(void *arg, int err)
{
	if (err == 0)
		empty_some(arg);
	else
		on_deleted(arg, err);
}

/* Also when the client has gone meanwhile: what it asked for is done. */
static void
on_live_ended(void *arg, int err)
{
	struct api_call *call = arg;

	/* It may have ended by itself or lost its owner: neither keeps its content. */
	(void)err;
	if (call->is_erasing)
		store_session_erase(
		    call->api->store, call->session_id.s, clock_wall_ms(), on_erased, call);
	else
		on_deleted(call, 0);
}

static void
on_live_turn(void *arg, int err, const struct store_turn *turn)
{
	struct api_call *call = arg;

	if (err == 0 && id_parse(str_of(turn->id), "turn", &call->turn_id))
		turn_cancel(
		    call->api->turns, &call->session_id, &call->turn_id, on_live_ended, call);
	else if (err == 0 || err == E_NOT_FOUND)
		on_live_ended(call, 0);
	else
		call_reply_error(call, err, NULL, NULL);
}

static void
tell_closed(const struct api_call *call)
{
	char topic[sizeof("session:") + ID_MAX];
	struct buf payload = BUF_INIT;

	snprintf(topic, sizeof(topic), "session:%s", call->session_id.s);
	buf_printf(&payload, "{\"session_id\":\"%s\"}", call->session_id.s);
	const struct events_news news = {.topic = topic,
	    .app_id = call->app_id,
	    .name = "session.closed",
	    .payload = buf_str(&payload)};
	events_publish(call->api->events, &news);
	buf_fini(&payload);
}

static void
on_closed(void *arg, int err)
{
	struct api_call *call = arg;

	if (err == 0)
		tell_closed(call);

	if (err != 0)
		call_reply_error(call, err, NULL, NULL);
	else
		store_turn_live(call->api->store, call->session_id.s, on_live_turn, call);
}

static void
close_session(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	call->is_erasing = wants_erase(req);
	if (call->is_erasing && call->kind != KEY_SERVER) {
		call_reply_error(call, E_FORBIDDEN, "erase", "erase needs a server key.");
		return;
	}
	store_session_close(call->api->store, session->id, clock_wall_ms(), on_closed, call);
}

static void
session_delete(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, close_session);
}

const struct api_endpoint sessions_endpoints[] = {
    {"POST", "/v1/sessions", HTTP_WORK, API_CLIENT | API_SERVER, session_open},
    {"GET", "/v1/sessions", 0, API_SERVER, session_list},
    {"GET", "/v1/sessions/{session}", 0, API_CLIENT | API_SERVER, session_show},
    {"DELETE", "/v1/sessions/{session}", 0, API_CLIENT | API_SERVER, session_delete},
    {"GET", "/v1/sessions/{session}/messages", 0, API_CLIENT | API_SERVER, session_messages},
    {NULL, NULL, 0, 0, NULL},
};
