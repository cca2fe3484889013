/*
 * admin_keys - /admin/v1/keys: keys of the store are made, listed, changed and revoked.
 *
 *   POST            {kind, app_id, device_id, name, expires_in, and limits}   201, the secret once
 *   GET ?app=&after=&limit=,  GET {key}
 *   PATCH {key}     {name, and limits}; what is absent stays, null takes it away
 *   DELETE {key}    revoked, everywhere within a second
 *
 * Limits: rate {limit, window} of a client key; rpm, tpm, rpd, models, budget {amount, period},
 * tools, denied_tools, read_only_tools of a
 * server key. Keys of the configuration are changed there.
 */
#include "common/clock.h"
#include "common/conf_value.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"
#include "worker/session/key_text.h"

enum {
	APP_ID_MAX = 128,
	DEVICE_ID_MAX = 256,
	NAME_MAX_LEN = 256,
	NAMES_MAX = 256, /* in a list of models or tools */
	ONE_NAME_MAX = 256,
	LIFE_MAX_S = 3650 * 86400,
	ROWS_DEFAULT = 100,
	ROWS_MAX = 1000,
};
#define BUDGET_AMOUNT_MAX 1e9 /* as in the config */

/* ---- as JSON ---- */

static const char *
state_of(const struct store_key *k)
{
	if (k->revoked_at != 0)
		return "revoked";
	return k->expires_at != 0 && k->expires_at <= clock_wall_ms() ? "expired" : "valid";
}

static json_t *
format_key(const struct store_key *k)
{
	static const char *const names[] = {
	    "rpm", "tpm", "rpd", "models", "budget", "tools", "denied_tools", "read_only_tools"};
	json_t *limits = shape_stored(k->limits_json), *rate = json_null();
	json_t *json = json_pack("{s:s,s:s,s:o,s:o,s:o,s:s,s:o,s:o,s:o}", "id", k->id, "kind",
	    k->kind, "app_id", shape_text(k->app_id), "device_id", shape_text(k->device_id), "name",
	    shape_text(k->name), "state", state_of(k), "created_at", shape_time(k->created_at),
	    "expires_at", shape_time(k->expires_at), "revoked_at", shape_time(k->revoked_at));

	if (json_object_get(limits, "limit") != NULL) {
		const json_t *window = json_object_get(limits, "window_ms");

		rate = json_pack("{s:O,s:I}", "limit", json_object_get(limits, "limit"),
		    "window_ms", window != NULL ? json_integer_value(window) : 60000);
	}
	json_object_set_new(json, "rate", rate);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		json_t *value = json_object_get(limits, names[i]);

		json_object_set(json, names[i], value != NULL ? value : json_null());
	}
	json_decref(limits);
	return json;
}

/* ---- limits: false after an answer ---- */

static bool
refuse(struct api_call *call, const char *field, const char *message)
{
	call_reply_error(call, E_INVALID_VALUE, field, message);
	return false;
}

static bool
read_rate(struct api_call *call, const json_t *rate, json_t *limits)
{
	const json_t *limit = json_object_get(rate, "limit"),
		     *window = json_object_get(rate, "window");
	uint64_t window_ms = 60000;

	if (!json_is_integer(limit) || json_integer_value(limit) < 0 ||
	    json_integer_value(limit) > UINT32_MAX)
		return refuse(call, "rate", "rate.limit must be a whole number; 0 is no limit.");
	if (window != NULL &&
	    (!json_is_string(window) ||
		!conf_parse_duration(str_of(json_string_value(window)), &window_ms) ||
		window_ms < 1000 || window_ms > 86400000))
		return refuse(
		    call, "rate", "rate.window must be a duration from \"1s\" to \"1d\".");
	json_object_set_new(limits, "limit", json_integer(json_integer_value(limit)));
	json_object_set_new(limits, "window_ms", json_integer((json_int_t)window_ms));
	return true;
}

static bool
read_budget(struct api_call *call, const json_t *budget, json_t *limits)
{
	const json_t *amount = json_object_get(budget, "amount");
	const char *text = json_string_value(json_object_get(budget, "period"));
	enum budget_period period = BUDGET_TOTAL;

	if (!json_is_number(amount) || !(json_number_value(amount) > 0) ||
	    json_number_value(amount) > BUDGET_AMOUNT_MAX ||
	    (json_object_get(budget, "period") != NULL &&
		(text == NULL || !budget_period_parse(text, &period))))
		return refuse(call, "budget",
		    "budget must be {\"amount\": above 0, \"period\": day, week, month or total}.");
	json_object_set_new(limits, "budget",
	    json_pack("{s:f,s:s}", "amount", json_number_value(amount), "period",
		budget_period_name(period)));
	return true;
}

static bool
read_names(struct api_call *call, const char *member, json_t *names, json_t *limits)
{
	size_t i;
	json_t *name;

	if (!json_is_array(names) || json_array_size(names) == 0 ||
	    json_array_size(names) > NAMES_MAX)
		return refuse(
		    call, member, "It must be a list of names, or null for no restriction.");
	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name) || json_string_length(name) == 0 ||
		    json_string_length(name) > ONE_NAME_MAX)
			return refuse(call, member, "It must have names, or prefix*.");
	}
	json_object_set(limits, member, names);
	return true;
}

static bool
read_flag(struct api_call *call, const char *name, json_t *value, json_t *limits)
{
	if (!json_is_boolean(value))
		return refuse(call, name, "It must be true or false.");
	json_object_set(limits, name, value);
	return true;
}

static bool
read_count(struct api_call *call, const char *name, const json_t *value, json_t *limits)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) > UINT32_MAX)
		return refuse(call, name, "It must be a whole number; 0 is no limit.");
	json_object_set_new(limits, name, json_integer(json_integer_value(value)));
	return true;
}

static bool
read_limit(struct api_call *call, const char *name, json_t *value, json_t *limits)
{
	bool is_rate = strcmp(name, "rate") == 0;

	json_object_del(limits, is_rate ? "limit" : name);
	if (is_rate)
		json_object_del(limits, "window_ms");
	if (json_is_null(value))
		return true;
	if (is_rate)
		return read_rate(call, value, limits);
	if (strcmp(name, "budget") == 0)
		return read_budget(call, value, limits);
	if (strcmp(name, "models") == 0 || strcmp(name, "tools") == 0 ||
	    strcmp(name, "denied_tools") == 0)
		return read_names(call, name, value, limits);
	if (strcmp(name, "read_only_tools") == 0)
		return read_flag(call, name, value, limits);
	return read_count(call, name, value, limits);
}

static bool
read_limits(struct api_call *call, enum key_kind kind, json_t *limits)
{
	static const struct {
		const char *name;
		enum key_kind kind;
	} known[] = {{"rate", KEY_CLIENT}, {"rpm", KEY_SERVER}, {"tpm", KEY_SERVER},
	    {"rpd", KEY_SERVER}, {"models", KEY_SERVER}, {"budget", KEY_SERVER},
	    {"tools", KEY_SERVER}, {"denied_tools", KEY_SERVER}, {"read_only_tools", KEY_SERVER}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		json_t *value = json_object_get(call->body, known[i].name);

		if (value == NULL)
			continue;
		if (known[i].kind != kind && !json_is_null(value))
			return refuse(call, known[i].name, "This kind of key has no such limit.");
		if (!read_limit(call, known[i].name, value, limits))
			return false;
	}
	return true;
}

/* NULL: there are none. Takes limits; the text is the call's. */
static const char *
dump_limits(struct api_call *call, json_t *limits)
{
	const char *text = json_object_size(limits) > 0 ? shape_dump(&call->arena, limits) : NULL;

	json_decref(limits);
	return text;
}

/* ---- POST ---- */

static void
on_created(void *arg, int err, const struct store_key *key, const char *secret)
{
	struct api_call *call = arg;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	json_t *json = format_key(key);
	json_object_set_new(json, "key", json_string(secret));
	call_reply_json(call, 201, json);
}

static bool
is_app(const struct conf *conf, const char *id)
{
	for (size_t i = 0; id != NULL && i < conf->apps.n; i++)
		if (strcmp(conf->apps.v[i].id, id) == 0)
			return true;
	return false;
}

static bool
read_new_key(struct api_call *call, struct keys_create *c)
{
	const char *kind = NULL;
	uint64_t life_s = 0;

	if (!field_text(call, "kind", 16, &kind) ||
	    !field_text(call, "app_id", APP_ID_MAX, &c->app_id) ||
	    !field_text(call, "device_id", DEVICE_ID_MAX, &c->device_id) ||
	    !field_text(call, "name", NAME_MAX_LEN, &c->name) ||
	    !field_count(call, "expires_in", 1, LIFE_MAX_S, &life_s))
		return false;
	if (kind == NULL || !key_kind_parse(kind, &c->kind))
		return refuse(call, "kind", "kind must be client, server or admin.");
	if (c->kind == KEY_ADMIN ? c->app_id != NULL : !is_app(call->api->conf, c->app_id))
		return refuse(call, "app_id",
		    "app_id must name one of the configured apps; an admin key has none.");
	if (c->kind != KEY_CLIENT && c->device_id != NULL)
		return refuse(call, "device_id", "Only a client key is bound to a device.");
	if (life_s > 0)
		c->expires_at = clock_wall_ms() + (int64_t)life_s * 1000;
	return true;
}

static void
create_key(struct api_call *call, struct http_req *req)
{
	struct keys_create create = {.kind = KEY_CLIENT};

	if (!fields_body(call, req, true) || !read_new_key(call, &create))
		return;
	json_t *limits = json_object();
	if (!read_limits(call, create.kind, limits)) {
		json_decref(limits);
		return;
	}
	create.limits_json = dump_limits(call, limits);
	keys_create(call->api->keys, &create, on_created, call);
}

/* ---- GET ---- */

static void
on_listed(void *arg, int err, const struct store_key *keys, size_t count, bool has_more)
{
	struct api_call *call = arg;
	json_t *data;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	data = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(data, format_key(&keys[i]));
	call_reply_json(call, 200, shape_list(data, has_more));
}

static void
list_keys(struct api_call *call, struct http_req *req)
{
	uint64_t limit = ROWS_DEFAULT;

	if (!query_count(call, req, "limit", 1, ROWS_MAX, &limit))
		return;
	store_key_list(call->api->store, http_query(req, "app"), http_query(req, "after"),
	    (uint32_t)limit, on_listed, call);
}

/* False: answered. */
static bool
read_id(struct api_call *call, struct http_req *req, struct id *ret)
{
	const char *text = http_param(req, "key");

	if (id_parse(str_of(text), "key", ret))
		return true;
	call_reply_error(call, E_NOT_FOUND, NULL,
	    str_starts(str_of(text), STR("key_conf_"))
		? "Keys of the configuration are changed there."
		: "No such key.");
	return false;
}

static void
reply_missing(struct api_call *call, int err)
{
	call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such key." : NULL);
}

static void
on_key(void *arg, int err, const struct store_key *key)
{
	if (err != 0)
		reply_missing(arg, err);
	else
		call_reply_json(arg, 200, format_key(key));
}

static void
show_key(struct api_call *call, struct http_req *req)
{
	struct id id;

	if (read_id(call, req, &id))
		store_key_get(call->api->store, id.s, on_key, call);
}

/* ---- PATCH and DELETE: done, then shown ---- */

static void
on_changed(void *arg, int err)
{
	struct api_call *call = arg;

	if (err != 0)
		reply_missing(call, err);
	else
		store_key_get(call->api->store, call->object_id.s, on_key, call);
}

static void
change_key(struct api_call *call, const struct store_key *key)
{
	const char *name = key->name;
	enum key_kind kind = KEY_CLIENT;
	json_t *limits;

	if (key->revoked_at != 0) {
		call_reply_error(call, E_NOT_FOUND, NULL, "The key is revoked.");
		return;
	}
	if (json_is_null(json_object_get(call->body, "name")))
		name = NULL;
	if (!field_text(call, "name", NAME_MAX_LEN, &name))
		return;
	key_kind_parse(key->kind, &kind);
	limits = shape_stored(key->limits_json);
	if (!json_is_object(limits)) {
		json_decref(limits);
		limits = json_object();
	}
	if (!read_limits(call, kind, limits)) {
		json_decref(limits);
		return;
	}
	keys_change(call->api->keys, key->id, name, dump_limits(call, limits), on_changed, call);
}

static void
on_key_to_change(void *arg, int err, const struct store_key *key)
{
	if (err != 0)
		reply_missing(arg, err);
	else
		change_key(arg, key);
}

static void
patch_key(struct api_call *call, struct http_req *req)
{
	if (fields_body(call, req, true) && read_id(call, req, &call->object_id))
		store_key_get(call->api->store, call->object_id.s, on_key_to_change, call);
}

static void
revoke_key(struct api_call *call, struct http_req *req)
{
	if (read_id(call, req, &call->object_id))
		keys_revoke(call->api->keys, call->object_id.s, on_changed, call);
}

const struct api_endpoint admin_keys_endpoints[] = {
    {"POST", "/admin/v1/keys", HTTP_SAME_ORIGIN, API_ADMIN, create_key},
    {"GET", "/admin/v1/keys", HTTP_SAME_ORIGIN, API_ADMIN, list_keys},
    {"GET", "/admin/v1/keys/{key}", HTTP_SAME_ORIGIN, API_ADMIN, show_key},
    {"PATCH", "/admin/v1/keys/{key}", HTTP_SAME_ORIGIN, API_ADMIN, patch_key},
    {"DELETE", "/admin/v1/keys/{key}", HTTP_SAME_ORIGIN, API_ADMIN, revoke_key},
    {NULL, NULL, 0, 0, NULL},
};
