/*
 * anthropic_answer - the answer of /messages as one of chat completions.
 *
 * A stream:  message_start, content_block_start/_delta/_stop .., message_delta, message_stop
 *   becomes  a chunk with the role, chunks with deltas, one with finish_reason, the usage, [DONE]
 *
 * What the model thinks is reasoning_content, and beside it thinking_blocks with the provider's
 * signature: a client that sends them back lets the model go on thinking after a tool.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/provider/anthropic.h"
#include "worker/provider/provider.h"
#include "worker/provider/sse_parse.h"

struct translation {
	bool is_streamed;
	struct buf whole; /* what is no stream */
	struct sse_parse sse;
	struct buf *out; /* during a feed */
	struct buf id, model;
	int64_t created;
	struct {
		json_int_t block;   /* of the answer */
		bool has_arguments; /* something of them was given */
	} calls[ANTHROPIC_TOOL_CALLS_MAX];
	uint32_t tools;
	uint64_t input, cached, output;
	bool is_stopped;
};

/* ---- words ---- */

static const char *
text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

static const char *
finish_of(const char *stop_reason)
{
	static const struct {
		const char *theirs, *ours;
	} words[] = {
	    {"end_turn", "stop"},
	    {"stop_sequence", "stop"},
	    {"pause_turn", "stop"},
	    {"max_tokens", "length"},
	    {"model_context_window_exceeded", "length"},
	    {"tool_use", "tool_calls"},
	    {"refusal", "content_filter"},
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(words[i].theirs, stop_reason) == 0)
			return words[i].ours;
	}
	return "stop";
}

static void
take_count(const json_t *usage, const char *key, uint64_t *ret)
{
	const json_t *n = json_object_get(usage, key);

	if (json_is_integer(n) && json_integer_value(n) >= 0)
		*ret = json_integer_value(n) < PROVIDER_TOKENS_MAX ? (uint64_t)json_integer_value(n)
								   : PROVIDER_TOKENS_MAX;
}

/* Cumulative; a later one may tell less. */
static void
take_usage(struct translation *t, const json_t *usage)
{
	uint64_t fresh = UINT64_MAX, made = 0;

	take_count(usage, "input_tokens", &fresh);
	take_count(usage, "cache_read_input_tokens", &t->cached);
	take_count(usage, "cache_creation_input_tokens", &made);
	if (fresh != UINT64_MAX)
		t->input = fresh + made + t->cached;
	take_count(usage, "output_tokens", &t->output);
}

static json_t *
usage_object(const struct translation *t)
{
	return json_pack("{s:I,s:I,s:I,s:{s:I}}", "prompt_tokens", (json_int_t)t->input,
	    "completion_tokens", (json_int_t)t->output, "total_tokens",
	    (json_int_t)t->input + (json_int_t)t->output, "prompt_tokens_details", "cached_tokens",
	    (json_int_t)t->cached);
}

/* ---- chunks ---- */

static void
add_json(struct buf *out, json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);

	check(text != NULL);
	buf_add_cstr(out, text);
	free(text);
	json_decref(json);
}

static void
open_chunk(struct translation *t)
{
	buf_add_cstr(t->out, "data: {\"id\":\"");
	buf_add_json_escaped(t->out, buf_str(&t->id));
	buf_printf(t->out, "\",\"object\":\"chat.completion.chunk\",\"created\":%jd,\"model\":\"",
	    (intmax_t)t->created);
	buf_add_json_escaped(t->out, buf_str(&t->model));
	buf_add_cstr(t->out, "\",\"choices\":[");
}

/* delta is JSON text; finish NULL: none. */
static void
add_chunk(struct translation *t, struct str delta, const char *finish)
{
	open_chunk(t);
	buf_add_cstr(t->out, "{\"index\":0,\"delta\":");
	buf_add_str(t->out, delta);
	if (finish != NULL)
		buf_printf(t->out, ",\"finish_reason\":\"%s\"}]}\n\n", finish);
	else
		buf_add_cstr(t->out, ",\"finish_reason\":null}]}\n\n");
}

static void
add_delta(struct translation *t, const char *member, const json_t *text)
{
	struct buf delta = BUF_INIT;

	if (!json_is_string(text))
		return;
	buf_printf(&delta, "{\"%s\":\"", member);
	buf_add_json_escaped(&delta, str_sub(json_string_value(text), json_string_length(text)));
	buf_add_cstr(&delta, "\"}");
	add_chunk(t, buf_str(&delta), NULL);
	buf_fini(&delta);
}

static void
add_tool_head(struct translation *t, json_int_t index, const json_t *block)
{
	struct buf delta = BUF_INIT;

	if (t->tools == ANTHROPIC_TOOL_CALLS_MAX)
		return;
	t->calls[t->tools].block = index;
	t->calls[t->tools].has_arguments = false;
	add_json(&delta, json_pack("{s:[{s:I,s:s,s:s,s:{s:s,s:s}}]}", "tool_calls", "index",
			     (json_int_t)t->tools++, "id", text_at(block, "id"), "type", "function",
			     "function", "name", text_at(block, "name"), "arguments", ""));
	add_chunk(t, buf_str(&delta), NULL);
	buf_fini(&delta);
}

static uint32_t
tool_of(const struct translation *t, json_int_t index)
{
	uint32_t tool = 0;

	while (tool < t->tools && t->calls[tool].block != index)
		tool++;
	return tool;
}

static void
add_tool_piece(struct translation *t, json_int_t index, struct str piece)
{
	struct buf delta = BUF_INIT;
	uint32_t tool = tool_of(t, index);

	if (tool == t->tools || piece.len == 0)
		return;
	t->calls[tool].has_arguments = true;
	buf_printf(&delta, "{\"tool_calls\":[{\"index\":%jd,\"function\":{\"arguments\":\"",
	    (intmax_t)tool);
	buf_add_json_escaped(&delta, piece);
	buf_add_cstr(&delta, "\"}}]}");
	add_chunk(t, buf_str(&delta), NULL);
	buf_fini(&delta);
}

/* Of a tool without parameters the provider gives no arguments; ours are JSON. */
static void
end_tool(struct translation *t, json_int_t index)
{
	uint32_t tool = tool_of(t, index);

	if (tool < t->tools && !t->calls[tool].has_arguments)
		add_tool_piece(t, index, STR("{}"));
}

static struct str
string_of(const json_t *text)
{
	return json_is_string(text) ? str_sub(json_string_value(text), json_string_length(text))
				    : STR_NONE;
}

/* What is thought, and whose it is: text may be empty, more are the block's other members. */
static void
add_thought(
    struct translation *t, const char *type, struct str text, const char *member, struct str value)
{
	struct buf delta = BUF_INIT;

	buf_add_char(&delta, '{');
	if (text.len > 0) {
		buf_add_cstr(&delta, "\"reasoning_content\":\"");
		buf_add_json_escaped(&delta, text);
		buf_add_cstr(&delta, "\",");
	}
	buf_printf(&delta, "\"thinking_blocks\":[{\"type\":\"%s\",\"%s\":\"", type, member);
	buf_add_json_escaped(&delta, value);
	buf_add_cstr(&delta, "\"}]}");
	add_chunk(t, buf_str(&delta), NULL);
	buf_fini(&delta);
}

/* ---- events ---- */

static void
on_start(struct translation *t, const json_t *message)
{
	buf_clear(&t->id);
	buf_add_cstr(&t->id, text_at(message, "id"));
	buf_clear(&t->model);
	buf_add_cstr(&t->model, text_at(message, "model"));
	take_usage(t, json_object_get(message, "usage"));
	add_chunk(t, STR("{\"role\":\"assistant\",\"content\":\"\"}"), NULL);
}

static void
on_block(struct translation *t, json_int_t index, const json_t *block)
{
	const char *type = text_at(block, "type");

	if (strcmp(type, "tool_use") == 0)
		add_tool_head(t, index, block);
	else if (strcmp(type, "redacted_thinking") == 0)
		add_thought(t, type, STR_NONE, "data", string_of(json_object_get(block, "data")));
	else if (strcmp(type, "text") == 0 && *text_at(block, "text") != '\0')
		add_delta(t, "content", json_object_get(block, "text"));
}

static void
on_delta(struct translation *t, json_int_t index, const json_t *delta)
{
	const char *type = text_at(delta, "type");

	if (strcmp(type, "text_delta") == 0)
		add_delta(t, "content", json_object_get(delta, "text"));
	else if (strcmp(type, "thinking_delta") == 0)
		add_thought(t, "thinking", string_of(json_object_get(delta, "thinking")),
		    "thinking", string_of(json_object_get(delta, "thinking")));
	else if (strcmp(type, "signature_delta") == 0)
		add_thought(t, "thinking", STR_NONE, "signature",
		    string_of(json_object_get(delta, "signature")));
	else if (strcmp(type, "input_json_delta") == 0)
		add_tool_piece(t, index, string_of(json_object_get(delta, "partial_json")));
}

static void
on_message_delta(struct translation *t, const json_t *event)
{
	const char *reason = text_at(json_object_get(event, "delta"), "stop_reason");

	take_usage(t, json_object_get(event, "usage"));
	if (*reason == '\0')
		return;
	add_chunk(t, STR("{}"), finish_of(reason));
}

static void
on_stop(struct translation *t)
{
	t->is_stopped = true;
	open_chunk(t);
	buf_add_cstr(t->out, "],\"usage\":");
	add_json(t->out, usage_object(t));
	buf_add_cstr(t->out, "}\n\ndata: [DONE]\n\n");
}

static void
on_error(struct translation *t, const json_t *error)
{
	buf_add_cstr(t->out, "data: ");
	add_json(t->out,
	    json_pack("{s:{s:s,s:s,s:s,s:n}}", "error", "message", text_at(error, "message"),
		"type", text_at(error, "type"), "code", text_at(error, "type"), "param"));
	buf_add_cstr(t->out, "\n\n");
}

static void
take_event(struct translation *t, const json_t *event)
{
	const char *type = text_at(event, "type");
	json_int_t index = json_integer_value(json_object_get(event, "index"));

	if (strcmp(type, "message_start") == 0)
		on_start(t, json_object_get(event, "message"));
	else if (strcmp(type, "content_block_start") == 0)
		on_block(t, index, json_object_get(event, "content_block"));
	else if (strcmp(type, "content_block_delta") == 0)
		on_delta(t, index, json_object_get(event, "delta"));
	else if (strcmp(type, "content_block_stop") == 0)
		end_tool(t, index);
	else if (strcmp(type, "message_delta") == 0)
		on_message_delta(t, event);
	else if (strcmp(type, "message_stop") == 0)
		on_stop(t);
	else if (strcmp(type, "error") == 0)
		on_error(t, json_object_get(event, "error"));
}

static int
on_sse(void *arg, const struct sse_event *e)
{
	struct translation *t = arg;
	json_t *event = json_loadb(e->data.p, e->data.len, 0, NULL);
	bool ok = json_is_object(event);

	if (ok && !t->is_stopped)
		take_event(t, event);
	json_decref(event);
	return ok ? 0 : -1;
}

/* ---- what is no stream ---- */

static json_t *
message_of(const json_t *content)
{
	struct buf text = BUF_INIT, thinking = BUF_INIT;
	json_t *calls = json_array(), *thoughts = json_array(), *message;
	size_t i;
	json_t *block;

	json_array_foreach(content, i, block)
	{
		const char *type = text_at(block, "type");

		if (strcmp(type, "text") == 0) {
			buf_add_cstr(&text, text_at(block, "text"));
		} else if (strcmp(type, "thinking") == 0) {
			buf_add_cstr(&thinking, text_at(block, "thinking"));
			json_array_append(thoughts, block);
		} else if (strcmp(type, "redacted_thinking") == 0) {
			json_array_append(thoughts, block);
		} else if (strcmp(type, "tool_use") == 0) {
			struct buf input = BUF_INIT;

			add_json(&input, json_deep_copy(json_object_get(block, "input")));
			json_array_append_new(
			    calls, json_pack("{s:s,s:s,s:{s:s,s:s}}", "id", text_at(block, "id"),
				       "type", "function", "function", "name",
				       text_at(block, "name"), "arguments", input.data));
			buf_fini(&input);
		}
	}
	message = json_pack("{s:s,s:o}", "role", "assistant", "content",
	    text.len > 0 || json_array_size(calls) == 0
		? json_stringn(text.len > 0 ? text.data : "", text.len)
		: json_null());
	if (thinking.len > 0)
		json_object_set_new(
		    message, "reasoning_content", json_stringn(thinking.data, thinking.len));
	if (json_array_size(thoughts) > 0)
		json_object_set(message, "thinking_blocks", thoughts);
	if (json_array_size(calls) > 0)
		json_object_set(message, "tool_calls", calls);
	json_decref(thoughts);
	json_decref(calls);
	buf_fini(&text);
	buf_fini(&thinking);
	return message;
}

/* Tool calls without an input would make no JSON. */
static bool
is_message(const json_t *answer)
{
	const json_t *content = json_object_get(answer, "content");
	size_t i;
	json_t *block;

	if (!json_is_array(content) || *text_at(answer, "stop_reason") == '\0')
		return false;
	json_array_foreach(content, i, block)
	{
		if (strcmp(text_at(block, "type"), "tool_use") == 0 &&
		    !json_is_object(json_object_get(block, "input")))
			return false;
	}
	return true;
}

static bool
translate_whole(struct translation *t, struct buf *out)
{
	json_t *answer = json_loadb(t->whole.len > 0 ? t->whole.data : "", t->whole.len, 0, NULL);
	bool ok = is_message(answer);

	if (ok) {
		take_usage(t, json_object_get(answer, "usage"));
		add_json(
		    out, json_pack("{s:s,s:s,s:I,s:s,s:[{s:i,s:o,s:n,s:s}],s:o}", "id",
			     text_at(answer, "id"), "object", "chat.completion", "created",
			     (json_int_t)t->created, "model", text_at(answer, "model"), "choices",
			     "index", 0, "message", message_of(json_object_get(answer, "content")),
			     "logprobs", "finish_reason", finish_of(text_at(answer, "stop_reason")),
			     "usage", usage_object(t)));
	}
	json_decref(answer);
	return ok;
}

/* ---- life ---- */

struct translation *
anthropic_begin(bool is_streamed)
{
	struct translation *t = xcalloc(1, sizeof(*t));

	t->is_streamed = is_streamed;
	t->created = clock_wall_ms() / 1000;
	sse_parse_init(&t->sse, ANTHROPIC_EVENT_BYTES_MAX, on_sse, t);
	return t;
}

void
anthropic_end(struct translation **tp)
{
	struct translation *t = *tp;

	if (t == NULL)
		return;
	*tp = NULL;
	sse_parse_fini(&t->sse);
	buf_fini(&t->whole);
	buf_fini(&t->id);
	buf_fini(&t->model);
	free(t);
}

bool
anthropic_feed(struct translation *t, struct str bytes, struct buf *out)
{
	if (!t->is_streamed) {
		buf_add_str(&t->whole, bytes);
		return t->whole.len <= ANTHROPIC_ANSWER_BYTES_MAX;
	}
	t->out = out;
	return sse_parse_feed(&t->sse, bytes) == 0;
}

bool
anthropic_finish(struct translation *t, struct buf *out)
{
	return t->is_streamed || translate_whole(t, out);
}
