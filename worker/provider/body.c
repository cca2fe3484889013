/* body - see body.h. */
#include "worker/provider/body.h"

#include "common/check.h"
#include "common/err.h"
#include "common/json_scan.h"

struct reader {
	struct json_scan scan;
	struct body *body;
	struct buf key; /* decoded, where it was escaped */
	uint64_t tokens_max, choices;
	unsigned seen_limits; /* a bit for each of limits[] */
	const char *param, *why;
};

/* How much the model may say: chat, responses. */
static const char *const limits[] = {
    "max_tokens", "max_completion_tokens", "max_output_tokens", "n"};
enum { LIMIT_N = ARRAY_LEN(limits) - 1 };

static int
fault(struct reader *r, int err, const char *param, const char *why)
{
	r->param = param;
	r->why = why;
	return err;
}

static int
not_json(struct reader *r)
{
	if (r->scan.is_deep)
		return fault(r, E_INVALID_JSON, NULL, "The body is nested too deeply.");
	return fault(r, E_INVALID_JSON, NULL, "The body is not valid JSON.");
}

/* A key as it is meant: an escaped "mod\u0065l" is the model, too. */
static struct str
key_text(struct reader *r, struct str key)
{
	if (!r->scan.has_escape)
		return key;
	buf_clear(&r->key);
	json_scan_key_decode(key, &r->key);
	return buf_str(&r->key);
}

static int
take_mark(struct reader *r, enum body_mark mark, const char *param, struct str value)
{
	if (r->body->marks[mark].p != NULL)
		return fault(r, E_INVALID_REQUEST, param, "A field is given twice.");
	r->body->marks[mark] = value;
	return 0;
}

static int
take_options(struct reader *r)
{
	static const char name[] = "stream_options.include_usage";
	struct body *b = r->body;
	struct str key, value;
	int more;

	b->has_no_options = json_scan_peek(&r->scan) == 'n';
	if (json_scan_peek(&r->scan) != '{')
		return json_scan_skip(&r->scan, NULL) ? 0 : not_json(r);
	b->options_are_empty = true;
	json_scan_object(&r->scan);
	while ((more = json_scan_member(&r->scan, &key)) == 1) {
		b->options_are_empty = false;
		bool is_usage = str_eq(key_text(r, key), STR("include_usage"));
		if (!json_scan_skip(&r->scan, &value))
			return not_json(r);
		int rc = is_usage ? take_mark(r, BODY_INCLUDE_USAGE, name, value) : 0;
		if (!is_usage && json_scan_key_resembles(key, STR("include_usage")))
			rc = fault(r, E_INVALID_REQUEST, name, "A field's name is in lower case.");
		if (rc != 0)
			return rc;
	}
	b->wants_usage = str_eq(b->marks[BODY_INCLUDE_USAGE], STR("true"));
	return more == 0 ? 0 : not_json(r);
}

/* A provider that does not tell upper from lower case would read it where we have not. */
static int
check_spelling(struct reader *r, struct str key)
{
	static const char *const names[] = {"model", "stream", "stream_options"};

	for (size_t i = 0; i < ARRAY_LEN(names) + ARRAY_LEN(limits); i++) {
		const char *name = i < ARRAY_LEN(names) ? names[i] : limits[i - ARRAY_LEN(names)];

		if (json_scan_key_resembles(key, str_of(name)))
			return fault(
			    r, E_INVALID_REQUEST, name, "A field's name is in lower case.");
	}
	return 0;
}

static int
take_limit(struct reader *r, unsigned i, struct str value)
{
	uint64_t n = 0;

	if ((r->seen_limits & 1u << i) != 0)
		return fault(r, E_INVALID_REQUEST, limits[i], "A field is given twice.");
	r->seen_limits |= 1u << i;
	if (str_eq(value, STR("null")) || value.p[0] == '-') /* the provider refuses it */
		return 0;
	/* A provider may read more than we into 1e6, 128.0 and "100". */
	if (!str_to_u64(value, &n))
		return fault(r, E_INVALID_VALUE, limits[i], "This field must be a whole number.");
	if (i == LIMIT_N)
		r->choices = n;
	else if (n > r->tokens_max)
		r->tokens_max = n;
	return 0;
}

static int
take_stream(struct reader *r, struct str value)
{
	r->body->is_streamed = str_eq(value, STR("true"));
	if (!r->body->is_streamed && !str_eq(value, STR("false")) && !str_eq(value, STR("null")))
		return fault(r, E_INVALID_VALUE, "stream", "stream must be true or false.");
	return take_mark(r, BODY_STREAM, "stream", value);
}

static int
take_member(struct reader *r, struct str key)
{
	struct str name = key_text(r, key), value;
	const char *from;
	int rc = 0;

	if (str_eq(name, STR("stream_options"))) {
		json_scan_peek(&r->scan);
		from = r->scan.p;
		rc = take_options(r);
		value = str_sub(from, (size_t)(r->scan.p - from));
		return rc != 0 ? rc : take_mark(r, BODY_STREAM_OPTIONS, "stream_options", value);
	}
	bool is_model = str_eq(name, STR("model")), is_stream = str_eq(name, STR("stream"));
	unsigned limit = 0;
	while (limit < ARRAY_LEN(limits) && !str_eq(name, str_of(limits[limit])))
		limit++;
	if (!json_scan_skip(&r->scan, &value))
		return not_json(r);
	if (is_model)
		rc = take_mark(r, BODY_MODEL, "model", value);
	else if (is_stream)
		rc = take_stream(r, value);
	else if (limit < ARRAY_LEN(limits))
		rc = take_limit(r, limit, value);
	else
		rc = check_spelling(r, key);
	return rc;
}

static int
read_members(struct reader *r)
{
	struct body *b = r->body;
	struct str key;
	int more, rc;

	if (json_scan_peek(&r->scan) == '\0')
		return fault(r, E_INVALID_JSON, NULL, "A JSON body is required.");
	if (!json_scan_object(&r->scan))
		return fault(r, E_INVALID_JSON, NULL, "The body must be a JSON object.");
	b->inside = r->scan.p;
	while ((more = json_scan_member(&r->scan, &key)) == 1) {
		b->is_empty = false;
		if ((rc = take_member(r, key)) != 0)
			return rc;
	}
	if (more != 0 || !json_scan_end(&r->scan) || (r->scan.has_high && !str_is_utf8(b->text)))
		return not_json(r);
	return 0;
}

static int
read_model(struct reader *r, struct buf *model)
{
	struct str value = r->body->marks[BODY_MODEL];

	if (value.p == NULL || str_eq(value, STR("null")))
		return 0;
	if (value.len > BODY_MODEL_BYTES_MAX || !json_scan_decode(value, model))
		return fault(
		    r, E_INVALID_VALUE, "model", "model must be a string, and not so long.");
	return 0;
}

int
body_read(struct str text, struct body *b, struct buf *model, const char **ret_param,
    const char **ret_why)
{
	struct reader r = {.body = b, .key = BUF_INIT};

	*b = (struct body){.text = text, .is_empty = true, .has_no_options = true};
	json_scan_init(&r.scan, text);
	int rc = read_members(&r);
	if (rc == 0)
		rc = read_model(&r, model);
	buf_fini(&r.key);
	if (rc != 0) {
		*ret_param = r.param;
		*ret_why = r.why;
		return rc;
	}
	b->choices = r.choices > 1 ? r.choices : 1;
	b->output_tokens_max =
	    r.tokens_max > UINT32_MAX / b->choices ? UINT32_MAX : r.tokens_max * b->choices;
	return 0;
}

void
body_copy(struct body *b, const struct body *of, struct str copy)
{
	check(copy.len == of->text.len);
	*b = *of;
	b->text = copy;
	b->inside = copy.p + (of->inside - of->text.p);
	for (size_t i = 0; i < BODY_MARKS; i++) {
		if (of->marks[i].p != NULL)
			b->marks[i].p = copy.p + (of->marks[i].p - of->text.p);
	}
}

/* ---- writing ---- */

struct edit { /* bytes of the text at `at` are replaced */
	const char *at;
	size_t len;
	struct buf by;
};

static void
edit_model(const struct body *b, const char *model, struct edit *e)
{
	struct str value = b->marks[BODY_MODEL];

	*e = (struct edit){.at = value.p != NULL ? value.p : b->inside, .len = value.len};
	if (value.p == NULL)
		buf_add_cstr(&e->by, "\"model\":");
	buf_add_char(&e->by, '"');
	buf_add_json_escaped(&e->by, str_of(model));
	buf_add_char(&e->by, '"');
	if (value.p == NULL && !b->is_empty)
		buf_add_char(&e->by, ',');
}

/* Only of a body that has a member: "stream". */
static void
edit_usage(const struct body *b, struct edit *e)
{
	struct str options = b->marks[BODY_STREAM_OPTIONS], usage = b->marks[BODY_INCLUDE_USAGE];

	if (usage.p != NULL) {
		*e = (struct edit){.at = usage.p, .len = usage.len};
		buf_add_cstr(&e->by, "true");
	} else if (options.p != NULL && !b->has_no_options) {
		*e = (struct edit){.at = options.p + 1};
		buf_add_cstr(&e->by, "\"include_usage\":true");
		if (!b->options_are_empty)
			buf_add_char(&e->by, ',');
	} else if (options.p != NULL) {
		*e = (struct edit){.at = options.p, .len = options.len};
		buf_add_cstr(&e->by, "{\"include_usage\":true}");
	} else {
		struct str stream = b->marks[BODY_STREAM];

		*e = (struct edit){.at = stream.p + stream.len};
		buf_add_cstr(&e->by, ",\"stream_options\":{\"include_usage\":true}");
	}
}

void
body_write(const struct body *b, const char *model, bool asks_usage, struct buf *out)
{
	struct edit edits[2];
	size_t n = 0;
	const char *from = b->text.p, *end = b->text.p + b->text.len;

	edit_model(b, model, &edits[n++]);
	/* What is no object the provider refuses by itself. */
	if (asks_usage && b->is_streamed && !b->wants_usage &&
	    (b->has_no_options || *b->marks[BODY_STREAM_OPTIONS].p == '{'))
		edit_usage(b, &edits[n++]);
	if (n == 2 && edits[1].at < edits[0].at) {
		struct edit first = edits[1];

		edits[1] = edits[0];
		edits[0] = first;
	}
	buf_reserve(out, b->text.len + BODY_MODEL_BYTES_MAX);
	for (size_t i = 0; i < n; i++) {
		buf_add(out, from, (size_t)(edits[i].at - from));
		buf_add_str(out, buf_str(&edits[i].by));
		from = edits[i].at + edits[i].len;
		buf_fini(&edits[i].by);
	}
	buf_add(out, from, (size_t)(end - from));
}
