/*
 * announcements - POST /admin/v1/announcements: what an administrator has to say to everybody who
 * hears `notifications`, or to one app.
 */
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"

enum { TEXT_MAX = 4096, WORD_MAX = 64 };

static void
announce(struct api_call *call, struct http_req *req)
{
	const char *message = NULL, *level = NULL, *app_id = NULL;
	struct buf payload = BUF_INIT;

	if (!fields_body(call, req, true) || !field_text(call, "message", TEXT_MAX, &message) ||
	    !field_text(call, "level", WORD_MAX, &level) ||
	    !field_text(call, "app_id", WORD_MAX, &app_id))
		return;
	if (message == NULL) {
		call_reply_error(call, E_INVALID_REQUEST, "message", "message is required.");
		return;
	}
	buf_add_cstr(&payload, "{\"message\":\"");
	buf_add_json_escaped(&payload, str_of(message));
	buf_add_cstr(&payload, "\",\"level\":\"");
	buf_add_json_escaped(&payload, str_of(level != NULL ? level : "info"));
	buf_add_cstr(&payload, "\"}");
	const struct events_news news = {.topic = "notifications",
	    .app_id = app_id,
	    .name = "system.announcement",
	    .payload = buf_str(&payload)};
	events_publish(call->api->events, &news);
	buf_fini(&payload);
	call_reply_json(call, 202, json_pack("{s:s}", "status", "announced"));
}

const struct api_endpoint announcements_endpoints[] = {
    {"POST", "/admin/v1/announcements", HTTP_SAME_ORIGIN, API_ADMIN, announce},
    {NULL, NULL, 0, 0, NULL},
};
