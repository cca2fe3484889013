/* shapes - sessions, messages and lists for clients. */
#include "worker/api/shapes.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"

json_t *
shape_time(int64_t wall_ms)
{
	char text[CLOCK_RFC3339_LEN + 1];

	if (wall_ms == 0)
		return json_null();
	clock_format(wall_ms, text);
	return json_string(text);
}

json_t *
shape_text(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

json_t *
shape_stored(const char *json)
{
	const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
	json_t *value = json != NULL ? json_loads(json, flags, NULL) : NULL;

	/* jsonb writes 1e300 with all its digits: beyond 64 bits that is no integer to us. */
	if (value == NULL && json != NULL)
		value = json_loads(json, flags | JSON_DECODE_INT_AS_REAL, NULL);
	return value != NULL ? value : json_null();
}

const char *
shape_dump(struct arena *arena, const json_t *json)
{
	if (json == NULL)
		return NULL;
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	check(text != NULL);
	char *copy = arena_strdup(arena, str_of(text));
	free(text);
	return copy;
}

json_t *
shape_session(const struct store_session *s, bool with_system)
{
	json_t *json = json_pack("{s:s,s:s,s:o,s:s,s:o,s:o,s:o,s:o,s:o}", "id", s->id, "app_id",
	    s->app_id, "device_id", shape_text(s->device_id), "status", s->status, "model",
	    shape_text(s->model), "tools", shape_stored(s->tools_json), "metadata",
	    shape_stored(s->metadata_json), "created_at", shape_time(s->created_at),
	    "last_activity_at", shape_time(s->last_activity_at));

	check(json != NULL);
	if (with_system)
		json_object_set_new(json, "system", shape_text(s->system));
	return json;
}

json_t *
shape_message(const struct store_message *m)
{
	json_t *json = shape_stored(m->body_json);

	if (!json_is_object(json)) {
		json_decref(json);
		json = json_object();
	}
	json_object_set_new(json, "id", json_string(m->id));
	json_object_set_new(json, "turn_id", shape_text(m->turn_id));
	json_object_set_new(json, "role", json_string(m->role));
	json_object_set_new(json, "created_at", shape_time(m->created_at));
	if (m->is_partial)
		json_object_set_new(json, "partial", json_true());
	return json;
}

json_t *
shape_list(json_t *data, bool has_more)
{
	return json_pack("{s:o,s:b}", "data", data, "has_more", has_more);
}
