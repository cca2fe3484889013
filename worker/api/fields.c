/* fields - the readers of bodies and queries. */
#include "worker/api/fields.h"

#include "common/check.h"

enum { TOOL_NAME_MAX = 64, MODEL_NAME_MAX = 256 };

bool
fields_body(struct api_call *call, struct http_req *req, bool is_required)
{
	if (!is_required && http_body(req).len == 0) {
		call->body = json_object();
		return true;
	}
	json_t *json = http_json(req, true);
	if (json == NULL) { /* http_json() has answered */
		call_end(call);
		return false;
	}
	if (!json_is_object(json)) {
		call_reply_error(call, E_INVALID_REQUEST, NULL, "The body must be a JSON object.");
		return false;
	}
	call->body = json_incref(json);
	return true;
}

/* Absent and null are the same: NULL. */
static const json_t *
get(const struct api_call *call, const char *name)
{
	const json_t *value = json_object_get(call->body, name);

	return json_is_null(value) ? NULL : value;
}

static bool
refuse(struct api_call *call, const char *name, const char *must)
{
	call_reply_error(
	    call, E_INVALID_VALUE, name, arena_printf(&call->arena, "%s %s.", name, must));
	return false;
}

bool
field_text(struct api_call *call, const char *name, size_t bytes_max, const char **ret)
{
	const json_t *value = get(call, name);

	if (value == NULL)
		return true;
	if (!json_is_string(value))
		return refuse(call, name, "must be a string");
	if (json_string_length(value) == 0 || json_string_length(value) > bytes_max ||
	    strlen(json_string_value(value)) != json_string_length(value))
		return refuse(call, name,
		    arena_printf(
			&call->arena, "must have 1 to %zu bytes, none of them NUL", bytes_max));
	*ret = json_string_value(value);
	return true;
}

bool
field_bool(struct api_call *call, const char *name, bool *ret)
{
	const json_t *value = get(call, name);

	if (value == NULL)
		return true;
	if (!json_is_boolean(value))
		return refuse(call, name, "must be true or false");
	*ret = json_is_true(value);
	return true;
}

bool
field_json(struct api_call *call, const char *name, json_type type, const json_t **ret)
{
	const json_t *value = get(call, name);

	if (value == NULL)
		return true;
	if (json_typeof(value) != type)
		return refuse(
		    call, name, type == JSON_OBJECT ? "must be an object" : "must be an array");
	*ret = value;
	return true;
}

static bool
in_range(struct api_call *call, const char *name, uint64_t n, uint64_t min, uint64_t max)
{
	if (n >= min && n <= max)
		return true;
	return refuse(call, name,
	    arena_printf(&call->arena, "must be a number from %llu to %llu",
		(unsigned long long)min, (unsigned long long)max));
}

bool
field_count(struct api_call *call, const char *name, uint64_t min, uint64_t max, uint64_t *ret)
{
	const json_t *value = get(call, name);
	uint64_t n = UINT64_MAX;

	if (value == NULL)
		return true;
	if (json_is_integer(value) && json_integer_value(value) >= 0)
		n = (uint64_t)json_integer_value(value);
	if (!in_range(call, name, n, min, max))
		return false;
	*ret = n;
	return true;
}

bool
query_count(struct api_call *call, struct http_req *req, const char *name, uint64_t min,
    uint64_t max, uint64_t *ret)
{
	const char *text = http_query(req, name);
	uint64_t n = UINT64_MAX;

	if (text == NULL)
		return true;
	str_to_u64(str_of(text), &n);
	if (!in_range(call, name, n, min, max))
		return false;
	*ret = n;
	return true;
}

/* OpenAI's rule for function names. */
static bool
is_tool_name(const char *name)
{
	size_t len = name != NULL ? strlen(name) : 0;

	return len > 0 && len <= TOOL_NAME_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
		   len;
}

static const char *
tool_name(const json_t *tool)
{
	return json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
}

static bool
is_tool(const json_t *tool)
{
	const char *type = json_string_value(json_object_get(tool, "type"));

	return type != NULL && strcmp(type, "function") == 0 && is_tool_name(tool_name(tool));
}

bool
field_tools(struct api_call *call, const json_t **ret)
{
	const json_t *tools = NULL;

	if (!field_json(call, "tools", JSON_ARRAY, &tools))
		return false;
	if (tools == NULL)
		return true;
	size_t max = (size_t)call->api->conf->tools.max_tools;
	if (max > 0 && json_array_size(tools) > max)
		return refuse(call, "tools",
		    arena_printf(&call->arena, "must have at most %zu entries", max));
	for (size_t i = 0; i < json_array_size(tools); i++) {
		const json_t *tool = json_array_get(tools, i);

		if (!is_tool(tool))
			return refuse(call, "tools",
			    "must be [{\"type\":\"function\",\"function\":{\"name\":..}}] with "
			    "names "
			    "of 1 to 64 letters, digits, _ and -");
		for (size_t k = 0; k < i; k++) {
			if (strcmp(tool_name(json_array_get(tools, k)), tool_name(tool)) == 0)
				return refuse(call, "tools", "must have unique names");
		}
	}
	*ret = tools;
	return true;
}

bool
field_model(struct api_call *call, const char **ret)
{
	const char *model = NULL;

	if (!field_text(call, "model", MODEL_NAME_MAX, &model))
		return false;
	if (model != NULL && !providers_know_model(call->api->providers, model))
		return refuse(call, "model", "is not a model of this server");
	if (model != NULL)
		*ret = model;
	return true;
}

bool
field_may_choose(struct api_call *call, const char *what)
{
	if (call->kind != KEY_CLIENT || get(call, what) == NULL)
		return true;
	for (size_t i = 0; call->app != NULL && i < call->app->client_may.n; i++) {
		if (strcmp(call->app->client_may.v[i], what) == 0)
			return true;
	}
	call_reply_error(call, E_FORBIDDEN, what, "This app's clients may not choose that.");
	return false;
}
