/*
 * tool_results - POST /v1/sessions/{session}/tool-results: what a client's tool
 * gave, for the turn that waits for it, wherever that runs.
 */
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"

enum { ERROR_TEXT_MAX = 64 << 10 };

static void
on_result(void *arg, int err, bool is_same_output)
{
	struct api_call *call = arg;

	if (err == E_ALREADY_ANSWERED)
		call_reply_error_with(call, err, NULL, "same_output", json_boolean(is_same_output));
	else if (err != 0)
		call_reply_error(call, err, NULL, NULL);
	else
		call_reply_json(call, 202, json_pack("{s:s}", "status", "accepted"));
}

static void
deliver(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	struct turn_tool_result result = {.session_id = call->session_id};

	(void)session;
	if (!fields_body(call, req, true) ||
	    !field_text(call, "tool_call_id", ID_MAX, &result.tool_call_id) ||
	    !field_text(call, "error", ERROR_TEXT_MAX, &result.error))
		return;
	result.output = json_object_get(call->body, "output");
	if (result.tool_call_id == NULL) {
		call_reply_error(
		    call, E_INVALID_REQUEST, "tool_call_id", "tool_call_id is required.");
		return;
	}
	if ((result.output == NULL) == (result.error == NULL)) {
		call_reply_error(call, E_INVALID_REQUEST, "output",
		    "Exactly one of output and error is required.");
		return;
	}
	turn_tool_result(call->api->turns, &result, on_result, call);
}

static void
tool_results_post(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, deliver);
}

const struct api_endpoint tool_results_endpoints[] = {
    {"POST", "/v1/sessions/{session}/tool-results", 0, API_CLIENT | API_SERVER, tool_results_post},
    {NULL, NULL, 0, 0, NULL},
};
