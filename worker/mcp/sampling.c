/* sampling - see sampling.h. */
#include "worker/mcp/sampling.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/mcp/jsonrpc.h"

enum { MAX_TOKENS_MAX = 1 << 20 };

static json_t *
read_image(const json_t *block)
{
	const char *data = json_string_value(json_object_get(block, "data"));
	const char *type = json_string_value(json_object_get(block, "mimeType"));

	if (data == NULL || type == NULL)
		return NULL;
	char *url = xasprintf("data:%s;base64,%s", type, data);
	json_t *part = json_pack("{s:s,s:{s:s}}", "type", "image_url", "image_url", "url", url);
	free(url);
	return part;
}

static json_t *
read_block(const json_t *block)
{
	const char *type = json_string_value(json_object_get(block, "type"));
	json_t *text = json_object_get(block, "text");

	if (type == NULL)
		return NULL;
	if (strcmp(type, "text") == 0 && json_is_string(text))
		return json_pack("{s:s,s:O}", "type", "text", "text", text);
	return strcmp(type, "image") == 0 ? read_image(block) : NULL;
}

/* One block or several. A text alone goes as a string, which every model takes. */
static json_t *
read_content(const json_t *content)
{
	json_t *parts = json_array(), *text = json_object_get(content, "text");
	size_t n = json_is_array(content) ? json_array_size(content) : 1;

	for (size_t i = 0; i < n; i++) {
		json_t *part =
		    read_block(json_is_array(content) ? json_array_get(content, i) : content);

		if (part == NULL) {
			json_decref(parts);
			return NULL;
		}
		json_array_append_new(parts, part);
	}
	if (!json_is_array(content) && json_is_string(text)) {
		json_decref(parts);
		return json_incref(text);
	}
	return parts;
}

static bool
add_message(json_t *messages, const json_t *m)
{
	const char *role = json_string_value(json_object_get(m, "role"));
	json_t *content = json_object_get(m, "content");

	if (role == NULL || content == NULL ||
	    (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0))
		return false;
	content = read_content(content);
	if (content == NULL)
		return false;
	json_array_append_new(messages, json_pack("{s:s,s:o}", "role", role, "content", content));
	return true;
}

json_t *
mcp_sampling_read(struct str params, uint32_t *ret_max_tokens)
{
	json_t *root = params.len > 0 ? json_loadb(params.p, params.len, 0, NULL) : NULL;
	const json_t *given = json_object_get(root, "messages");
	json_t *system = json_object_get(root, "systemPrompt"), *messages = json_array();
	json_int_t max = json_integer_value(json_object_get(root, "maxTokens"));
	bool is_good =
	    json_array_size(given) > 0 && json_array_size(json_object_get(root, "tools")) == 0;

	if (json_is_string(system))
		json_array_append_new(
		    messages, json_pack("{s:s,s:O}", "role", "system", "content", system));
	for (size_t i = 0; is_good && i < json_array_size(given); i++)
		is_good = add_message(messages, json_array_get(given, i));
	json_decref(root);
	if (!is_good) {
		json_decref(messages);
		return NULL;
	}
	*ret_max_tokens = max > 0 && max < MAX_TOKENS_MAX ? (uint32_t)max : 0;
	return messages;
}

void
mcp_sampling_add_result(struct buf *b, struct str text, const char *model, bool is_cut)
{
	buf_add_cstr(b, "{\"role\":\"assistant\",\"content\":{\"type\":\"text\",\"text\":");
	jsonrpc_add_string(b, text);
	buf_add_cstr(b, "},\"model\":");
	jsonrpc_add_string(b, str_of(model));
	buf_printf(b, ",\"stopReason\":\"%s\"}", is_cut ? "maxTokens" : "endTurn");
}
