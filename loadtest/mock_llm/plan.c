/* plan - reading directives. */
#include "loadtest/mock_llm/plan.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"

static const struct {
	const char *text;
} faults[] = {
    [FAULT_NONE] = {"none"},
#define X(name, text_, help) [name] = {text_},
#include "loadtest/mock_llm/faults.tbl"
#undef X
};

const char *
fault_name(enum fault f)
{
	return faults[f].text;
}

void
plan_init(struct plan *p)
{
	*p = (struct plan){.fault_after = 2, .fault_size = 2 << 20, .hops = 1};
}

void
plan_fini(struct plan *p)
{
	for (uint32_t i = 0; i < p->tool_count; i++) {
		free(p->tools[i].name);
		free(p->tools[i].args);
	}
	free(p->fault_key);
	free(p->retry_after);
	free(p->fault_message);
	free(p->text);
	free(p->finish);
	plan_init(p);
}

static char *
dup_or_null(const char *s)
{
	return s != NULL ? xstrdup(s) : NULL;
}

void
plan_copy(struct plan *dst, const struct plan *src)
{
	*dst = *src;
	for (uint32_t i = 0; i < src->tool_count; i++) {
		dst->tools[i].name = xstrdup(src->tools[i].name);
		dst->tools[i].args = xstrdup(src->tools[i].args);
	}
	dst->fault_key = dup_or_null(src->fault_key);
	dst->retry_after = dup_or_null(src->retry_after);
	dst->fault_message = dup_or_null(src->fault_message);
	dst->text = dup_or_null(src->text);
	dst->finish = dup_or_null(src->finish);
}

/* ---- one key and its value ---- */

static void
set_text(char **at, struct str value)
{
	free(*at);
	*at = xstrndup(value.len > 0 ? value.p : "", value.len);
}

static bool
set_number(uint32_t *at, struct str value)
{
	uint64_t n;

	if (!str_to_u64(value, &n) || n > UINT32_MAX)
		return false;
	*at = (uint32_t)n;
	return true;
}

static bool
set_fault(struct plan *p, struct str value)
{
	struct str argument = value, name = str_split(&argument, ':');

	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		if (!str_eq(name, str_of(faults[i].text)))
			continue;
		p->fault = (enum fault)i;
		if (p->fault == FAULT_STATUS)
			return set_number(&p->fault_status, argument) && p->fault_status >= 200 &&
			       p->fault_status <= 999;
		return argument.len == 0 || set_number(&p->fault_after, argument);
	}
	return false;
}

static bool
set_tool(struct plan *p, struct str value)
{
	if (p->tool_count == PLAN_TOOLS_MAX || value.len == 0)
		return false;
	p->tools[p->tool_count++] = (struct plan_tool){xstrndup(value.p, value.len), xstrdup("{}")};
	return true;
}

static bool
set_args(struct plan *p, struct str value)
{
	if (p->tool_count == 0)
		return false;
	set_text(&p->tools[p->tool_count - 1].args, value);
	return true;
}

static bool
plan_set(struct plan *p, struct str key, struct str value)
{
	if (str_eq(key, STR("tokens")))
		return p->has_tokens = set_number(&p->tokens, value);
	if (str_eq(key, STR("interval")))
		return set_number(&p->interval_ms, value);
	if (str_eq(key, STR("first")))
		return p->has_first = set_number(&p->first_ms, value);
	if (str_eq(key, STR("burst")))
		return set_number(&p->burst, value);
	if (str_eq(key, STR("stamped")))
		return p->is_stamped = true;
	if (str_eq(key, STR("fault")))
		return set_fault(p, value);
	if (str_eq(key, STR("after")))
		return set_number(&p->fault_after, value);
	if (str_eq(key, STR("size")))
		return set_number(&p->fault_size, value);
	if (str_eq(key, STR("hop")))
		return p->has_fault_hop = set_number(&p->fault_hop, value);
	if (str_eq(key, STR("times")))
		return set_number(&p->fault_times, value);
	if (str_eq(key, STR("key")))
		return set_text(&p->fault_key, value), true;
	if (str_eq(key, STR("retry_after")))
		return set_text(&p->retry_after, value), true;
	if (str_eq(key, STR("message")))
		return set_text(&p->fault_message, value), true;
	if (str_eq(key, STR("tool")))
		return set_tool(p, value);
	if (str_eq(key, STR("args")))
		return set_args(p, value);
	if (str_eq(key, STR("hops")) && str_eq(value, STR("endless")))
		return p->hops = PLAN_HOPS_ENDLESS, true;
	if (str_eq(key, STR("hops")))
		return set_number(&p->hops, value);
	if (str_eq(key, STR("text")))
		return set_text(&p->text, value), true;
	if (str_eq(key, STR("finish")))
		return set_text(&p->finish, value), true;
	if (str_eq(key, STR("reasoning")))
		return set_number(&p->reasoning, value);
	if (str_eq(key, STR("cached")))
		return set_number(&p->cached, value);
	if (str_eq(key, STR("no_usage")))
		return p->hides_usage = true;
	if (str_eq(key, STR("refusal")))
		return p->refuses = true;
	return false;
}

/* ---- lists of them ---- */

static bool
is_separator(char c)
{
	return isspace((unsigned char)c) || c == ',';
}

static void
skip(struct str *s, size_t n)
{
	s->p += n;
	s->len -= n;
}

/* A JSON object, array or string at the start of *rest; a string is given decoded. */
static bool
take_json(struct str *rest, struct buf *decoded, struct str *ret)
{
	json_error_t error;
	json_t *j =
	    json_loadb(rest->p, rest->len, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &error);

	if (j == NULL)
		return false;
	*ret = str_sub(rest->p, (size_t)error.position);
	if (json_is_string(j)) {
		buf_clear(decoded);
		buf_add(decoded, json_string_value(j), json_string_length(j));
		*ret = buf_str(decoded);
	}
	skip(rest, (size_t)error.position);
	json_decref(j);
	return true;
}

static struct str
take_word(struct str *rest, const char *stops)
{
	const char *from = rest->p;

	while (rest->len > 0 && !is_separator(*rest->p) && strchr(stops, *rest->p) == NULL)
		skip(rest, 1);
	return str_sub(from, (size_t)(rest->p - from));
}

/* Items up to the end of *rest, or up to "]]" in brackets, which is taken. */
static bool
parse_items(struct plan *p, struct str *rest, bool is_bracketed, const char **ret_error)
{
	struct buf decoded = BUF_INIT;
	bool ok = true;

	*ret_error = "mock: not understood";
	for (;;) {
		while (rest->len > 0 && is_separator(*rest->p))
			skip(rest, 1);
		if (rest->len == 0) {
			ok = !is_bracketed;
			break;
		}
		if (is_bracketed && str_starts(*rest, STR("]]"))) {
			skip(rest, 2);
			break;
		}
		struct str value = STR_NONE;
		struct str key = take_word(rest, is_bracketed ? "=]" : "=");
		if (key.len == 0) {
			ok = false;
			break;
		}
		if (rest->len > 0 && *rest->p == '=') {
			skip(rest, 1);
			if (rest->len > 0 && strchr("{[\"", *rest->p) != NULL)
				ok = take_json(rest, &decoded, &value);
			else
				value = take_word(rest, is_bracketed ? "]" : "");
		}
		ok = ok && plan_set(p, key, value);
		if (!ok)
			break;
	}
	buf_fini(&decoded);
	return ok;
}

bool
plan_parse(struct plan *p, struct str text, const char **ret_error)
{
	return parse_items(p, &text, false, ret_error);
}

void
plan_parse_model(struct plan *p, struct str model)
{
	struct str rest = model;

	if (!str_eq(str_split(&rest, '-'), STR("mock")))
		return;
	while (rest.len > 0) {
		struct str key = str_split(&rest, '-');

		plan_set(p, key, str_split(&rest, '-'));
	}
}

bool
plan_parse_message(struct plan *p, struct str text, struct buf *plain, const char **ret_error)
{
	static const char opening[] = "[[mock";

	while (text.len > 0) {
		const char *at = memmem(text.p, text.len, opening, sizeof(opening) - 1);
		size_t before = at != NULL ? (size_t)(at - text.p) : text.len;

		buf_add_str(plain, str_trim(str_sub(text.p, before)));
		skip(&text, before);
		if (at == NULL)
			break;
		skip(&text, sizeof(opening) - 1);
		if (!parse_items(p, &text, true, ret_error))
			return false;
	}
	return true;
}
