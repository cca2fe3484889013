/* result - see result.h. */
#include "worker/mcp/result.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"

enum { NAME_SHOWN_MAX = 200 };

struct reader {
	struct mcp_result *result;
	size_t left; /* bytes that images may still have */
	bool has_only_text;
};

static const char *
text_at(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s != NULL ? s : "";
}

static void
add_text(struct reader *r, const char *text)
{
	if (r->result->text.len > 0)
		buf_add_cstr(&r->result->text, "\n\n");
	buf_add_cstr(&r->result->text, text);
}

static void
add_line(struct reader *r, const char *what, const char *detail)
{
	struct buf line = BUF_INIT;

	buf_printf(&line, "[%s%s%.*s]", what, *detail != '\0' ? ": " : "", NAME_SHOWN_MAX, detail);
	add_text(r, line.data);
	buf_fini(&line);
	r->has_only_text = false;
}

static bool
is_media_type(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len < 100 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.+-") ==
		   len;
}

static void
add_image(struct reader *r, const json_t *part)
{
	const char *data = text_at(part, "data"), *type = text_at(part, "mimeType");
	struct buf url = BUF_INIT;

	if (!is_media_type(type) || *data == '\0' || strlen(data) > r->left) {
		add_line(r, "an image that cannot be shown", type);
		return;
	}
	r->left -= strlen(data);
	buf_printf(&url, "data:%s;base64,%s", type, data);
	if (r->result->images == NULL)
		r->result->images = json_array();
	json_array_append_new(r->result->images,
	    json_pack("{s:s,s:{s:s}}", "type", "image_url", "image_url", "url", url.data));
	buf_fini(&url);
	add_line(r, "image", type);
}

static void
add_resource(struct reader *r, const json_t *part)
{
	const json_t *resource = json_object_get(part, "resource");
	const char *text = text_at(resource, "text");

	r->has_only_text = false;
	if (*text != '\0')
		add_text(r, text);
	else
		add_line(r, "resource", text_at(resource, "uri"));
}

static void
add_part(struct reader *r, const json_t *part)
{
	const char *type = text_at(part, "type");

	if (strcmp(type, "text") == 0)
		add_text(r, text_at(part, "text"));
	else if (strcmp(type, "image") == 0)
		add_image(r, part);
	else if (strcmp(type, "resource") == 0)
		add_resource(r, part);
	else if (strcmp(type, "resource_link") == 0)
		add_line(r, "resource", text_at(part, "uri"));
	else
		add_line(r, *type != '\0' ? type : "unknown content", text_at(part, "mimeType"));
}

/* At the beginning of a character. */
static void
cut(struct buf *text, size_t bytes_max)
{
	size_t len = bytes_max;

	if (text->len <= bytes_max)
		return;
	while (len > 0 && ((unsigned char)text->data[len] & 0xc0) == 0x80)
		len--;
	text->len = len;
	text->data[len] = '\0';
	buf_add_cstr(text, "\n[cut: the result was larger than this]");
}

bool
mcp_result_read(struct str json, size_t bytes_max, struct mcp_result *ret)
{
	json_t *whole = json_loadb(json.p, json.len, 0, NULL);
	json_t *content = json_object_get(whole, "content");
	json_t *structured = json_object_get(whole, "structuredContent");
	struct reader r = {.result = ret, .left = bytes_max, .has_only_text = true};
	size_t i;
	json_t *part;

	if (!json_is_object(whole) || (!json_is_array(content) && structured == NULL)) {
		json_decref(whole);
		return false;
	}
	*ret = (struct mcp_result){.is_error = json_is_true(json_object_get(whole, "isError"))};
	json_array_foreach(content, i, part) add_part(&r, part);
	if (ret->text.len == 0 && structured != NULL) {
		char *text = json_dumps(structured, JSON_COMPACT | JSON_ENCODE_ANY);

		buf_add_cstr(&ret->text, text);
		free(text);
	}
	bool fits = json.len <= bytes_max;
	cut(&ret->text, bytes_max);
	if (structured != NULL && fits)
		ret->output = json_incref(structured);
	else if (r.has_only_text || !fits)
		ret->output = json_stringn(ret->text.len > 0 ? ret->text.data : "", ret->text.len);
	else
		ret->output = json_incref(content);
	json_decref(whole);
	return true;
}

void
mcp_result_fini(struct mcp_result *r)
{
	buf_fini(&r->text);
	json_decref(r->output);
	json_decref(r->images);
}
