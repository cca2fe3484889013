/*
 * conf_sample - the commented sample file and the reference, from the table and
 * the demo setup. The sample loads to exactly the defaults.
 */
#include "common/check.h"
#include "common/conf_load.h"
#include "common/conf_spec.h"
#include "common/conf_yaml.h"

enum { WIDTH = 96 };

/* Further elements, commented out behind those of the demo setup. */
static const struct {
	const char *list, *element;
} examples[] = {
    {"providers", "- name: openai\n"
		  "  base_url: \"https://api.openai.com/v1\"\n"
		  "  api_key: \"${OPENAI_API_KEY}\"\n"},
    {"models", "- name: smart\n"
	       "  targets:\n"
	       "    - {provider: openai, model: gpt-4o, context: 128000}\n"
	       "    - {provider: mock, model: mock}\n"
	       "  price: {input: 2.50, output: 10.00, cached: 1.25}\n"},
    {"servers", "- name: files\n"
		"  command: \"mcp-server-filesystem\"\n"
		"  args: [\"/srv\"]\n"
		"- name: web\n"
		"  url: \"https://mcp.example.com/mcp\"\n"
		"  headers: {Authorization: \"Bearer ${WEB_MCP_TOKEN}\"}\n"},
    {"endpoints", "- name: backend\n"
		  "  url: \"https://example.com/hooks/parley\"\n"
		  "  secret: \"${WEBHOOK_SECRET}\"\n"
		  "  events: [\"turn.*\"]\n"},
};

struct sample {
	struct buf *out;
	bool with_comments;
};

/* "1 to 512", "auto, or 1 to 512", "a or b"; nothing where there is nothing to say. */
static void
describe_range(const struct conf_opt *o, struct buf *out)
{
	if (o->type == CONF_ENUM)
		conf_choices_describe(out, o->choices);
	else if (o->min != NULL)
		buf_printf(
		    out, "%s%s to %s", o->type == CONF_AUTO ? "auto, or " : "", o->min, o->max);
}

static void
comment(const struct sample *s, const struct conf_opt *o, unsigned indent)
{
	struct buf text = BUF_INIT, range = BUF_INIT;

	if (!s->with_comments)
		return;
	buf_add_cstr(&text, o->help);
	describe_range(o, &range);
	if (range.len > 0)
		buf_printf(&text, " (%s%s%s)", range.data, o->unit != NULL ? " " : "",
		    o->unit != NULL ? o->unit : "");
	if (o->has_file)
		buf_printf(&text, " Or %s_file: a file with it.", o->name);
	if (o->type != CONF_SECTION && o->type != CONF_LIST_OF && !o->is_live)
		buf_add_cstr(&text, " Needs a restart.");
	conf_yaml_comment(s->out, indent, WIDTH, buf_str(&text));
	buf_fini(&text);
	buf_fini(&range);
}

static void
write_strings(struct str commas, struct buf *out)
{
	const char *between = "";

	buf_add_char(out, '[');
	while (commas.len > 0) {
		buf_add_cstr(out, between);
		conf_yaml_quote(out, str_split(&commas, ','));
		between = ", ";
	}
	buf_add_char(out, ']');
}

/* As given in the demo setup, else the default. */
static void
write_value(const struct conf_opt *o, const struct conf_node *given, struct buf *out)
{
	struct str text = str_of(given != NULL ? given->raw : o->def);

	check(text.p != NULL && (given == NULL || given->kind == CONF_SCALAR));
	if (o->type == CONF_STRINGS)
		write_strings(text, out);
	else if (o->type == CONF_MAP)
		buf_add_cstr(out, "{}");
	else if (conf_opt_is_text(o) && o->type != CONF_ENUM)
		conf_yaml_quote(out, text);
	else
		buf_add_str(out, text);
}

static void write_level(const struct sample *, const struct conf_opt *level,
    const struct conf_node *given, unsigned indent, bool is_element);

static void
write_examples(const struct conf_opt *list, unsigned indent, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
		struct str rest = str_of(examples[i].element);

		if (strcmp(examples[i].list, list->name) != 0)
			continue;
		while (rest.len > 0) {
			struct str line = str_split(&rest, '\n');

			buf_printf(out, "%*s# %.*s\n", (int)indent, "", (int)line.len, line.p);
		}
	}
}

/* The first element shows all that can be said, the others what is not the default. */
static void
write_elements(const struct sample *s, const struct conf_opt *o, const struct conf_node *given,
    unsigned indent)
{
	struct sample brief = {s->out, false};

	if (given == NULL) {
		buf_add_cstr(s->out, " []\n");
		write_examples(o, indent + 2, s->out);
		return;
	}
	buf_add_char(s->out, '\n');
	for (const struct conf_node *n = given->first; n != NULL; n = n->next)
		write_level(
		    n == given->first ? s : &brief, conf_spec_inside(o), n, indent + 4, true);
	write_examples(o, indent + 2, s->out);
}

static void
write_option(const struct sample *s, const struct conf_opt *o, const struct conf_node *given,
    unsigned indent, bool has_dash)
{
	comment(s, o, indent);
	buf_printf(s->out, "%*s%s%s:", (int)indent - (has_dash ? 2 : 0), "", has_dash ? "- " : "",
	    o->name);
	if (o->type == CONF_SECTION) {
		buf_add_char(s->out, '\n');
		write_level(s, conf_spec_inside(o), given, indent + 2, false);
	} else if (o->type == CONF_LIST_OF) {
		write_elements(s, o, given, indent);
	} else {
		buf_add_char(s->out, ' ');
		write_value(o, given, s->out);
		buf_add_char(s->out, '\n');
	}
}

static void
write_level(const struct sample *s, const struct conf_opt *level, const struct conf_node *given,
    unsigned indent, bool is_element)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		const struct conf_node *n =
		    given != NULL ? conf_node_child(given, str_of(o->name)) : NULL;

		if (!s->with_comments && n == NULL)
			continue;
		if (indent == 0)
			buf_add_char(s->out, '\n');
		write_option(s, o, n, indent, is_element && o == level);
	}
}

void
conf_write_sample(struct buf *out)
{
	struct conf_loader l = {.arena = ARENA_INIT, .file = "demo", .errors = out};
	struct sample s = {out, true};

	check(conf_tree_parse(&l, str_of(conf_demo_mock), false));
	buf_add_cstr(out,
	    "# Parley's options, with their defaults. Generated from common/conf.tbl: `make gen`.\n"
	    "#\n"
	    "# Durations: 500ms 30s 5m 1h 1d. Sizes: 512 16KiB 1MiB. A limit, retention or budget "
	    "of 0\n"
	    "# is none. ${NAME} is the environment variable, ${NAME:-text} the text when it is "
	    "unset,\n"
	    "# $${ a plain ${. Flags win over the environment (PARLEY_HTTP__MAX_BODY=2MiB, lists "
	    "with\n"
	    "# commas), that over this file. A file that names no provider, model, app or key "
	    "gets\n"
	    "# those below. They are for trying things out: the demo keys are public and are "
	    "refused\n"
	    "# on listeners that are not loopback.\n");
	write_level(&s, conf_spec(), l.root, 0, false);
	arena_fini(&l.arena);
}

/* ---- the reference ---- */

static void
add_cell(struct buf *out, struct str text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] == '|')
			buf_add_char(out, '\\');
		buf_add_char(out, text.p[i]);
	}
}

static const char *
type_name(const struct conf_opt *o)
{
	static const char *const names[] = {[CONF_SECTION] = "",
	    [CONF_LIST_OF] = "list of maps",
	    [CONF_BOOL] = "true or false",
	    [CONF_INT] = "number",
	    [CONF_AUTO] = "number",
	    [CONF_FLOAT] = "decimal",
	    [CONF_DURATION] = "duration",
	    [CONF_SIZE] = "size",
	    [CONF_STRING] = "text",
	    [CONF_ENUM] = "",
	    [CONF_SECRET] = "secret",
	    [CONF_URL] = "address",
	    [CONF_STRINGS] = "list of texts",
	    [CONF_MAP] = "map of texts"};

	return names[o->type];
}

static void
reference_row(const struct conf_opt *o, const char *path, struct buf *out)
{
	struct buf range = BUF_INIT;

	describe_range(o, &range);
	buf_printf(out, "| `%s` | %s%s", path, type_name(o),
	    range.len > 0 && *type_name(o) != '\0' ? ", " : "");
	if (range.len > 0)
		buf_add_str(out, buf_str(&range));
	if (o->unit != NULL)
		buf_printf(out, " %s", o->unit);
	buf_add_cstr(out, " | ");
	if (o->type != CONF_LIST_OF && o->def == NULL)
		buf_add_cstr(out, "must be given");
	else if (o->def != NULL && *o->def != '\0')
		buf_printf(out, "`%s`", o->def);
	buf_printf(out, " | %s | ", o->is_live ? "yes" : "no");
	add_cell(out, str_of(o->help));
	if (o->has_file)
		buf_printf(out, " Or `%s_file`.", o->name);
	buf_add_cstr(out, " |\n");
	buf_fini(&range);
}

static void
reference_level(const struct conf_opt *level, const char *prefix, struct buf *out)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		struct buf path = BUF_INIT;

		buf_printf(&path, "%s%s", prefix, o->name);
		if (o->type != CONF_SECTION)
			reference_row(o, path.data, out);
		if (o->type == CONF_SECTION || o->type == CONF_LIST_OF) {
			buf_add_cstr(&path, o->type == CONF_LIST_OF ? "[]." : ".");
			reference_level(conf_spec_inside(o), path.data, out);
		}
		buf_fini(&path);
	}
}

void
conf_write_reference(struct buf *out)
{
	buf_add_cstr(out,
	    "# Options\n\n"
	    "Generated from `common/conf.tbl` by `make gen`. Durations are written `500ms 30s 5m "
	    "1h 1d`,\n"
	    "sizes `512 16KiB 1MiB`. Every single value and every list of texts is also an "
	    "environment\n"
	    "variable: `http.max_body` is `PARLEY_HTTP__MAX_BODY`, `providers[].base_url` of the "
	    "first\n"
	    "provider `PARLEY_PROVIDERS__0__BASE_URL`, or by its name "
	    "`PARLEY_PROVIDERS__OPENAI__BASE_URL`.\n"
	    "`WORKERS`, `DATABASE_URL`, `REDIS_URL` and `<PROVIDER>_API_KEY` are understood, too.\n"
	    "Flags win over the environment, that over the file.\n\n"
	    "| option | values | default | on reload | |\n"
	    "|---|---|---|---|---|\n");
	reference_level(conf_spec(), "", out);
}
