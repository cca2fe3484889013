/*
 * client_keys - POST /v1/client-keys: a team's backend mints a short-lived key
 * for one of its users.
 */
#include "common/clock.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"

enum { APP_ID_MAX = 128, DEVICE_ID_MAX = 256, LIFE_DEFAULT_S = 3600 };

static void
on_created(void *arg, int err, const struct store_key *key, const char *secret)
{
	struct api_call *call = arg;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	call_reply_json(call, 201,
	    json_pack("{s:s,s:s,s:s,s:o,s:o,s:o}", "id", key->id, "key", secret, "app_id",
		key->app_id, "device_id", shape_text(key->device_id), "created_at",
		shape_time(key->created_at), "expires_at", shape_time(key->expires_at)));
}

static void
mint(struct api_call *call, struct http_req *req)
{
	struct keys_create create = {.kind = KEY_CLIENT, .app_id = call->app_id};
	const char *app_id = call->app_id;
	uint64_t life_max_s = call->api->conf->auth.client_key_max_life_ms / 1000;
	uint64_t life_s = LIFE_DEFAULT_S < life_max_s ? LIFE_DEFAULT_S : life_max_s;

	if (!fields_body(call, req, true) || !field_text(call, "app_id", APP_ID_MAX, &app_id) ||
	    !field_text(call, "device_id", DEVICE_ID_MAX, &create.device_id) ||
	    !field_count(call, "expires_in", 1, life_max_s, &life_s))
		return;
	if (strcmp(app_id, call->app_id) != 0) {
		call_reply_error(call, E_FORBIDDEN, "app_id", "This key is of another app.");
		return;
	}
	create.expires_at = clock_wall_ms() + (int64_t)life_s * 1000;
	keys_create(call->api->keys, &create, on_created, call);
}

const struct api_endpoint client_keys_endpoints[] = {
    {"POST", "/v1/client-keys", 0, API_SERVER, mint},
    {NULL, NULL, 0, 0, NULL},
};
