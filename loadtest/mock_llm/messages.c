/* messages - see messages.h. */
#include "loadtest/mock_llm/messages.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

/* Of what it thinks; what comes back without it is refused. */
#define SIGNATURE "mock-signature+/="

static const char *
text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

/* ---- the request ---- */

/* One block of a message; false: it would be refused. */
static bool
take_block(const json_t *block, json_t *parts, json_t *calls, json_t *results)
{
	const char *type = text_at(block, "type");

	if (strcmp(type, "text") == 0) {
		json_array_append(parts, (json_t *)block);
		return *text_at(block, "text") != '\0';
	}
	if (strcmp(type, "tool_use") == 0) {
		json_array_append_new(calls, json_pack("{s:s}", "id", text_at(block, "id")));
		return json_is_object(json_object_get(block, "input"));
	}
	if (strcmp(type, "tool_result") == 0) {
		json_array_append_new(results, json_pack("{s:s,s:s,s:O*}", "role", "tool",
						   "tool_call_id", text_at(block, "tool_use_id"),
						   "content", json_object_get(block, "content")));
		return true;
	}
	if (strcmp(type, "thinking") == 0)
		return *text_at(block, "thinking") != '\0' &&
		       strcmp(text_at(block, "signature"), SIGNATURE) == 0;
	if (strcmp(type, "redacted_thinking") == 0)
		return *text_at(block, "data") != '\0';
	return strcmp(type, "image") == 0 && json_is_object(json_object_get(block, "source"));
}

static bool
take_message(const json_t *m, json_t *out)
{
	json_t *parts = json_array(), *calls = json_array(), *results = json_array();
	const json_t *content = json_object_get(m, "content");
	size_t i;
	json_t *block;
	bool ok = json_is_array(content) || json_is_string(content);

	if (json_is_string(content))
		json_array_append_new(
		    parts, json_pack("{s:s,s:O}", "type", "text", "text", content));
	json_array_foreach(content, i, block) ok = ok && take_block(block, parts, calls, results);
	json_array_extend(out, results);
	if (json_array_size(parts) > 0 || json_array_size(calls) > 0) {
		json_t *said = json_pack("{s:s,s:O}", "role", text_at(m, "role"), "content", parts);

		if (json_array_size(calls) > 0)
			json_object_set(said, "tool_calls", calls);
		json_array_append_new(out, said);
	}
	json_decref(parts);
	json_decref(calls);
	json_decref(results);
	return ok;
}

static const char *
take_messages(const json_t *messages, json_t *out)
{
	const char *before = "";
	size_t i;
	json_t *m;

	json_array_foreach(messages, i, m)
	{
		const char *role = text_at(m, "role");

		if (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
			return "messages: roles are user and assistant";
		if (strcmp(role, before) == 0)
			return "messages: roles must alternate";
		if (!take_message(m, out))
			return "messages: a block is not valid";
		before = role;
	}
	return json_array_size(messages) > 0 ? NULL : "messages: at least one message is required";
}

json_t *
messages_request(const json_t *in, const char **ret_error)
{
	json_t *out = json_array();
	const json_t *tools = json_object_get(in, "tools");

	*ret_error = take_messages(json_object_get(in, "messages"), out);
	if (json_integer_value(json_object_get(in, "max_tokens")) < 1)
		*ret_error = "max_tokens: Field required";
	if (json_is_array(tools) &&
	    !json_is_object(json_object_get(json_array_get(tools, 0), "input_schema")))
		*ret_error = "tools.0.input_schema: Field required";
	if (*ret_error != NULL) {
		json_decref(out);
		return NULL;
	}
	return json_pack("{s:O*,s:O*,s:O*,s:o}", "model", json_object_get(in, "model"), "stream",
	    json_object_get(in, "stream"), "tools", tools, "messages", out);
}

/* ---- events ---- */

static void
add_event(struct buf *out, const char *type, json_t *data)
{
	char *text = json_dumps(data, JSON_COMPACT);

	check(text != NULL);
	buf_printf(out, "event: %s\ndata: %s\n\n", type, text);
	free(text);
	json_decref(data);
}

static void
begin(struct messages *m, struct buf *out)
{
	if (m->has_begun)
		return;
	m->has_begun = true;
	add_event(out, "message_start",
	    json_pack("{s:s,s:{s:s,s:s,s:s,s:s,s:[],s:n,s:{s:I,s:I,s:i}}}", "type", "message_start",
		"message", "id", "msg_mock", "type", "message", "role", "assistant", "model",
		m->model, "content", "stop_reason", "usage", "input_tokens",
		(json_int_t)(m->answer->prompt_tokens - m->answer->plan->cached),
		"cache_read_input_tokens", (json_int_t)m->answer->plan->cached, "output_tokens",
		1));
	add_event(out, "ping", json_pack("{s:s}", "type", "ping"));
}

static void
close_blocks(struct messages *m, struct buf *out)
{
	uint32_t from = m->open == 'c' ? m->first_call : m->block - 1;

	if (m->open == 'r')
		add_event(out, "content_block_delta",
		    json_pack("{s:s,s:i,s:{s:s,s:s}}", "type", "content_block_delta", "index",
			(int)from, "delta", "type", "signature_delta", "signature", SIGNATURE));
	for (uint32_t i = from; m->open != 0 && i < m->block; i++)
		add_event(out, "content_block_stop",
		    json_pack("{s:s,s:i}", "type", "content_block_stop", "index", (int)i));
	m->open = 0;
}

static void
open_block(struct messages *m, char kind, json_t *block, struct buf *out)
{
	if (m->open != kind) {
		close_blocks(m, out);
		m->first_call = m->block;
	}
	m->open = kind;
	add_event(out, "content_block_start",
	    json_pack("{s:s,s:i,s:o}", "type", "content_block_start", "index", (int)m->block++,
		"content_block", block));
}

static void
add_delta(uint32_t block, json_t *delta, struct buf *out)
{
	add_event(out, "content_block_delta",
	    json_pack("{s:s,s:i,s:o}", "type", "content_block_delta", "index", (int)block, "delta",
		delta));
}

static void
say(struct messages *m, char kind, const char *type, const char *member, const json_t *text,
    struct buf *out)
{
	char delta[32];

	if (json_string_length(text) == 0)
		return;
	if (m->open != kind)
		open_block(m, kind, json_pack("{s:s,s:s}", "type", type, member, ""), out);
	snprintf(delta, sizeof(delta), "%s_delta", type);
	add_delta(m->block - 1, json_pack("{s:s,s:O}", "type", delta, member, text), out);
}

static void
say_call(struct messages *m, const json_t *call, struct buf *out)
{
	const json_t *function = json_object_get(call, "function");
	json_int_t index = json_integer_value(json_object_get(call, "index"));

	if (json_object_get(call, "id") != NULL) {
		open_block(m, 'c',
		    json_pack("{s:s,s:s,s:s,s:{}}", "type", "tool_use", "id", text_at(call, "id"),
			"name", text_at(function, "name"), "input"),
		    out);
		return;
	}
	add_delta(m->first_call + (uint32_t)index,
	    json_pack("{s:s,s:O}", "type", "input_json_delta", "partial_json",
		json_object_get(function, "arguments")),
	    out);
}

void
messages_delta(struct messages *m, struct str delta, struct buf *out)
{
	json_t *j = json_loadb(delta.p, delta.len, 0, NULL);

	begin(m, out);
	if (j == NULL) {
		buf_add_cstr(out, "event: content_block_delta\ndata: "
				  "{\"type\":\"content_block_delta\",\"index\":0,"
				  "\"delta\":{\"type\":\"text_delta\",\"text\":\"\xff\"}}\n\n");
		return;
	}
	say(m, 'r', "thinking", "thinking", json_object_get(j, "reasoning_content"), out);
	say(m, 't', "text", "text", json_object_get(j, "content"), out);
	say(m, 't', "text", "text", json_object_get(j, "refusal"), out);
	const json_t *call = json_array_get(json_object_get(j, "tool_calls"), 0);
	if (call != NULL)
		say_call(m, call, out);
	json_decref(j);
}

static const char *
stop_reason(const struct answer *a)
{
	const char *finish = answer_finish(a);

	if (a->plan->refuses)
		return "refusal";
	if (strcmp(finish, "length") == 0)
		return "max_tokens";
	return strcmp(finish, "tool_calls") == 0 ? "tool_use" : "end_turn";
}

void
messages_finish(struct messages *m, struct buf *out)
{
	begin(m, out);
	close_blocks(m, out);
	add_event(out, "message_delta",
	    json_pack("{s:s,s:{s:s,s:n},s:{s:I}}", "type", "message_delta", "delta", "stop_reason",
		stop_reason(m->answer), "stop_sequence", "usage", "output_tokens",
		(json_int_t)m->answer->completion_tokens));
}

void
messages_stop(struct buf *out)
{
	add_event(out, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

void
messages_error(const char *message, struct buf *out)
{
	add_event(out, "error",
	    json_pack("{s:s,s:{s:s,s:s}}", "type", "error", "error", "type", "overloaded_error",
		"message", message));
}

/* ---- whole ---- */

void
messages_whole(const struct messages *m, struct str message, struct buf *out)
{
	json_t *said = json_loadb(message.p, message.len, 0, NULL), *content = json_array();
	const char *text = text_at(said, "content");
	size_t i;
	json_t *call;

	if (*text_at(said, "reasoning_content") != '\0')
		json_array_append_new(
		    content, json_pack("{s:s,s:s,s:s}", "type", "thinking", "thinking",
				 text_at(said, "reasoning_content"), "signature", SIGNATURE));
	if (*text == '\0')
		text = text_at(said, "refusal");
	if (*text != '\0')
		json_array_append_new(
		    content, json_pack("{s:s,s:s}", "type", "text", "text", text));
	json_array_foreach(json_object_get(said, "tool_calls"), i, call)
	{
		const json_t *function = json_object_get(call, "function");
		json_t *input = json_loads(text_at(function, "arguments"), 0, NULL);

		json_array_append_new(
		    content, json_pack("{s:s,s:s,s:s,s:o}", "type", "tool_use", "id",
				 text_at(call, "id"), "name", text_at(function, "name"), "input",
				 input != NULL ? input : json_object()));
	}
	json_t *answer = json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:n,s:{s:I,s:I,s:I}}", "id",
	    "msg_mock", "type", "message", "role", "assistant", "model", m->model, "content",
	    content, "stop_reason", stop_reason(m->answer), "stop_sequence", "usage",
	    "input_tokens", (json_int_t)(m->answer->prompt_tokens - m->answer->plan->cached),
	    "cache_read_input_tokens", (json_int_t)m->answer->plan->cached, "output_tokens",
	    (json_int_t)m->answer->completion_tokens);
	char *whole = json_dumps(answer, JSON_COMPACT);
	buf_add_cstr(out, whole);
	free(whole);
	json_decref(answer);
	json_decref(said);
}
