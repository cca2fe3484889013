/* answer - making deltas, and refusing what a provider would refuse. */
#include "loadtest/mock_llm/answer.h"

#include <stdlib.h>

#include "common/check.h"

enum { ARGUMENT_PIECES = 3 };

/* ---- the request's messages ---- */

static const char *
message_role(const json_t *message)
{
	const char *role = json_string_value(json_object_get(message, "role"));

	return role != NULL ? role : "";
}

/* A content is a string or parts. */
static void
content_text(const json_t *content, struct buf *out)
{
	size_t i;
	json_t *part;

	if (json_is_string(content))
		buf_add(out, json_string_value(content), json_string_length(content));
	json_array_foreach(content, i, part)
	{
		const json_t *text = json_object_get(part, "text");

		if (json_is_string(text))
			buf_add(out, json_string_value(text), json_string_length(text));
	}
}

static bool
names_call(const json_t *calls, const char *id)
{
	size_t i;
	json_t *call;

	json_array_foreach(calls, i, call)
	{
		const char *known = json_string_value(json_object_get(call, "id"));

		if (known != NULL && strcmp(known, id) == 0)
			return true;
	}
	return false;
}

/* The tool messages that follow messages[at] answer each of its calls exactly once. */
static bool
calls_are_answered(const json_t *messages, size_t at, const json_t *calls)
{
	size_t answered = 0;

	for (size_t i = at + 1; i < json_array_size(messages); i++, answered++) {
		const json_t *m = json_array_get(messages, i);
		const char *id = json_string_value(json_object_get(m, "tool_call_id"));

		if (strcmp(message_role(m), "tool") != 0)
			break;
		if (id == NULL || !names_call(calls, id))
			return false;
	}
	return answered == json_array_size(calls);
}

static const char *
messages_error(const json_t *messages)
{
	bool in_results = false;
	size_t i;
	json_t *m;

	if (!json_is_array(messages) || json_array_size(messages) == 0)
		return "messages: expected a non-empty array";
	json_array_foreach(messages, i, m)
	{
		const char *role = message_role(m);
		const json_t *calls = json_object_get(m, "tool_calls");

		if (strcmp(role, "tool") == 0) {
			if (!in_results)
				return "messages with role 'tool' must be a response to a "
				       "preceding "
				       "message with 'tool_calls'";
			continue;
		}
		in_results = false;
		if (strcmp(role, "assistant") == 0 && json_array_size(calls) > 0) {
			if (!calls_are_answered(messages, i, calls))
				return "an assistant message with 'tool_calls' must be followed by "
				       "tool messages responding to each 'tool_call_id'";
			in_results = true;
		} else if (strcmp(role, "system") != 0 && strcmp(role, "developer") != 0 &&
			   strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
			return "messages: unknown role";
	}
	return NULL;
}

static size_t
last_user_message(const json_t *messages)
{
	size_t at = json_array_size(messages);

	while (at > 0 && strcmp(message_role(json_array_get(messages, at - 1)), "user") != 0)
		at--;
	return at; /* the one after it; 0: none */
}

/* ---- what to say ---- */

static void
say_tool_results(struct answer *a, const json_t *messages, size_t after)
{
	const char *before = "tool results: ";

	for (size_t i = after; i < json_array_size(messages); i++) {
		const json_t *m = json_array_get(messages, i);

		if (strcmp(message_role(m), "tool") != 0)
			continue;
		buf_add_cstr(&a->text, before);
		content_text(json_object_get(m, "content"), &a->text);
		before = "; ";
	}
}

static void
choose_text(struct answer *a, const json_t *messages, size_t after_user, const struct buf *said)
{
	if (a->plan->text != NULL) {
		buf_add_cstr(&a->text, a->plan->text);
	} else if (a->hop > 0) {
		say_tool_results(a, messages, after_user);
	} else if (a->plan->has_tokens) {
		a->makes_words = true;
	} else {
		buf_add_cstr(&a->text, "echo: ");
		buf_add_str(&a->text, buf_str(said));
	}
}

/* The end of a part that starts at `from`, not inside a UTF-8 character. */
static size_t
cut_at_character(const char *s, size_t from, size_t len, size_t room)
{
	size_t end = from + room < len ? from + room : len;

	while (end < len && ((unsigned char)s[end] & 0xc0) == 0x80)
		end++;
	return end;
}

/* All heads first, then the arguments of all calls in turns. */
static void
cut_calls(struct answer *a)
{
	const struct plan *p = a->plan;
	size_t *at = xcalloc(p->tool_count, sizeof(*at));

	a->pieces = xcalloc(p->tool_count, (ARGUMENT_PIECES + 2) * sizeof(*a->pieces));
	for (uint32_t i = 0; i < p->tool_count; i++)
		a->pieces[a->piece_count++] = (struct answer_piece){.call = i, .is_head = true};
	for (uint32_t round = 0; round <= ARGUMENT_PIECES; round++) {
		for (uint32_t i = 0; i < p->tool_count; i++) {
			size_t len = strlen(p->tools[i].args);
			size_t end = cut_at_character(
			    p->tools[i].args, at[i], len, len / ARGUMENT_PIECES + 1);

			if (at[i] == end)
				continue;
			a->pieces[a->piece_count++] =
			    (struct answer_piece){.call = i, .from = at[i], .len = end - at[i]};
			at[i] = end;
		}
	}
	free(at);
}

static uint32_t
count_hops(const json_t *messages, size_t after_user)
{
	uint32_t hops = 0;

	for (size_t i = after_user; i < json_array_size(messages); i++)
		hops +=
		    json_array_size(json_object_get(json_array_get(messages, i), "tool_calls")) > 0;
	return hops;
}

static uint64_t
count_prompt(const json_t *messages)
{
	struct buf all = BUF_INIT;
	size_t i;
	json_t *m;

	json_array_foreach(messages, i, m) content_text(json_object_get(m, "content"), &all);
	uint64_t tokens = (all.len + 3) / 4;
	buf_fini(&all);
	return tokens;
}

bool
answer_init(struct answer *a, const json_t *request, struct plan *plan, const char **ret_error)
{
	const json_t *messages = json_object_get(request, "messages");
	struct buf text = BUF_INIT, said = BUF_INIT;

	*a = (struct answer){.plan = plan};
	*ret_error = messages_error(messages);
	if (*ret_error == NULL && !json_is_string(json_object_get(request, "model")))
		*ret_error = "model: expected a string";
	if (*ret_error != NULL)
		return false;

	size_t after_user = last_user_message(messages);
	if (after_user > 0)
		content_text(
		    json_object_get(json_array_get(messages, after_user - 1), "content"), &text);
	bool ok = plan_parse_message(plan, buf_str(&text), &said, ret_error);
	if (ok) {
		a->hop = count_hops(messages, after_user);
		a->prompt_tokens = count_prompt(messages);
		a->calls_tools = plan->tool_count > 0 && a->hop < plan->hops &&
				 json_array_size(json_object_get(request, "tools")) > 0;
		if (a->calls_tools)
			cut_calls(a);
		else
			choose_text(a, messages, after_user, &said);
	}
	buf_fini(&text);
	buf_fini(&said);
	return ok;
}

void
answer_fini(struct answer *a)
{
	buf_fini(&a->text);
	free(a->pieces);
	a->pieces = NULL;
}

/* ---- deltas ---- */

static void
add_json_string(struct buf *out, struct str s)
{
	buf_add_char(out, '"');
	buf_add_json_escaped(out, s);
	buf_add_char(out, '"');
}

/* The next word with the space before it. */
static bool
next_word(struct answer *a, struct str *ret)
{
	const char *from = a->text.data + a->text_at;
	size_t left = a->text.len - a->text_at, len = 0;

	if (left == 0)
		return false;
	while (len < left && from[len] == ' ')
		len++;
	while (len < left && from[len] != ' ')
		len++;
	a->text_at += len;
	*ret = str_sub(from, len);
	return true;
}

static void
add_stamp(const struct answer *a, struct buf *out)
{
	buf_printf(out, " @%ju:%ju;", (uintmax_t)a->asked_us, (uintmax_t)a->now_us);
}

static bool
next_text(struct answer *a, struct buf *out)
{
	struct str word;

	if (a->makes_words) {
		if (a->word_at == a->plan->tokens)
			return false;
		if (a->plan->is_stamped) {
			buf_add_cstr(out, "{\"content\":\"");
			add_stamp(a, out);
			buf_add_cstr(out, "\"}");
		} else
			buf_printf(out, "{\"content\":\"%stok%u\"}", a->word_at > 0 ? " " : "",
			    a->word_at);
		a->word_at++;
		return true;
	}
	if (!next_word(a, &word))
		return false;
	buf_add_cstr(out, a->plan->refuses ? "{\"refusal\":" : "{\"content\":");
	add_json_string(out, word);
	buf_add_char(out, '}');
	return true;
}

static bool
next_piece(struct answer *a, struct buf *out)
{
	if (a->piece_at == a->piece_count)
		return false;
	const struct answer_piece *piece = &a->pieces[a->piece_at++];
	const struct plan_tool *tool = &a->plan->tools[piece->call];
	buf_printf(out, "{\"tool_calls\":[{\"index\":%u,", piece->call);
	if (piece->is_head) {
		buf_printf(out, "\"id\":\"call_%u\",\"type\":\"function\",\"function\":{\"name\":",
		    piece->call);
		add_json_string(out, str_of(tool->name));
		buf_add_cstr(out, ",\"arguments\":\"\"}}]}");
	} else {
		buf_add_cstr(out, "\"function\":{\"arguments\":");
		add_json_string(out, str_sub(tool->args + piece->from, piece->len));
		buf_add_cstr(out, "}}]}");
	}
	return true;
}

bool
answer_next(struct answer *a, struct buf *out)
{
	bool more = true;

	if (a->reasoning_at < a->plan->reasoning) {
		buf_printf(out, "{\"reasoning_content\":\"%swhy%u\"}",
		    a->reasoning_at > 0 ? " " : "", a->reasoning_at);
		a->reasoning_at++;
	} else
		more = a->calls_tools ? next_piece(a, out) : next_text(a, out);
	a->completion_tokens += more;
	return more;
}

/* ---- whole ---- */

static void
add_tool_calls(const struct answer *a, struct buf *out)
{
	buf_add_cstr(out, ",\"tool_calls\":[");
	for (uint32_t i = 0; i < a->plan->tool_count; i++) {
		buf_printf(out,
		    "%s{\"id\":\"call_%u\",\"type\":\"function\",\"function\":{\"name\":",
		    i > 0 ? "," : "", i);
		add_json_string(out, str_of(a->plan->tools[i].name));
		buf_add_cstr(out, ",\"arguments\":");
		add_json_string(out, str_of(a->plan->tools[i].args));
		buf_add_cstr(out, "}}");
	}
	buf_add_char(out, ']');
}

void
answer_message(struct answer *a, struct buf *out)
{
	struct buf deltas = BUF_INIT, reasoning = BUF_INIT;

	while (answer_next(a, &deltas))
		;
	if (a->makes_words) {
		for (uint32_t i = 0; i < a->plan->tokens; i++)
			buf_printf(&a->text, "%stok%u", i > 0 ? " " : "", i);
		if (a->plan->is_stamped)
			add_stamp(a, &a->text);
	}
	for (uint32_t i = 0; i < a->plan->reasoning; i++)
		buf_printf(&reasoning, "%swhy%u", i > 0 ? " " : "", i);
	bool has_content = !a->calls_tools && !a->plan->refuses;
	buf_add_cstr(out, "{\"role\":\"assistant\",\"content\":");
	if (has_content)
		add_json_string(out, buf_str(&a->text));
	else
		buf_add_cstr(out, "null");
	buf_add_cstr(out, ",\"refusal\":");
	if (a->plan->refuses && !a->calls_tools)
		add_json_string(out, buf_str(&a->text));
	else
		buf_add_cstr(out, "null");
	if (reasoning.len > 0) {
		buf_add_cstr(out, ",\"reasoning_content\":");
		add_json_string(out, buf_str(&reasoning));
	}
	if (a->calls_tools)
		add_tool_calls(a, out);
	buf_add_char(out, '}');
	buf_fini(&deltas);
	buf_fini(&reasoning);
}

const char *
answer_finish(const struct answer *a)
{
	if (a->plan->finish != NULL)
		return a->plan->finish;
	return a->calls_tools ? "tool_calls" : "stop";
}

void
answer_usage(const struct answer *a, struct buf *out)
{
	buf_printf(out,
	    "{\"prompt_tokens\":%ju,\"completion_tokens\":%ju,\"total_tokens\":%ju,"
	    "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
	    (uintmax_t)a->prompt_tokens, (uintmax_t)a->completion_tokens,
	    (uintmax_t)(a->prompt_tokens + a->completion_tokens), a->plan->cached);
}
