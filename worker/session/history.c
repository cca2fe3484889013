/* history - messages in units that must not be split, newest first into the budget. */
#include "worker/session/history.h"

#include <string.h>

#include "common/check.h"

/* Within a JSON text's strings the marks' quotes would have a backslash before them. */
bool
history_is_plain(struct str body)
{
	static const char calls[] = "\"tool_calls\":";

	return (str_starts(body, STR("{\"role\":\"user\",\"content\":")) ||
		   str_starts(body, STR("{\"role\":\"assistant\",\"content\":"))) &&
	       memmem(body.p, body.len, calls, sizeof(calls) - 1) == NULL;
}

uint64_t
history_tokens(size_t bytes)
{
	return ((uint64_t)bytes + 3) / 4;
}

static const char *
text_member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s != NULL ? s : "";
}

static bool
is_role(const struct history_message *m, const char *role)
{
	return strcmp(text_member(m->body, "role"), role) == 0;
}

static bool
calls_tools(const struct history_message *m)
{
	return is_role(m, "assistant") &&
	       json_array_size(json_object_get(m->body, "tool_calls")) > 0;
}

static bool
has_result(const struct history_message *results, size_t count, const char *call_id)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(text_member(results[i].body, "tool_call_id"), call_id) == 0)
			return true;
	return false;
}

/* Are all calls of the first message answered by the others? */
static bool
is_whole(const struct history_message *unit, size_t count)
{
	const json_t *calls = json_object_get(unit->body, "tool_calls");

	for (size_t i = 0; i < json_array_size(calls); i++)
		if (!has_result(unit + 1, count - 1, text_member(json_array_get(calls, i), "id")))
			return false;
	return true;
}

/* The messages from the start of the unit that ends before `end`. */
static size_t
unit_start(const struct history_message *m, size_t end)
{
	size_t start = end - 1;

	while (start > 0 && is_role(&m[start], "tool"))
		start--;
	return is_role(&m[end - 1], "tool") && !calls_tools(&m[start]) ? end - 1 : start;
}

static bool
is_usable(const struct history_message *unit, size_t count)
{
	return !is_role(unit, "tool") && is_whole(unit, count);
}

void
history_cut(struct history_message *m, size_t count, uint64_t budget_tokens, size_t system_bytes)
{
	uint64_t spent = history_tokens(system_bytes);
	bool is_full = false, is_first = true;

	for (size_t start, end = count; end > 0; end = start) {
		uint64_t cost = 0;

		start = unit_start(m, end);
		check(start < end);
		for (size_t i = start; i < end; i++)
			cost += history_tokens(m[i].bytes);
		bool is_kept = is_usable(m + start, end - start) && !is_full;
		if (is_kept && !is_first && budget_tokens > 0 && spent + cost > budget_tokens) {
			is_full = true;
			is_kept = false;
		}
		for (size_t i = start; i < end; i++)
			m[i].is_kept = is_kept;
		if (is_kept) {
			spent += cost;
			is_first = false;
		}
	}
}
