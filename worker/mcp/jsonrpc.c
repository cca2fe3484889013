/* jsonrpc - see jsonrpc.h. */
#include "worker/mcp/jsonrpc.h"

#include <inttypes.h>

#include "common/check.h"
#include "worker/mcp/revision.h"

/* The members of a frame, each at most once. */
struct frame {
	struct str version, id, method, params, result, error;
};

static struct str *
place_of(struct frame *f, struct str key)
{
	const struct {
		struct str name;
		struct str *place;
	} known[] = {
	    {STR("jsonrpc"), &f->version},
	    {STR("id"), &f->id},
	    {STR("method"), &f->method},
	    {STR("params"), &f->params},
	    {STR("result"), &f->result},
	    {STR("error"), &f->error},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (str_eq(key, known[i].name))
			return known[i].place;
	}
	return NULL;
}

/* 0, or a code. A known key in escapes would be read by others: no such key is known here. */
static int
read_frame(struct str text, struct frame *f)
{
	struct json_scan s;
	struct str key, value;
	bool is_frame = true;
	int more;

	json_scan_init(&s, text);
	if (json_scan_peek(&s) != '{') {
		bool is_json = json_scan_skip(&s, NULL) && json_scan_end(&s);

		return is_json ? MCP_INVALID_REQUEST : MCP_PARSE_ERROR;
	}
	json_scan_object(&s);
	while ((more = json_scan_member(&s, &key)) == 1) {
		is_frame = is_frame && !s.has_escape;
		if (!json_scan_skip(&s, &value))
			return MCP_PARSE_ERROR;
		struct str *place = place_of(f, key);
		if (place == NULL)
			continue;
		is_frame = is_frame && place->p == NULL;
		*place = value;
	}
	if (more < 0 || !json_scan_end(&s) || (s.has_high && !str_is_utf8(text)))
		return MCP_PARSE_ERROR;
	return is_frame ? 0 : MCP_INVALID_REQUEST;
}

bool
jsonrpc_int(struct str text, int64_t *ret)
{
	bool is_negative = text.len > 0 && text.p[0] == '-';
	uint64_t n;

	if (!str_to_u64(str_sub(text.p + is_negative, text.len - is_negative), &n) || n > INT64_MAX)
		return false;
	*ret = is_negative ? -(int64_t)n : (int64_t)n;
	return true;
}

static bool
is_id(struct str id)
{
	int64_t n;

	return id.len > 0 && id.len <= JSONRPC_ID_MAX && (id.p[0] == '"' || jsonrpc_int(id, &n));
}

static bool
starts(struct str value, char c)
{
	return value.len > 0 && value.p[0] == c;
}

static bool
read_method(struct str text, char out[JSONRPC_METHOD_MAX + 1])
{
	struct buf decoded = BUF_INIT;
	bool is_good = text.len <= (size_t)JSONRPC_METHOD_MAX * 6 && /* each byte as an escape */
		       json_scan_decode(text, &decoded) && decoded.len > 0 &&
		       decoded.len <= JSONRPC_METHOD_MAX &&
		       memchr(decoded.data, '\0', decoded.len) == NULL;

	if (is_good)
		memcpy(out, decoded.data, decoded.len + 1);
	buf_fini(&decoded);
	return is_good;
}

static bool
read_call(const struct frame *f, struct jsonrpc *ret)
{
	if (f->result.p != NULL || f->error.p != NULL || !read_method(f->method, ret->method))
		return false;
	if (f->params.p != NULL && !starts(f->params, '[') &&
	    (!starts(f->params, '{') || !jsonrpc_is_clear(f->params)))
		return false;
	ret->kind = f->id.p != NULL ? JSONRPC_REQUEST : JSONRPC_NOTIFICATION;
	ret->params = f->params;
	return f->id.p == NULL || is_id(f->id);
}

static bool
read_answer(const struct frame *f, struct jsonrpc *ret)
{
	struct str code;

	if (f->params.p != NULL || (f->result.p != NULL) == (f->error.p != NULL))
		return false;
	if (f->result.p != NULL) {
		ret->kind = JSONRPC_RESULT;
		ret->result = f->result;
		return is_id(f->id);
	}
	ret->kind = JSONRPC_ERROR;
	if (!jsonrpc_member(f->error, "code", &code) || !jsonrpc_int(code, &ret->code))
		return false;
	if (jsonrpc_member(f->error, "message", &ret->message) && !starts(ret->message, '"'))
		return false;
	jsonrpc_member(f->error, "data", &ret->data);
	/* Who could not read the request cannot name it. */
	return f->id.p == NULL || str_eq(f->id, STR("null")) || is_id(f->id);
}

int
jsonrpc_parse(struct str text, struct jsonrpc *ret)
{
	struct frame f = {.version = STR_NONE};
	struct jsonrpc m = {.id = STR_NONE};
	int err = read_frame(text, &f);

	*ret = (struct jsonrpc){.id = is_id(f.id) && err != MCP_PARSE_ERROR ? f.id : STR_NONE};
	if (err != 0)
		return err;
	m.id = ret->id;
	if (!str_eq(f.version, STR("\"2.0\"")) ||
	    !(f.method.p != NULL ? read_call(&f, &m) : read_answer(&f, &m)))
		return MCP_INVALID_REQUEST;
	*ret = m;
	return 0;
}

/* ---- batches ---- */

bool
jsonrpc_is_batch(struct str text)
{
	struct json_scan s;

	json_scan_init(&s, text);
	return json_scan_peek(&s) == '[';
}

void
jsonrpc_batch_init(struct jsonrpc_batch *b, struct str text)
{
	b->count = 0;
	json_scan_init(&b->scan, text);
	json_scan_array(&b->scan);
}

int
jsonrpc_batch_next(struct jsonrpc_batch *b, struct str *ret)
{
	int more = json_scan_element(&b->scan);

	if (more == 0)
		return json_scan_end(&b->scan) ? 0 : -1;
	if (more < 0 || !json_scan_skip(&b->scan, ret) || ++b->count > JSONRPC_BATCH_MAX)
		return -1;
	return 1;
}

/* ---- within params and results ---- */

bool
jsonrpc_member(struct str object, const char *name, struct str *ret)
{
	struct str wanted = str_of(name), key, value;
	struct json_scan s;

	json_scan_init(&s, object);
	if (!json_scan_object(&s))
		return false;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (json_scan_key_is(key, wanted)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* Texts that follow each other, as json_scan_key_text() gives them; ends: where they end. */
static bool
has_before(const struct buf *texts, const size_t *ends, size_t count, struct str text)
{
	for (size_t i = 0, from = 0; i < count; from = ends[i++]) {
		if (str_ieq(str_sub(texts->data + from, ends[i] - from), text))
			return true;
	}
	return false;
}

bool
jsonrpc_is_clear(struct str object)
{
	size_t ends[JSONRPC_PARAMS_MAX], count = 0, from;
	struct buf texts = BUF_INIT;
	struct json_scan s;
	struct str key;
	bool is_clear = true;

	json_scan_init(&s, object);
	if (json_scan_peek(&s) != '{' || !json_scan_object(&s))
		return true;
	buf_reserve(&texts, 1); /* the first may be empty */
	while (is_clear && json_scan_member(&s, &key) == 1 && json_scan_skip(&s, NULL)) {
		from = texts.len;
		json_scan_key_text(key, &texts);
		is_clear =
		    count < JSONRPC_PARAMS_MAX &&
		    !has_before(&texts, ends, count, str_sub(texts.data + from, texts.len - from));
		if (is_clear)
			ends[count++] = texts.len;
	}
	buf_fini(&texts);
	return is_clear;
}

bool
jsonrpc_text_member(struct str object, const char *name, struct buf *out)
{
	struct str value;

	return jsonrpc_member(object, name, &value) && json_scan_decode(value, out);
}

bool
jsonrpc_int_member(struct str object, const char *name, int64_t *ret)
{
	struct str value;

	return jsonrpc_member(object, name, &value) && jsonrpc_int(value, ret);
}

bool
jsonrpc_bool_member(struct str object, const char *name, bool *ret)
{
	struct str value;

	if (!jsonrpc_member(object, name, &value) || (!starts(value, 't') && !starts(value, 'f')))
		return false;
	*ret = starts(value, 't');
	return true;
}

void
jsonrpc_without(struct buf *out, struct str object, const char *name)
{
	struct str unwanted = str_of(name), key, value;
	struct json_scan s;
	bool is_first = true;

	json_scan_init(&s, object);
	check(json_scan_object(&s));
	buf_add_char(out, '{');
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (json_scan_key_resembles(key, unwanted))
			continue;
		buf_add_cstr(out, is_first ? "\"" : ",\"");
		buf_add_str(out, key); /* as it was written */
		buf_add_cstr(out, "\":");
		buf_add_str(out, value);
		is_first = false;
	}
	buf_add_char(out, '}');
}

/* ---- writing ---- */

void
jsonrpc_add_string(struct buf *b, struct str plain)
{
	buf_add_char(b, '"');
	buf_add_json_escaped(b, plain);
	buf_add_char(b, '"');
}

static void
add_head(struct buf *b, struct str id)
{
	buf_add_cstr(b, "{\"jsonrpc\":\"2.0\",\"id\":");
	buf_add_str(b, id.len > 0 ? id : STR("null"));
}

static void
add_params(struct buf *b, struct str params)
{
	if (params.len > 0) {
		buf_add_cstr(b, ",\"params\":");
		buf_add_str(b, params);
	}
	buf_add_char(b, '}');
}

void
jsonrpc_add_request(struct buf *b, struct str id, const char *method, struct str params)
{
	check(id.len > 0);
	add_head(b, id);
	buf_add_cstr(b, ",\"method\":");
	jsonrpc_add_string(b, str_of(method));
	add_params(b, params);
}

void
jsonrpc_add_notification(struct buf *b, const char *method, struct str params)
{
	buf_add_cstr(b, "{\"jsonrpc\":\"2.0\",\"method\":");
	jsonrpc_add_string(b, str_of(method));
	add_params(b, params);
}

void
jsonrpc_add_result(struct buf *b, struct str id, struct str result)
{
	add_head(b, id);
	buf_add_cstr(b, ",\"result\":");
	buf_add_str(b, result);
	buf_add_char(b, '}');
}

void
jsonrpc_add_error(struct buf *b, struct str id, int64_t code, struct str message, struct str data)
{
	add_head(b, id);
	buf_printf(b, ",\"error\":{\"code\":%" PRId64 ",\"message\":", code);
	jsonrpc_add_string(b, message);
	if (data.len > 0) {
		buf_add_cstr(b, ",\"data\":");
		buf_add_str(b, data);
	}
	buf_add_cstr(b, "}}");
}

void
jsonrpc_add_error_as(struct buf *b, struct str id, const struct jsonrpc *error)
{
	add_head(b, id);
	buf_printf(b, ",\"error\":{\"code\":%" PRId64 ",\"message\":", error->code);
	buf_add_str(b, error->message.len > 0 ? error->message : STR("\"\""));
	if (error->data.len > 0) {
		buf_add_cstr(b, ",\"data\":");
		buf_add_str(b, error->data);
	}
	buf_add_cstr(b, "}}");
}

void
jsonrpc_flatten(struct buf *b, size_t from)
{
	char *end = b->data + b->len;

	for (char *p = b->data + from; from < b->len && p < end; p++) {
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	}
}
