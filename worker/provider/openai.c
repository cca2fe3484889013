/* openai - building the request; the answer's events, assembled. */
#include "worker/provider/openai.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/delta.h"
#include "worker/provider/sse_parse.h"

enum { MESSAGE_BYTES_MAX = 500 };

struct tool_call {
	int64_t index; /* the provider's; -1: it gives none */
	struct buf id, name, arguments;
};

struct openai_answer {
	struct openai_handlers handlers;
	void *arg;
	struct sse_parse sse;
	bool has_failed;
	enum failure failure;
	struct buf message;
	struct buf scratch; /* a text whose escapes were undone */

	bool has_finish, is_done, has_refusal, has_usage;
	enum provider_finish finish;
	struct tool_call *calls;
	uint32_t call_count;
	struct provider_tool_call *results; /* views of calls */
	struct provider_usage usage;
	uint64_t deltas;
	size_t answer_bytes;
};

/* ---- the request ---- */

static int
on_dump(const char *bytes, size_t len, void *arg)
{
	buf_add(arg, bytes, len);
	return 0;
}

static void
add_json(struct buf *out, const char *before, const json_t *value)
{
	buf_add_cstr(out, before);
	check(json_dump_callback(value, on_dump, out, JSON_COMPACT) == 0);
}

static void
add_messages(struct buf *out, const struct provider_request *r)
{
	buf_add_cstr(out, ",\"messages\":[");
	buf_add_str(out, r->history);
	for (size_t i = 0; i < json_array_size(r->messages); i++)
		add_json(
		    out, i > 0 || r->history.len > 0 ? "," : "", json_array_get(r->messages, i));
	if (r->prefill.len > 0) {
		buf_add_cstr(out, ",{\"role\":\"assistant\",\"content\":\"");
		buf_add_json_escaped(out, r->prefill);
		buf_add_cstr(out, "\"}");
	}
	buf_add_char(out, ']');
}

void
openai_request(const struct provider_request *r, const char *model, struct buf *out)
{
	buf_add_cstr(out, "{\"model\":\"");
	buf_add_json_escaped(out, str_of(model));
	buf_add_cstr(out, "\",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
	add_messages(out, r);
	if (json_array_size(r->tools) > 0) /* an empty list is refused by some */
		add_json(out, ",\"tools\":", r->tools);
	if (r->max_tokens > 0)
		buf_printf(out, ",\"max_tokens\":%u", r->max_tokens);
	buf_add_char(out, '}');
}

/* ---- errors ---- */

static int
answer_err(const struct openai_answer *a)
{
	return a->has_failed ? failure_info(a->failure)->err : 0;
}

static int
answer_fail(struct openai_answer *a, enum failure failure, const char *message)
{
	a->has_failed = true;
	a->failure = failure;
	buf_clear(&a->message);
	buf_add_cstr(&a->message, message);
	return answer_err(a);
}

/* Text of the provider for a person: its length bounded at a character, controls taken out. */
static void
add_clean(struct buf *out, struct str s)
{
	if (s.len > MESSAGE_BYTES_MAX) {
		s.len = MESSAGE_BYTES_MAX;
		while (s.len > 0 && ((unsigned char)s.p[s.len] & 0xc0) == 0x80)
			s.len--;
	}
	for (size_t i = 0; i < s.len; i++)
		buf_add_char(out, (unsigned char)s.p[i] < 0x20 ? ' ' : s.p[i]);
}

static struct str
json_str(const json_t *j)
{
	return json_is_string(j) ? str_sub(json_string_value(j), json_string_length(j)) : STR_NONE;
}

/* "error" is an object with message and code or type, or plain text; some wrap it in a list or say
 * "message" or "detail" without it. */
static void
describe_error(const json_t *error, struct buf *out)
{
	struct str message = json_str(json_object_get(error, "message"));
	const json_t *code = json_object_get(error, "code");

	if (json_is_string(error))
		message = json_str(error);
	if (message.len == 0)
		return;
	add_clean(out, message);
	if (json_is_string(code) && json_string_length(code) > 0) {
		buf_add_cstr(out, " (");
		add_clean(out, json_str(code));
		buf_add_char(out, ')');
	}
}

void
openai_error_message(struct str body, struct buf *out)
{
	json_t *root = json_loadb(body.len > 0 ? body.p : "", body.len, 0, NULL);
	const json_t *top = json_is_array(root) ? json_array_get(root, 0) : root;
	const json_t *error = json_object_get(top, "error");

	describe_error(error != NULL ? error : top, out);
	if (out->len == 0)
		describe_error(json_object_get(top, "detail"), out);
	json_decref(root);
}

static bool
contains(struct str s, const char *word)
{
	return s.len > 0 && memmem(s.p, s.len, word, strlen(word)) != NULL;
}

/* Codes where there are codes, else the words of those who have none. */
bool
openai_error_is_context(struct str body)
{
	static const char *const words[] = {"context_length_exceeded", "exceed_context_size",
	    "maximum context length", "context window", "prompt is too long", "input is too long"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (contains(body, words[i]))
			return true;
	}
	return false;
}

bool
openai_error_is_quota(struct str body)
{
	return contains(body, "\"insufficient_quota\"");
}

static bool
is_one_of(struct str s, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (str_eq(s, str_of(words[i])))
			return true;
	}
	return false;
}

/* An error in the middle of the stream. What concerns our key is not the client's business. */
static int
take_error(struct openai_answer *a, const json_t *error)
{
	static const char *const limited[] = {"rate_limit_exceeded", "rate_limit_error", "429"};
	static const char *const ours[] = {"invalid_api_key", "authentication_error",
	    "permission_error", "insufficient_quota", "401", "402", "403"};
	const json_t *code = json_object_get(error, "code");
	struct str type = json_str(json_object_get(error, "type")), word = json_str(code);
	char number[24];

	if (json_is_integer(code)) {
		snprintf(number, sizeof(number), "%jd", (intmax_t)json_integer_value(code));
		word = str_of(number);
	}
	if (is_one_of(word, ours, ARRAY_LEN(ours)) || is_one_of(type, ours, ARRAY_LEN(ours)))
		return answer_fail(a, FAILURE_KEY, err_info(E_PROVIDER)->text);
	bool is_limit = is_one_of(word, limited, ARRAY_LEN(limited)) ||
			is_one_of(type, limited, ARRAY_LEN(limited));
	answer_fail(a, is_limit ? FAILURE_RATE_LIMITED : FAILURE_SERVER, "");
	if (openai_error_is_context(word))
		a->failure = FAILURE_CONTEXT;
	describe_error(error, &a->message);
	if (a->message.len == 0)
		buf_add_cstr(&a->message, err_info(answer_err(a))->text);
	return answer_err(a);
}

static int
malformed(struct openai_answer *a)
{
	return answer_fail(a, FAILURE_MALFORMED, "The model provider's answer was malformed.");
}

/* ---- deltas ---- */

/* Counts what the model gave; its sum is bounded. */
static int
take_bytes(struct openai_answer *a, size_t len)
{
	a->answer_bytes += len;
	a->deltas++;
	if (a->answer_bytes > OPENAI_ANSWER_BYTES_MAX)
		return answer_fail(a, FAILURE_TOO_LARGE, "The model's answer was too large.");
	return 0;
}

static int
take_str(struct openai_answer *a, struct str s, void (*on_delta)(void *, struct str))
{
	int rc;

	if (s.len == 0)
		return 0;
	if ((rc = take_bytes(a, s.len)) != 0)
		return rc;
	on_delta(a->arg, s);
	return 0;
}

static int
take_text(struct openai_answer *a, const json_t *text, void (*on_delta)(void *, struct str))
{
	return take_str(a, json_str(text), on_delta);
}

/* Content as a list of parts: text, and thinking in some dialects. */
static int
take_parts(struct openai_answer *a, const json_t *parts)
{
	size_t i;
	json_t *part;
	int rc = 0;

	json_array_foreach(parts, i, part)
	{
		const json_t *thinking = json_object_get(part, "thinking");

		if (json_is_array(thinking)) {
			for (size_t k = 0; rc == 0 && k < json_array_size(thinking); k++)
				rc = take_text(a,
				    json_object_get(json_array_get(thinking, k), "text"),
				    a->handlers.on_reasoning);
		} else if (rc == 0)
			rc = take_text(a, json_object_get(part, "text"), a->handlers.on_text);
	}
	return rc;
}

/* The call that a delta continues. Some providers give no index, or 0 for every call: then a new id
 * begins a new call. */
static struct tool_call *
find_call(struct openai_answer *a, int64_t index, struct str id)
{
	for (uint32_t i = a->call_count; i-- > 0;) {
		struct tool_call *c = &a->calls[i];

		if (index >= 0 && c->index != index)
			continue;
		if (id.len > 0 && c->id.len > 0 && !str_eq(buf_str(&c->id), id))
			return NULL;
		return c;
	}
	return NULL;
}

static struct tool_call *
add_call(struct openai_answer *a, int64_t index)
{
	if (a->call_count == OPENAI_TOOL_CALLS_MAX)
		return NULL;
	a->calls = xrealloc(a->calls, (a->call_count + 1) * sizeof(a->calls[0]));
	a->calls[a->call_count] = (struct tool_call){.index = index};
	return &a->calls[a->call_count++];
}

static int
take_call(struct openai_answer *a, const json_t *delta)
{
	const json_t *index = json_object_get(delta, "index");
	const json_t *function = json_object_get(delta, "function");
	struct str id = json_str(json_object_get(delta, "id"));
	struct str name = json_str(json_object_get(function, "name"));
	const json_t *arguments = json_object_get(function, "arguments");
	int64_t at = json_is_integer(index) ? json_integer_value(index) : -1;
	struct tool_call *c = find_call(a, at, id);

	if (!json_is_object(delta) || (c == NULL && (c = add_call(a, at)) == NULL))
		return malformed(a);
	if (c->id.len == 0)
		buf_add_str(&c->id, id);
	if (!str_eq(buf_str(&c->name), name)) /* some repeat it with every piece */
		buf_add_str(&c->name, name);
	size_t before = c->arguments.len;
	if (json_is_object(arguments)) /* not the dialect, but seen: an object, not its text */
		add_json(&c->arguments, "", arguments);
	else
		buf_add_str(&c->arguments, json_str(arguments));
	return take_bytes(a, id.len + name.len + c->arguments.len - before);
}

static int
take_calls(struct openai_answer *a, const json_t *calls)
{
	size_t i;
	json_t *call;
	int rc = 0;

	json_array_foreach(calls, i, call)
	{
		if (rc == 0)
			rc = take_call(a, call);
	}
	return rc;
}

static int
take_finish(struct openai_answer *a, const json_t *reason)
{
	static const struct {
		const char *text;
		enum provider_finish finish;
	} known[] = {
	    {"stop", PROVIDER_FINISH_STOP},
	    {"length", PROVIDER_FINISH_LENGTH},
	    {"max_tokens", PROVIDER_FINISH_LENGTH},
	    {"tool_calls", PROVIDER_FINISH_TOOL_CALLS},
	    {"function_call", PROVIDER_FINISH_TOOL_CALLS},
	    {"content_filter", PROVIDER_FINISH_CONTENT_FILTER},
	};
	static const char *const broken[] = {"error", "insufficient_system_resource"};
	struct str text = json_str(reason);

	if (text.len == 0)
		return 0;
	if (is_one_of(text, broken, ARRAY_LEN(broken)))
		return answer_fail(a, FAILURE_SERVER, "The model provider broke the answer off.");
	a->has_finish = true;
	a->deltas++;
	a->finish = PROVIDER_FINISH_STOP; /* a word that we do not know is an end all the same */
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (str_eq(text, str_of(known[i].text)))
			a->finish = known[i].finish;
	}
	return 0;
}

static int
take_delta(struct openai_answer *a, const json_t *delta)
{
	const json_t *content = json_object_get(delta, "content");
	const json_t *reasoning = json_object_get(delta, "reasoning_content");
	const json_t *refusal = json_object_get(delta, "refusal");
	int rc;

	if (!json_is_string(reasoning))
		reasoning = json_object_get(delta, "reasoning");
	if ((rc = take_text(a, reasoning, a->handlers.on_reasoning)) != 0)
		return rc;
	if (json_is_array(content))
		rc = take_parts(a, content);
	else
		rc = take_text(a, content, a->handlers.on_text);
	if (rc != 0)
		return rc;
	a->has_refusal |= json_str(refusal).len > 0;
	if ((rc = take_text(a, refusal, a->handlers.on_text)) != 0)
		return rc;
	return take_calls(a, json_object_get(delta, "tool_calls"));
}

/* We ask for one choice only. */
static int
take_choices(struct openai_answer *a, const json_t *choices)
{
	size_t i;
	json_t *choice;
	int rc = 0;

	json_array_foreach(choices, i, choice)
	{
		if (rc != 0 || json_integer_value(json_object_get(choice, "index")) != 0)
			continue;
		rc = take_delta(a, json_object_get(choice, "delta"));
		if (rc == 0)
			rc = take_finish(a, json_object_get(choice, "finish_reason"));
	}
	return rc;
}

static uint64_t
count_at(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	if (n > PROVIDER_TOKENS_MAX)
		return PROVIDER_TOKENS_MAX;
	return n > 0 ? (uint64_t)n : 0;
}

/* Cumulative where it comes more than once: the last one holds. */
static void
take_usage(struct openai_answer *a, const json_t *usage)
{
	const json_t *details = json_object_get(usage, "prompt_tokens_details");
	uint64_t cached = count_at(details, "cached_tokens");

	if (!json_is_object(usage))
		return;
	if (cached == 0)
		cached = count_at(usage, "prompt_cache_hit_tokens");
	a->has_usage = true;
	a->usage.input_tokens = count_at(usage, "prompt_tokens");
	a->usage.output_tokens = count_at(usage, "completion_tokens");
	a->usage.cached_tokens = cached < a->usage.input_tokens ? cached : a->usage.input_tokens;
}

static int
take_object(struct openai_answer *a, const json_t *root)
{
	const json_t *error = json_object_get(root, "error");

	if (error != NULL && !json_is_null(error))
		return take_error(a, error);
	take_usage(a, json_object_get(root, "usage"));
	take_usage(a, json_object_get(json_object_get(root, "x_groq"), "usage"));
	return take_choices(a, json_object_get(root, "choices"));
}

static int
on_event(void *arg, const struct sse_event *event)
{
	struct openai_answer *a = arg;
	struct str data = str_trim(event->data), text;

	if (a->is_done || data.len == 0)
		return 0;
	if (str_eq(data, STR("[DONE]"))) {
		a->is_done = a->has_finish;
		return a->has_finish ? 0 : openai_answer_end(a);
	}
	if (delta_read(data, &a->scratch, &text))
		return take_str(a, text, a->handlers.on_text);
	json_t *root = json_loadb(data.p, data.len, 0, NULL);
	int rc = json_is_object(root) ? take_object(a, root) : malformed(a);
	json_decref(root);
	return rc;
}

/* ---- the answer ---- */

struct openai_answer *
openai_answer_new(const struct openai_handlers *handlers, void *arg)
{
	struct openai_answer *a = xcalloc(1, sizeof(*a));

	a->handlers = *handlers;
	a->arg = arg;
	sse_parse_init(&a->sse, OPENAI_EVENT_BYTES_MAX, on_event, a);
	return a;
}

void
openai_answer_free(struct openai_answer **ap)
{
	struct openai_answer *a = *ap;

	if (a == NULL)
		return;
	*ap = NULL;
	for (uint32_t i = 0; i < a->call_count; i++) {
		buf_fini(&a->calls[i].id);
		buf_fini(&a->calls[i].name);
		buf_fini(&a->calls[i].arguments);
	}
	sse_parse_fini(&a->sse);
	buf_fini(&a->message);
	buf_fini(&a->scratch);
	free(a->calls);
	free(a->results);
	free(a);
}

int
openai_answer_feed(struct openai_answer *a, struct str bytes)
{
	int rc;

	if (a->has_failed)
		return answer_err(a);
	rc = sse_parse_feed(&a->sse, bytes);
	if (rc != 0 && !a->has_failed)
		answer_fail(a, FAILURE_MALFORMED, "An event of the model provider was too large.");
	return answer_err(a);
}

static const char *
text_or(struct buf *b, const char *otherwise)
{
	return b->len > 0 ? b->data : otherwise;
}

/* What was asked of tools is usable only if the model finished saying it. */
static int
settle_calls(struct openai_answer *a)
{
	if (a->finish == PROVIDER_FINISH_LENGTH || a->finish == PROVIDER_FINISH_CONTENT_FILTER)
		return 0;
	if (a->call_count == 0)
		return a->finish == PROVIDER_FINISH_TOOL_CALLS ? malformed(a) : 0;
	a->finish = PROVIDER_FINISH_TOOL_CALLS; /* some say "stop" */
	free(a->results);
	a->results = xcalloc(a->call_count, sizeof(a->results[0]));
	for (uint32_t i = 0; i < a->call_count; i++) {
		struct tool_call *c = &a->calls[i];

		if (c->name.len == 0)
			return malformed(a);
		a->results[i] = (struct provider_tool_call){
		    text_or(&c->id, ""), c->name.data, text_or(&c->arguments, "{}")};
	}
	return 0;
}

int
openai_answer_end(struct openai_answer *a)
{
	if (a->has_failed)
		return answer_err(a);
	if (!a->has_finish)
		return answer_fail(
		    a, FAILURE_CUT, "The model provider's answer ended before it was complete.");
	if (a->has_refusal && a->finish == PROVIDER_FINISH_STOP)
		a->finish = PROVIDER_FINISH_CONTENT_FILTER;
	return settle_calls(a);
}

bool
openai_answer_is_done(const struct openai_answer *a)
{
	return a->is_done;
}

bool
openai_answer_is_whole(const struct openai_answer *a)
{
	return a->has_finish && !a->has_failed;
}

enum failure
openai_answer_failure(const struct openai_answer *a)
{
	check(a->has_failed);
	return a->failure;
}

uint64_t
openai_answer_deltas(const struct openai_answer *a)
{
	return a->deltas;
}

const char *
openai_answer_message(const struct openai_answer *a)
{
	return a->message.len > 0 ? a->message.data : "";
}

void
openai_answer_result(const struct openai_answer *a, struct provider_result *ret)
{
	ret->finish = a->finish;
	ret->tool_calls = a->results;
	ret->tool_call_count = a->results != NULL ? a->call_count : 0;
	ret->usage = a->usage;
	if (!a->has_usage) {
		ret->usage.is_estimated = true;
		ret->usage.output_tokens = (a->answer_bytes + 3) / 4;
	}
}
