/* ws_chat_frame - events in, text out, with jansson between. */
#include "worker/api/ws_chat_frame.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/json_real.h"

static void
set_text(json_t *frame, const char *name, const char *text)
{
	if (text != NULL)
		check(json_object_set_new(frame, name, json_string(text)) == 0);
}

static json_t *
frame_new(const char *status, const char *request_id, const char *turn_id)
{
	json_t *frame = json_pack("{s:s}", "status", status);

	check(frame != NULL);
	set_text(frame, "request_id", request_id);
	set_text(frame, "turn_id", turn_id);
	return frame;
}

static void
write_frame(struct buf *out, json_t *frame)
{
	char *text = json_dumps(frame, JSON_COMPACT);

	check(text != NULL);
	json_shorten_reals(text);
	buf_add_cstr(out, text);
	free(text);
	json_decref(frame);
}

/* ---- chunks: new references, never NULL ---- */

/* Of what clients may leave to the order of members nothing is said: one event, one chunk. */
static json_t *
chunk_of(const char *type, json_t *data, json_t *metadata)
{
	json_t *chunk = json_pack("{s:s, s:o}", "type", type, "data", data);

	check(chunk != NULL);
	if (metadata != NULL)
		json_object_set_new(chunk, "metadata", metadata);
	return chunk;
}

static json_t *
copy_of(const json_t *data, const char *name)
{
	json_t *value = json_object_get(data, name);

	return value != NULL ? json_incref(value) : json_null();
}

static json_t *
chunk_started(const struct chat_frame_of *of, const json_t *data)
{
	json_t *metadata =
	    json_pack("{s:b, s:o}", "processing", 1, "session_id", copy_of(data, "session_id"));

	set_text(metadata, "connection", of->connection);
	return json_pack("{s:o}", "metadata", metadata);
}

static json_t *
chunk_text(const json_t *data)
{
	json_t *metadata = json_pack("{s:s, s:o, s:o}", "type", "delta", "hop",
	    copy_of(data, "hop"), "offset", copy_of(data, "offset"));

	return chunk_of("text", copy_of(data, "text"), metadata);
}

static json_t *
chunk_snapshot(const json_t *data)
{
	json_t *metadata =
	    json_pack("{s:s, s:o}", "type", "snapshot", "tool_calls", copy_of(data, "tool_calls"));

	return chunk_of("snapshot", copy_of(data, "text"), metadata);
}

static bool
is_run_by_server(const json_t *data)
{
	const char *by = json_string_value(json_object_get(data, "run_by"));

	return by != NULL && strcmp(by, "server") == 0;
}

static json_t *
chunk_tool_call(const json_t *data)
{
	if (is_run_by_server(data))
		return chunk_of("tool_execution", copy_of(data, "name"),
		    json_pack("{s:i, s:o}", "tool_count", 1, "hop", copy_of(data, "hop")));
	return json_pack("{s:o, s:o, s:o, s:o}", "tool_call_id", copy_of(data, "tool_call_id"),
	    "name", copy_of(data, "name"), "arguments", copy_of(data, "arguments"), "claimed_by",
	    copy_of(data, "claimed_by"));
}

static json_t *
chunk_failed(const json_t *data)
{
	static const char *const exceeded[] = {"budget", "limit"};
	const json_t *error = json_object_get(data, "error");
	json_t *retry_after = json_object_get(error, "retry_after");
	json_t *chunk = json_pack(
	    "{s:o, s:o}", "error", copy_of(error, "message"), "code", copy_of(error, "code"));

	if (retry_after != NULL)
		json_object_set(chunk, "retry_after", retry_after);
	for (size_t i = 0; i < ARRAY_LEN(exceeded); i++) {
		json_t *what = json_object_get(data, exceeded[i]);

		if (what != NULL)
			json_object_set(chunk, exceeded[i], what);
	}
	return chunk;
}

static json_t *
chunk_cancelled(void)
{
	return json_pack("{s:s, s:s}", "error", err_info(E_CANCELLED)->text, "code",
	    err_info(E_CANCELLED)->code);
}

/* ---- events ---- */

struct shown {
	const char *status;
	json_t *chunk;
};

static struct shown
show(const struct chat_frame_of *of, enum turn_event_type type, const json_t *data)
{
	switch (type) {
	case TURN_STARTED:
		return (struct shown){"processing", chunk_started(of, data)};
	case TURN_TEXT_DELTA:
		return (struct shown){"chunk", chunk_text(data)};
	case TURN_REASONING_DELTA:
		return (struct shown){"chunk", chunk_of("reasoning", copy_of(data, "text"), NULL)};
	case TURN_KNOWLEDGE:
		return (struct shown){"chunk", chunk_of("knowledge", json_deep_copy(data), NULL)};
	case TURN_TOOL_RESULT:
		return (struct shown){"chunk", chunk_of("tool_result", json_deep_copy(data), NULL)};
	case TURN_SNAPSHOT:
		return (struct shown){"chunk", chunk_snapshot(data)};
	case TURN_TOOL_CALL:
		return (struct shown){
		    is_run_by_server(data) ? "processing" : "tool_call", chunk_tool_call(data)};
	case TURN_RESTARTED:
		return (struct shown){"restarted", json_object()};
	case TURN_COMPLETED:
		return (struct shown){"complete", json_object()};
	case TURN_FAILED:
		return (struct shown){"error", chunk_failed(data)};
	case TURN_CANCELLED:
		return (struct shown){"error", chunk_cancelled()};
	case TURN_USAGE:
	case TURN_EVENT_COUNT:
		break;
	}
	return (struct shown){NULL, NULL};
}

static json_t *
data_of(const struct turn_event *event)
{
	json_t *data = json_loadb(event->data.p, event->data.len, JSON_ALLOW_NUL, NULL);

	check(json_is_object(data)); /* we have written it */
	return data;
}

bool
chat_frame_of_event(struct buf *out, const struct chat_frame_of *of, const struct turn_event *event)
{
	if (event->type == TURN_USAGE)
		return false;
	json_t *data = data_of(event);
	struct shown shown = show(of, event->type, data);

	check(shown.chunk != NULL);
	json_t *frame = frame_new(shown.status, of->request_id, of->turn_id);
	json_object_set_new(frame, "seq", json_integer((json_int_t)event->seq));
	json_object_set_new(frame, "chunk", shown.chunk);
	if (event->type == TURN_COMPLETED) {
		json_object_set_new(frame, "finish_reason", copy_of(data, "finish_reason"));
		json_object_set_new(frame, "usage", copy_of(data, "usage"));
	}
	write_frame(out, frame);
	json_decref(data);
	return true;
}

/* Its number is that of the event before: a client that has only this gets the end by asking for
 * what comes after it. */
bool
chat_frame_of_answer(
    struct buf *out, const struct chat_frame_of *of, const struct turn_event *event)
{
	check(event->type == TURN_COMPLETED);
	json_t *data = data_of(event);
	json_t *content = copy_of(json_object_get(data, "message"), "content");
	bool has_text = json_string_length(content) > 0;

	if (has_text) {
		json_t *frame = frame_new("chunk", of->request_id, of->turn_id);

		json_object_set_new(frame, "seq", json_integer((json_int_t)event->seq - 1));
		json_object_set_new(frame, "chunk",
		    chunk_of("text", json_incref(content), json_pack("{s:s}", "type", "full")));
		write_frame(out, frame);
	}
	json_decref(content);
	json_decref(data);
	return has_text;
}

/* ---- answers ---- */

void
chat_frame_of_error(struct buf *out, const struct chat_error *e)
{
	const struct err_info *info = err_info(e->err);
	json_t *frame =
	    frame_new("error", e->request_id != NULL ? e->request_id : "unknown", e->turn_id);
	json_t *chunk = json_pack("{s:s, s:s}", "error",
	    e->message != NULL ? e->message : info->text, "code", info->code);

	check(chunk != NULL);
	set_text(chunk, "param", e->param);
	if (e->err == E_ALREADY_ANSWERED)
		json_object_set_new(chunk, "same_output", json_boolean(e->is_same_output));
	if (e->retry_after_s > 0)
		json_object_set_new(chunk, "retry_after", json_integer(e->retry_after_s));
	json_object_set_new(frame, "chunk", chunk);
	write_frame(out, frame);
}

void
chat_frame_joined(
    struct buf *out, const char *request_id, const char *session_id, const char *turn_id)
{
	json_t *frame = frame_new("joined", request_id, turn_id);

	json_object_set_new(
	    frame, "chunk", json_pack("{s:{s:s}}", "metadata", "session_id", session_id));
	write_frame(out, frame);
}

void
chat_frame_pong(struct buf *out, const char *request_id)
{
	write_frame(out, frame_new("pong", request_id, NULL));
}
