/* call - a map from our ids to calls, and the one answer that each gets. */
#include "worker/tool/call.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "common/region.h"
#include "common/strmap.h"

/* Far from what the parser takes: the arguments are shown inside of other JSON, which must be read
 * again. */
enum { ARGUMENTS_DEPTH_MAX = 256 };

struct tool_calls {
	struct strmap *by_id;
};

struct tool_calls *
tool_calls_new(void)
{
	struct tool_calls *c = xcalloc(1, sizeof(*c));

	c->by_id = strmap_new();
	return c;
}

void
tool_calls_free(struct tool_calls **c)
{
	if (*c == NULL)
		return;
	check(strmap_count((*c)->by_id) == 0);
	strmap_free(&(*c)->by_id);
	free(*c);
	*c = NULL;
}

/* The brackets that are open at once, in a text that is JSON. */
static size_t
depth_of(const char *text)
{
	size_t depth = 0, deepest = 0;
	bool in_string = false;

	for (const char *p = text; *p != '\0'; p++) {
		if (in_string && *p == '\\')
			p++;
		else if (*p == '"')
			in_string = !in_string;
		else if (!in_string && (*p == '[' || *p == '{'))
			deepest = ++depth > deepest ? depth : deepest;
		else if (!in_string && (*p == ']' || *p == '}'))
			depth--;
	}
	return deepest;
}

/* Arguments are an object; a model that means none writes nothing. */
static json_t *
parse_arguments(const char *text)
{
	json_t *v = json_loads(*text != '\0' ? text : "{}", JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(v) || depth_of(text) > ARGUMENTS_DEPTH_MAX) {
		json_decref(v);
		return NULL;
	}
	return v;
}

struct tool_call *
tool_call_new(struct tool_calls *calls, const struct tool_call_asked *asked)
{
	struct tool_call *c = xcalloc(1, sizeof(*c));

	c->id = id_new("call");
	c->session_id = *asked->session_id;
	c->turn = asked->turn;
	c->hop = asked->hop;
	c->wire_id = xstrdup(*asked->wire_id != '\0' ? asked->wire_id : c->id.s);
	c->name = xstrdup(asked->name);
	c->text = xstrdup(asked->arguments);
	c->arguments = parse_arguments(asked->arguments);
	c->started_ms = asked->now_ms;
	check(strmap_set(calls->by_id, id_str(&c->id), c) == NULL);
	region_entries(REGION_TOOLS, strmap_count(calls->by_id));
	return c;
}

void
tool_call_free(struct tool_calls *calls, struct tool_call **call)
{
	struct tool_call *c = *call;

	if (c == NULL)
		return;
	check(strmap_del(calls->by_id, id_str(&c->id)) == c);
	region_entries(REGION_TOOLS, strmap_count(calls->by_id));
	json_decref(c->arguments);
	free(c->wire_id);
	free(c->name);
	free(c->text);
	free(c->content);
	json_decref(c->images);
	free(c);
	*call = NULL;
}

struct tool_call *
tool_call_find(struct tool_calls *calls, const struct id *session_id, const struct id *call_id)
{
	struct tool_call *c = strmap_get(calls->by_id, id_str(call_id));

	if (c == NULL || !c->is_told || c->run_by != TOOL_BY_CLIENT)
		return NULL;
	return str_eq(id_str(&c->session_id), id_str(session_id)) ? c : NULL;
}

/* Texts go to the model as they are, everything else as JSON. */
static char *
content_of(const json_t *output, const char *error)
{
	if (error == NULL && json_is_string(output))
		return xstrndup(json_string_value(output), json_string_length(output));
	json_t *wrapped = error != NULL ? json_pack("{s:s}", "error", error) : NULL;
	const json_t *v = error != NULL ? wrapped : output;
	char *s = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);

	check(s != NULL);
	json_decref(wrapped);
	return s;
}

/* Equal values give equal hashes, in whatever order their members stand. */
static void
hash_of(const json_t *output, const char *error, uint8_t out[SHA256_LEN])
{
	json_t *whole = error != NULL ? json_pack("{s:s}", "error", error)
				      : json_pack("{s:O}", "output", (json_t *)output);
	char *s = json_dumps(whole, JSON_COMPACT | JSON_SORT_KEYS);

	check(s != NULL);
	crypto_sha256(str_of(s), out);
	free(s);
	json_decref(whole);
}

int
tool_call_answer(struct tool_call *c, const json_t *output, const char *error, bool *ret_is_same)
{
	uint8_t hash[SHA256_LEN];

	check(output != NULL || error != NULL);
	hash_of(output, error, hash);
	if (c->state != TOOL_PENDING) {
		*ret_is_same = c->state == TOOL_ANSWERED && memcmp(hash, c->hash, SHA256_LEN) == 0;
		return E_ALREADY_ANSWERED;
	}
	c->state = TOOL_ANSWERED;
	c->is_error = error != NULL;
	c->content = content_of(output, error);
	memcpy(c->hash, hash, SHA256_LEN);
	return 0;
}

void
tool_call_tell(struct tool_call *c, struct str content, json_t *images)
{
	check(c->state == TOOL_ANSWERED);
	free(c->content);
	c->content = xstrndup(content.p != NULL ? content.p : "", content.len);
	json_decref(c->images);
	c->images = json_incref(images);
}

void
tool_call_fail(struct tool_call *c, const char *error)
{
	check(c->state == TOOL_PENDING);
	c->state = TOOL_FAILED;
	c->is_error = true;
	c->content = content_of(NULL, error);
}

json_t *
tool_call_describe(const struct tool_call *c)
{
	json_t *v = json_pack("{s:s, s:s, s:s}", "tool_call_id", c->id.s, "name", c->name, "run_by",
	    c->run_by == TOOL_BY_CLIENT ? "client" : "server");

	check(v != NULL);
	json_object_set(v, "arguments", c->arguments != NULL ? c->arguments : json_null());
	return v;
}

bool
tool_is_listed(const json_t *tools, const char *name)
{
	for (size_t i = 0; i < json_array_size(tools); i++) {
		const json_t *f = json_object_get(json_array_get(tools, i), "function");
		const char *listed = json_string_value(json_object_get(f, "name"));

		if (listed != NULL && strcmp(listed, name) == 0)
			return true;
	}
	return false;
}
