/*
 * turns - /v1/sessions/{session}/turns: start, show, follow, cancel.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/turn_stream.h"
#include "worker/api/turn_wait.h"

enum { REQUEST_ID_MAX = 128, WAIT_MAX_S = 60 };

static const char *
text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text != NULL ? text : "";
}

/* ---- POST .../turns ---- */

/* What is decided before the turn starts and needed after. */
struct turn_post {
	struct api_call *call;
	bool is_streamed;
	uint64_t originator;
};

/* It gives its place back; the turn begins all the same. */
static void
on_gone_before_start(void *arg)
{
	(void)arg;
}

static void
on_started(void *arg, int err, const struct turn_started *started, const char *message)
{
	struct turn_post *post = arg; /* in the call's arena */
	struct api_call *call = post->call;
	struct http_req *req = call_req(call);

	if (err != 0) {
		call_reply_error(call, err, err == E_INVALID_VALUE ? "model" : NULL, message);
		return;
	}
	if (req == NULL) {
		/* Gone before the first event: as long as nobody has listened, the turn's own
		 * policy decides. */
		call_end(call);
		return;
	}
	call->turn_id = started->turn_id;
	http_work_passed_on(req);
	http_add_header(req, "X-Parley-Turn", call->turn_id.s);
	/* What tool.call says in claimed_by when its calls are this connection's to run. */
	http_add_header(req, "X-Parley-Connection",
	    arena_printf(&call->arena, "%016" PRIx64, post->originator));
	if (post->is_streamed)
		turn_stream_start(call, req, 0, post->originator);
	else
		turn_wait_for_result(call, req, post->originator);
}

/* Text, or content parts as OpenAI has them: [{"type":"text","text":".."},
 * {"type":"image_url",..}]. */
static bool
read_input(struct api_call *call, const json_t **ret)
{
	const json_t *input = json_object_get(call->body, "input");
	bool is_valid =
	    json_is_string(input) ? json_string_length(input) > 0 : json_array_size(input) > 0;

	for (size_t i = 0; is_valid && i < json_array_size(input); i++)
		is_valid = json_is_string(json_object_get(json_array_get(input, i), "type"));
	if (!is_valid)
		call_reply_error(call, E_INVALID_VALUE, "input",
		    "input must be a text or an array of content parts with a type.");
	*ret = input;
	return is_valid;
}

static bool
read_on_disconnect(struct api_call *call, bool *ret_cancels)
{
	const char *policy = "continue";

	if (!field_text(call, "on_disconnect", 16, &policy))
		return false;
	*ret_cancels = strcmp(policy, "cancel") == 0;
	if (*ret_cancels || strcmp(policy, "continue") == 0)
		return true;
	call_reply_error(
	    call, E_INVALID_VALUE, "on_disconnect", "on_disconnect must be cancel or continue.");
	return false;
}

static void
start(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	struct turn_post *post = arena_calloc(&call->arena, sizeof(*post));
	struct turn_start turn = {.session_id = call->session_id, .app = call->app};
	struct str accept = http_header(req, "accept");
	struct str traceparent = http_header(req, "traceparent");

	(void)session;
	post->call = call;
	post->is_streamed = accept.p != NULL && str_starts(accept, STR("text/event-stream"));
	if (!fields_body(call, req, true) || !read_input(call, &turn.input) ||
	    !field_bool(call, "stream", &post->is_streamed) ||
	    !field_text(call, "request_id", REQUEST_ID_MAX, &turn.request_id) ||
	    !field_may_choose(call, "tools") || !field_tools(call, &turn.tools) ||
	    !field_may_choose(call, "model") || !field_model(call, &turn.model) ||
	    !read_on_disconnect(call, &turn.cancel_on_disconnect) ||
	    !field_bool(call, "queue", &turn.queue))
		return;
	crypto_random(&post->originator, sizeof(post->originator));
	post->originator |= 1; /* 0 is nobody */
	turn.app_id = call->app_id;
	turn.key_id = call->key_id;
	turn.http_request_id = http_request_id(req);
	turn.traceparent = traceparent.p != NULL ? arena_strdup(&call->arena, traceparent) : NULL;
	turn.originator = post->originator;
	turn.budget = call->budget;
	turn.tokens = call->rate.tpm;
	if (turn.queue)
		http_on_gone(req, on_gone_before_start, NULL);
	turn_start(call->api->turns, &turn, on_started, post);
}

static void
turn_post(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, start);
}

/* ---- GET .../turns/{turn} ---- */

static void
show(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	uint64_t wait_s = 0;

	(void)session;
	if (!query_count(call, req, "wait", 0, WAIT_MAX_S, &wait_s))
		return;
	turn_wait_for_news(call, req, (uint32_t)wait_s * 1000);
}

static void
turn_show(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, show);
}

/* ---- GET .../turns/{turn}/events ---- */

/* Last-Event-ID is <turn>.<seq> of this turn; it wins over ?after=, and is no larger: what comes
 * after it has a number, too. */
static bool
read_after(struct api_call *call, struct http_req *req, uint64_t *ret_after)
{
	struct str last = http_header(req, "last-event-id");

	if (last.p == NULL || last.len == 0)
		return query_count(call, req, "after", 0, INT64_MAX, ret_after);
	struct str turn = str_split(&last, '.');
	if (str_eq(turn, id_str(&call->turn_id)) && str_to_u64(last, ret_after) &&
	    *ret_after <= INT64_MAX)
		return true;
	call_reply_error(call, E_INVALID_REQUEST, "Last-Event-ID",
	    "Last-Event-ID must be an event id of this turn.");
	return false;
}

/* Nothing is left to say. The failure of a lost turn has a number that the record does not know. */
static bool
has_heard_all(const json_t *state, uint64_t after)
{
	const char *is = text_of(state, "state");
	json_int_t last = json_integer_value(json_object_get(state, "last_seq"));

	return strcmp(is, "live") != 0 && strcmp(is, "waiting_tools") != 0 && last > 0 &&
	       after >= (uint64_t)last &&
	       strcmp(text_of(json_object_get(state, "error"), "code"), "worker_lost") != 0;
}

static void
on_state_before_events(void *arg, int err, json_t *state)
{
	struct api_call *call = arg;
	struct http_req *req = call_req(call);
	uint64_t after = 0;

	if (err != 0) {
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such turn." : NULL);
	} else if (req == NULL) {
		call_end(call);
	} else if (str_eq(http_method(req), STR("HEAD"))) {
		http_reply(req, 200, "text/event-stream; charset=utf-8", STR_NONE);
		call_end(call);
	} else if (read_after(call, req, &after)) {
		if (!has_heard_all(state, after)) {
			turn_stream_start(call, req, after, 0);
			return;
		}
		/* 204 tells an EventSource that it need not come again. */
		http_reply(req, 204, NULL, STR_NONE);
		call_end(call);
	}
}

static void
follow(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	(void)req;
	(void)session;
	/* Asked first, so that an unknown turn is a 404 and not an empty stream. */
	turn_get_state(
	    call->api->turns, &call->session_id, &call->turn_id, 0, on_state_before_events, call);
}

static void
turn_events(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, follow);
}

/* ---- POST .../turns/{turn}/cancel ---- */

static void
on_cancelled(void *arg, int err)
{
	struct api_call *call = arg;

	if (err != 0)
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such turn." : NULL);
	else
		turn_wait_for_news(call, call_req(call), 0);
}

static void
cancel(struct api_call *call, struct http_req *req, const struct store_session *session)
{
	(void)req;
	(void)session;
	turn_cancel(call->api->turns, &call->session_id, &call->turn_id, on_cancelled, call);
}

static void
turn_post_cancel(struct api_call *call, struct http_req *req)
{
	call_with_session(call, req, cancel);
}

#define TURNS "/v1/sessions/{session}/turns"

const struct api_endpoint turns_endpoints[] = {
    {"POST", TURNS, HTTP_LONG | HTTP_WORK, API_CLIENT | API_SERVER, turn_post},
    {"GET", TURNS "/{turn}", HTTP_LONG, API_CLIENT | API_SERVER, turn_show},
    {"GET", TURNS "/{turn}/events", HTTP_LONG, API_CLIENT | API_SERVER | API_BY_QUERY, turn_events},
    {"POST", TURNS "/{turn}/cancel", HTTP_ANY_BODY, API_CLIENT | API_SERVER, turn_post_cancel},
    {NULL, NULL, 0, 0, NULL},
};
