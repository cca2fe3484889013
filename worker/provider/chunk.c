/*
 * chunk - see chunk.h. One function for each kind of object, by the names of its
 * members; all share one walk over the text.
 */
#include "worker/provider/chunk.h"

#include "common/json_scan.h"

struct walk {
	struct json_scan scan;
	struct chunk *chunk;
	struct provider_usage usage; /* of the usage object that is being read */
	uint64_t index;              /* of the choice that is being read */
	bool has_finish;             /* it has */
};

static bool
is(struct str key, struct str name)
{
	return str_eq(key, name);
}

/* Calls `take` for each member of the object that follows, which reads or skips its value. Anything
 * else is skipped. False: it is not JSON. */
static bool
walk_members(struct walk *w, bool (*take)(struct walk *, struct str key))
{
	struct str key;
	int more;

	if (json_scan_peek(&w->scan) != '{')
		return json_scan_skip(&w->scan, NULL);
	json_scan_object(&w->scan);
	while ((more = json_scan_member(&w->scan, &key)) == 1) {
		if (!take(w, key))
			return false;
	}
	return more == 0;
}

/* ---- usage ---- */

static bool
take_count(struct walk *w, uint64_t *ret)
{
	struct str value;

	if (!json_scan_skip(&w->scan, &value))
		return false;
	if (str_to_u64(value, ret) && *ret > PROVIDER_TOKENS_MAX)
		*ret = PROVIDER_TOKENS_MAX;
	return true;
}

static bool
walk_detail(struct walk *w, struct str key)
{
	return is(key, STR("cached_tokens")) ? take_count(w, &w->usage.cached_tokens)
					     : json_scan_skip(&w->scan, NULL);
}

static bool
walk_usage_member(struct walk *w, struct str key)
{
	if (is(key, STR("prompt_tokens")) || is(key, STR("input_tokens")))
		return take_count(w, &w->usage.input_tokens);
	if (is(key, STR("completion_tokens")) || is(key, STR("output_tokens")))
		return take_count(w, &w->usage.output_tokens);
	if (is(key, STR("prompt_tokens_details")) || is(key, STR("input_tokens_details")))
		return walk_members(w, walk_detail);
	if (is(key, STR("prompt_cache_hit_tokens")))
		return take_count(w, &w->usage.cached_tokens);
	return json_scan_skip(&w->scan, NULL);
}

static bool
walk_usage(struct walk *w)
{
	struct provider_usage *u = &w->usage;

	if (json_scan_peek(&w->scan) != '{')
		return json_scan_skip(&w->scan, NULL);
	*u = (struct provider_usage){0};
	if (!walk_members(w, walk_usage_member))
		return false;
	if (u->cached_tokens > u->input_tokens)
		u->cached_tokens = u->input_tokens;
	/* Cumulative where it comes more than once: the last one holds. */
	w->chunk->has_usage = true;
	w->chunk->usage = *u;
	return true;
}

/* {"usage":{}} inside of something: x_groq, response. */
static bool
walk_holder_member(struct walk *w, struct str key)
{
	return is(key, STR("usage")) ? walk_usage(w) : json_scan_skip(&w->scan, NULL);
}

/* ---- what the model said ---- */

/* Counts the bytes of all texts in it, keys left out. */
static bool
count_texts(struct walk *w)
{
	struct str key, value;
	unsigned base = w->scan.depth;
	bool is_object[JSON_SCAN_DEPTH_MAX + 1] = {false};
	char c;
	int more;

	do {
		c = json_scan_peek(&w->scan);
		if (c == '{' || c == '[') {
			if (!(c == '{' ? json_scan_object(&w->scan) : json_scan_array(&w->scan)))
				return false;
			is_object[w->scan.depth] = c == '{';
		} else {
			if (!json_scan_skip(&w->scan, &value))
				return false;
			if (c == '"')
				w->chunk->output_bytes += value.len - 2;
		}
		more = 0;
		while (w->scan.depth > base && more == 0) {
			more = is_object[w->scan.depth] ? json_scan_member(&w->scan, &key)
							: json_scan_element(&w->scan);
			if (more < 0)
				return false;
		}
	} while (w->scan.depth > base);
	return true;
}

static bool
walk_delta_member(struct walk *w, struct str key)
{
	static const struct str texts[] = {{"content", 7}, {"tool_calls", 10},
	    {"reasoning_content", 17}, {"reasoning", 9}, {"refusal", 7}, {"function_call", 13}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (is(key, texts[i]))
			return count_texts(w);
	}
	return json_scan_skip(&w->scan, NULL);
}

static bool
walk_finish(struct walk *w)
{
	struct str reason;

	if (!json_scan_skip(&w->scan, &reason))
		return false;
	if (reason.p[0] != '"' || reason.len == 2)
		return true;
	w->has_finish = w->chunk->has_finish = true;
	w->chunk->is_broken_off |=
	    is(reason, STR("\"error\"")) || is(reason, STR("\"insufficient_system_resource\""));
	return true;
}

static bool
walk_choice_member(struct walk *w, struct str key)
{
	if (is(key, STR("delta")) || is(key, STR("message")))
		return walk_members(w, walk_delta_member);
	if (is(key, STR("finish_reason")))
		return walk_finish(w);
	if (is(key, STR("index")))
		return take_count(w, &w->index);
	return json_scan_skip(&w->scan, NULL);
}

static bool
walk_choices(struct walk *w)
{
	int more;

	if (json_scan_peek(&w->scan) != '[')
		return json_scan_skip(&w->scan, NULL);
	json_scan_array(&w->scan);
	while ((more = json_scan_element(&w->scan)) == 1) {
		w->chunk->has_choices = true;
		w->index = 0;
		w->has_finish = false;
		if (!walk_members(w, walk_choice_member))
			return false;
		if (w->has_finish)
			w->chunk->finished |= UINT64_C(1) << (w->index < 63 ? w->index : 63);
	}
	return more == 0;
}

/* ---- the whole ---- */

static bool
walk_error(struct walk *w)
{
	struct str value;

	if (!json_scan_skip(&w->scan, &value))
		return false;
	if (!is(value, STR("null"))) {
		w->chunk->has_error = true;
		w->chunk->error = value;
	}
	return true;
}

static bool
walk_type(struct walk *w)
{
	struct str value;

	if (!json_scan_skip(&w->scan, &value))
		return false;
	if (value.p[0] == '"')
		w->chunk->type = str_sub(value.p + 1, value.len - 2);
	return true;
}

static bool
walk_member(struct walk *w, struct str key)
{
	if (is(key, STR("choices")))
		return walk_choices(w);
	if (is(key, STR("usage")))
		return walk_usage(w);
	if (is(key, STR("error")))
		return walk_error(w);
	if (is(key, STR("type")))
		return walk_type(w);
	if (is(key, STR("x_groq")) || is(key, STR("response")))
		return walk_members(w, walk_holder_member);
	if (is(key, STR("delta")) || is(key, STR("output"))) /* of /responses */
		return count_texts(w);
	return json_scan_skip(&w->scan, NULL);
}

bool
chunk_read(struct str json, struct chunk *ret)
{
	struct walk w = {.chunk = ret};
	struct str key;

	*ret = (struct chunk){0};
	json_scan_init(&w.scan, json);
	if (json_scan_peek(&w.scan) != '{' || !json_scan_object(&w.scan))
		return false;
	while (json_scan_member(&w.scan, &key) == 1) {
		if (!walk_member(&w, key))
			return false;
	}
	return json_scan_end(&w.scan) && (!w.scan.has_high || str_is_utf8(json));
}

bool
chunk_read_usage(struct str json, struct provider_usage *ret)
{
	struct chunk c = {0};
	struct walk w = {.chunk = &c};

	json_scan_init(&w.scan, json);
	if (json_scan_peek(&w.scan) != '{' || !walk_usage(&w) || !json_scan_end(&w.scan))
		return false;
	*ret = c.usage;
	return true;
}
