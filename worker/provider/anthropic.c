/*
 * anthropic - the request. See anthropic.h.
 *
 *   system, developer          -> `system`
 *   user, tool (one or more)   -> one user message of blocks: text, image, tool_result
 *   assistant                  -> one assistant message: thinking, text, tool_use
 *
 * The dialect wants turns by turns, so neighbours of the same role become one message.
 */
#include "worker/provider/anthropic.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"

struct writer {
	json_t *out;      /* the request */
	json_t *system;   /* blocks */
	json_t *messages; /* [{role, content: blocks}] */
	const char *why;  /* it cannot be said */
};

static bool
refuse(struct writer *w, const char *why)
{
	w->why = why;
	return false;
}

static const char *
text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

/* ---- blocks ---- */

/* Empty texts are refused by the provider. */
static void
add_text(json_t *blocks, const json_t *text)
{
	if (json_string_length(text) > 0)
		json_array_append_new(blocks, json_pack("{s:s,s:O}", "type", "text", "text", text));
}

/* An address, or "data:image/png;base64,..". */
static bool
add_image(struct writer *w, json_t *blocks, const json_t *part)
{
	const json_t *image = json_object_get(part, "image_url");
	const char *url = json_is_string(image) ? json_string_value(image) : text_at(image, "url");
	const char *data = strstr(url, ";base64,");
	json_t *source;

	if (strncmp(url, "data:", 5) == 0 && data != NULL)
		source = json_pack("{s:s,s:s%,s:s}", "type", "base64", "media_type", url + 5,
		    (size_t)(data - url - 5), "data", data + 8);
	else if (strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0)
		source = json_pack("{s:s,s:s}", "type", "url", "url", url);
	else
		return refuse(w, "image_url: expected an address or base64 data.");
	json_array_append_new(blocks, json_pack("{s:s,s:o}", "type", "image", "source", source));
	return true;
}

static bool
add_content(struct writer *w, json_t *blocks, const json_t *content)
{
	size_t i;
	json_t *part;

	if (json_is_string(content))
		add_text(blocks, content);
	json_array_foreach(content, i, part)
	{
		const char *type = text_at(part, "type");

		if (strcmp(type, "text") == 0)
			add_text(blocks, json_object_get(part, "text"));
		else if (strcmp(type, "refusal") == 0)
			add_text(blocks, json_object_get(part, "refusal"));
		else if (strcmp(type, "image_url") != 0)
			return refuse(w, "This model's provider takes texts and images only.");
		else if (!add_image(w, blocks, part))
			return false;
	}
	return true;
}

/* What the model thought, as its answer gave it: whole blocks, or the pieces of a stream in a row,
 * of which the last has the signature. The provider wants them back before calls of tools,
 * unchanged. */
static void
add_thinking(json_t *blocks, const json_t *thoughts)
{
	struct buf text = BUF_INIT;
	size_t i;
	json_t *one;

	json_array_foreach(thoughts, i, one)
	{
		if (strcmp(text_at(one, "type"), "redacted_thinking") == 0) {
			json_array_append_new(
			    blocks, json_pack("{s:s,s:s}", "type", "redacted_thinking", "data",
					text_at(one, "data")));
			continue;
		}
		buf_add_cstr(&text, text_at(one, "thinking"));
		if (*text_at(one, "signature") == '\0')
			continue;
		json_array_append_new(
		    blocks, json_pack("{s:s,s:s%,s:s}", "type", "thinking", "thinking",
				text.len > 0 ? text.data : "", text.len, "signature",
				text_at(one, "signature")));
		buf_clear(&text);
	}
	buf_fini(&text); /* what nobody has signed would be refused */
}

static void
add_calls(json_t *blocks, const json_t *calls)
{
	size_t i;
	json_t *call;

	json_array_foreach(calls, i, call)
	{
		const json_t *function = json_object_get(call, "function");
		json_t *input = json_loads(text_at(function, "arguments"), 0, NULL);

		if (!json_is_object(input)) {
			json_decref(input);
			input = json_object();
		}
		json_array_append_new(blocks,
		    json_pack("{s:s,s:s,s:s,s:o}", "type", "tool_use", "id", text_at(call, "id"),
			"name", text_at(function, "name"), "input", input));
	}
}

static bool
add_result(struct writer *w, json_t *blocks, const json_t *message)
{
	json_t *content = json_array();
	bool ok = add_content(w, content, json_object_get(message, "content"));

	json_array_append_new(
	    blocks, json_pack("{s:s,s:s,s:o}", "type", "tool_result", "tool_use_id",
			text_at(message, "tool_call_id"), "content", content));
	return ok;
}

/* ---- messages ---- */

/* The blocks of the last message, if it is of this role, else of a new one. */
static json_t *
blocks_of(struct writer *w, const char *role)
{
	size_t n = json_array_size(w->messages);
	json_t *last = n > 0 ? json_array_get(w->messages, n - 1) : NULL;

	if (last != NULL && strcmp(text_at(last, "role"), role) == 0)
		return json_object_get(last, "content");
	json_t *blocks = json_array();
	json_array_append_new(w->messages, json_pack("{s:s,s:o}", "role", role, "content", blocks));
	return blocks;
}

static bool
add_message(struct writer *w, const json_t *m)
{
	const char *role = text_at(m, "role");
	const json_t *content = json_object_get(m, "content");

	if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0)
		return add_content(w, w->system, content);
	if (strcmp(role, "user") == 0)
		return add_content(w, blocks_of(w, "user"), content);
	if (strcmp(role, "tool") == 0)
		return add_result(w, blocks_of(w, "user"), m);
	if (strcmp(role, "assistant") != 0)
		return refuse(w, "messages: unknown role.");
	json_t *blocks = blocks_of(w, "assistant");
	add_thinking(blocks, json_object_get(m, "thinking_blocks"));
	if (!add_content(w, blocks, content))
		return false;
	add_calls(blocks, json_object_get(m, "tool_calls"));
	return true;
}

/* None may be empty, and what stood beside one may be neighbours now. */
static void
drop_empty(json_t *messages)
{
	for (size_t i = json_array_size(messages); i-- > 0;) {
		json_t *m = json_array_get(messages, i), *next = json_array_get(messages, i + 1);

		if (json_array_size(json_object_get(m, "content")) == 0) {
			json_array_remove(messages, i);
		} else if (next != NULL && strcmp(text_at(m, "role"), text_at(next, "role")) == 0) {
			json_array_extend(
			    json_object_get(m, "content"), json_object_get(next, "content"));
			json_array_remove(messages, i + 1);
		}
	}
}

/* An answer that was begun (prefill) must not end in a space. */
static void
trim_prefill(struct writer *w)
{
	size_t n = json_array_size(w->messages);
	json_t *last = n > 0 ? json_array_get(w->messages, n - 1) : NULL;
	if (last == NULL || strcmp(text_at(last, "role"), "assistant") != 0)
		return;
	json_t *blocks = json_object_get(last, "content");
	json_t *block = json_array_get(blocks, json_array_size(blocks) - 1);
	const char *text = text_at(block, "text");
	size_t len = strlen(text);
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		len--;
	if (len > 0 && len < strlen(text))
		json_object_set_new(block, "text", json_stringn(text, len));
}

/* ---- the other members ---- */

static void
add_tools(struct writer *w, const json_t *tools)
{
	json_t *list = json_array();
	size_t i;
	json_t *tool;

	json_array_foreach(tools, i, tool)
	{
		const json_t *function = json_object_get(tool, "function");
		json_t *schema = json_object_get(function, "parameters");
		json_t *one = json_pack("{s:s}", "name", text_at(function, "name"));

		if (*text_at(function, "description") != '\0')
			json_object_set(
			    one, "description", json_object_get(function, "description"));
		if (json_is_object(schema))
			json_object_set(one, "input_schema", schema);
		else
			json_object_set_new(one, "input_schema",
			    json_pack("{s:s,s:{}}", "type", "object", "properties"));
		json_array_append_new(list, one);
	}
	if (json_array_size(list) > 0)
		json_object_set(w->out, "tools", list);
	json_decref(list);
}

static void
add_tool_choice(struct writer *w, const json_t *in)
{
	const json_t *choice = json_object_get(in, "tool_choice");
	const char *word = json_string_value(choice);
	bool is_single = json_is_false(json_object_get(in, "parallel_tool_calls"));
	json_t *out = NULL;

	if (json_array_size(json_object_get(in, "tools")) == 0)
		return;
	if (json_is_object(choice))
		out = json_pack("{s:s,s:s}", "type", "tool", "name",
		    text_at(json_object_get(choice, "function"), "name"));
	else if (word != NULL && strcmp(word, "required") == 0)
		out = json_pack("{s:s}", "type", "any");
	else if (word != NULL && strcmp(word, "none") == 0)
		out = json_pack("{s:s}", "type", "none");
	else if (is_single)
		out = json_pack("{s:s}", "type", "auto");
	if (out == NULL)
		return;
	if (is_single && strcmp(text_at(out, "type"), "none") != 0)
		json_object_set_new(out, "disable_parallel_tool_use", json_true());
	json_object_set_new(w->out, "tool_choice", out);
}

static void
add_limits(struct writer *w, const json_t *in)
{
	static const char *const same[] = {
	    "model", "stream", "temperature", "top_p", "top_k", "thinking", "service_tier"};
	const json_t *stop = json_object_get(in, "stop");
	json_t *max = json_object_get(in, "max_completion_tokens");

	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		json_t *value = json_object_get(in, same[i]);

		if (value != NULL && !json_is_null(value))
			json_object_set(w->out, same[i], value);
	}
	if (!json_is_integer(max))
		max = json_object_get(in, "max_tokens");
	if (json_is_integer(max))
		json_object_set(w->out, "max_tokens", max);
	else
		json_object_set_new(w->out, "max_tokens", json_integer(ANTHROPIC_MAX_TOKENS));
	if (json_is_string(stop))
		json_object_set_new(w->out, "stop_sequences", json_pack("[O]", stop));
	else if (json_is_array(stop))
		json_object_set(w->out, "stop_sequences", (json_t *)stop);
	if (*text_at(in, "user") != '\0')
		json_object_set_new(
		    w->out, "metadata", json_pack("{s:O}", "user_id", json_object_get(in, "user")));
}

static bool
can_be_said(struct writer *w, const json_t *in)
{
	const json_t *n = json_object_get(in, "n");
	const char *format = text_at(json_object_get(in, "response_format"), "type");

	if (json_is_integer(n) && json_integer_value(n) > 1)
		return refuse(w, "This model's provider gives one choice only.");
	if (*format != '\0' && strcmp(format, "text") != 0)
		return refuse(w, "This model's provider has no response_format.");
	return true;
}

static bool
write_request(struct writer *w, const json_t *in)
{
	size_t i;
	json_t *m;

	if (!can_be_said(w, in))
		return false;
	add_limits(w, in);
	json_array_foreach(json_object_get(in, "messages"), i, m)
	{
		if (!add_message(w, m))
			return false;
	}
	drop_empty(w->messages);
	trim_prefill(w);
	if (json_array_size(w->system) > 0)
		json_object_set(w->out, "system", w->system);
	json_object_set(w->out, "messages", w->messages);
	add_tools(w, json_object_get(in, "tools"));
	add_tool_choice(w, in);
	return true;
}

bool
anthropic_request(struct str openai, struct buf *out, const char **ret_why)
{
	struct writer w = {json_object(), json_array(), json_array(), "The body is not JSON."};
	json_t *in = json_loadb(openai.p, openai.len, 0, NULL);
	bool ok = json_is_object(in) && write_request(&w, in);
	char *text = ok ? json_dumps(w.out, JSON_COMPACT) : NULL;

	ok = ok && text != NULL;
	if (ok)
		buf_add_cstr(out, text);
	else
		*ret_why = w.why;
	free(text);
	json_decref(in);
	json_decref(w.out);
	json_decref(w.system);
	json_decref(w.messages);
	return ok;
}

/* ---- the dialect ---- */

static const char *
path_of(const char *openai)
{
	return strcmp(openai, "/chat/completions") == 0 ? "/messages" : NULL;
}

const struct dialect dialect_anthropic = {
    .name = "anthropic",
    .key_header = "x-api-key",
    .key_prefix = "",
    .more_header = "anthropic-version",
    .more_value = "2023-06-01",
    .path = path_of,
    .request = anthropic_request,
    .begin = anthropic_begin,
    .feed = anthropic_feed,
    .finish = anthropic_finish,
    .end = anthropic_end,
};
