/*
 * conf_sample: the committed files are what the table makes now, they load, and
 * the sample is exactly the defaults. Runs in the root of the tree.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/conf.h"
#include "common/conf_spec.h"

static void
read_whole(const char *path, struct buf *ret)
{
	FILE *f = fopen(path, "r");
	size_t n;

	if (f == NULL)
		fail_msg("%s is missing: make gen", path);
	while ((n = fread(buf_reserve(ret, 4096), 1, 4096, f)) > 0)
		ret->len += n;
	fclose(f);
	buf_reserve(ret, 1)[0] = '\0';
}

static void
assert_fresh(const char *path, void (*write)(struct buf *))
{
	struct buf committed = BUF_INIT, made = BUF_INIT;

	read_whole(path, &committed);
	write(&made);
	if (!str_eq(buf_str(&committed), buf_str(&made)))
		fail_msg("%s is stale: make gen", path);
	buf_fini(&committed);
	buf_fini(&made);
}

static void
test_the_committed_files_are_fresh(void **state)
{
	assert_fresh("etc/parley.yaml", conf_write_sample);
	assert_fresh("etc/options.md", conf_write_reference);
}

static struct conf *
load(const char *file, struct str text)
{
	struct conf_source source = {.file = file, .text = text};
	struct buf errors = BUF_INIT;
	struct conf *c = conf_load(&source, &errors);

	if (c == NULL)
		fail_msg("%s", errors.data);
	buf_fini(&errors);
	return c;
}

static void
test_the_sample_is_the_defaults(void **state)
{
	struct conf *defaults = load(NULL, STR_NONE), *sample = load("etc/parley.yaml", STR_NONE);
	struct buf a = BUF_INIT, b = BUF_INIT;

	conf_print(defaults, &a);
	conf_print(sample, &b);
	assert_string_equal(a.data, b.data);
	assert_int_equal(defaults->keys.n, sample->keys.n); /* printed without their secrets */
	for (size_t i = 0; i < sample->keys.n; i++)
		assert_string_equal(defaults->keys.v[i].secret, sample->keys.v[i].secret);
	assert_int_equal(sample->warnings.n, 0);
	conf_free(&defaults);
	conf_free(&sample);
	buf_fini(&a);
	buf_fini(&b);
}

/* "# - name: x" and what hangs below it become real. */
static void
uncomment(struct str sample, struct buf *out)
{
	bool is_example = false;

	while (sample.len > 0) {
		struct str line = str_split(&sample, '\n');
		const char *mark = line.len > 0 ? memchr(line.p, '#', line.len) : NULL;
		size_t indent = mark != NULL ? (size_t)(mark - line.p) : 0;
		struct str said =
		    mark != NULL
			? str_sub(mark + 2, line.len > indent + 2 ? line.len - indent - 2 : 0)
			: STR_NONE;

		if (mark == NULL || indent == 0)
			is_example = false;
		else if (str_starts(said, STR("- name:")))
			is_example = true;
		if (is_example)
			buf_printf(out, "%*s%.*s\n", (int)indent, "", (int)said.len, said.p);
		else if (str_eq(str_trim(line), STR("servers: []")))
			buf_add_cstr(out, "  servers:\n");
		else if (str_eq(str_trim(line), STR("endpoints: []")))
			buf_add_cstr(out, "  endpoints:\n");
		else
			buf_printf(out, "%.*s\n", (int)line.len, line.p);
	}
}

static void
test_the_examples_load(void **state)
{
	struct buf sample = BUF_INIT, text = BUF_INIT, errors = BUF_INIT;

	conf_write_sample(&sample);
	uncomment(buf_str(&sample), &text);
	struct conf_source source = {.file = "examples",
	    .text = buf_str(&text),
	    .environment = (char *const[]){
		(char[]){"WEB_MCP_TOKEN=t"}, (char[]){"WEBHOOK_SECRET=whsec_c2VjcmV0"}, NULL}};
	struct conf *c = conf_load(&source, &errors);
	if (c == NULL)
		fail_msg("%s", errors.data);
	assert_int_equal(c->providers.n, 2);
	assert_int_equal(c->models.n, 2);
	assert_int_equal(c->mcp.servers.n, 2);
	assert_string_equal(c->mcp.servers.v[1].headers.v[0].value, "Bearer t");
	assert_int_equal(c->webhooks.endpoints.n, 1);
	assert_string_equal(c->webhooks.endpoints.v[0].secret, "whsec_c2VjcmV0");
	conf_free(&c);
	buf_fini(&sample);
	buf_fini(&text);
	buf_fini(&errors);
}

static void
test_the_developers_file(void **state)
{
	struct conf *c = load("etc/parley.dev.yaml", STR_NONE);

	assert_int_equal(c->max_connections, 20);
	assert_int_equal(c->store.pool_size, 5);
	assert_int_equal(c->providers.v[0].http_client.max_connections, 5);
	assert_string_equal(c->log.level, "debug");
	assert_true(conf_is_demo_secret(c->keys.v[0].secret));
	assert_int_equal(c->warnings.n, 0);
	conf_free(&c);
}

static void
assert_documented(
    const struct conf_opt *level, const struct buf *sample, const struct buf *reference)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		char *in_sample = xasprintf("%s:", o->name),
		     *in_reference = xasprintf("%s`", o->name);

		if (strstr(sample->data, in_sample) == NULL)
			fail_msg("%s is not in the sample", o->name);
		if (o->type != CONF_SECTION && strstr(reference->data, in_reference) == NULL)
			fail_msg("%s is not in the reference", o->name);
		free(in_sample);
		free(in_reference);
		/* A list without an element shows some of its options in examples. */
		if (o->type == CONF_SECTION ||
		    (o->type == CONF_LIST_OF && strcmp(o->name, "servers") != 0 &&
			strcmp(o->name, "endpoints") != 0))
			assert_documented(conf_spec_inside(o), sample, reference);
	}
}

static void
test_every_option_is_documented(void **state)
{
	struct buf sample = BUF_INIT, reference = BUF_INIT;

	conf_write_sample(&sample);
	conf_write_reference(&reference);
	assert_documented(conf_spec(), &sample, &reference);
	buf_fini(&sample);
	buf_fini(&reference);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_committed_files_are_fresh),
	    cmocka_unit_test(test_the_sample_is_the_defaults),
	    cmocka_unit_test(test_the_examples_load),
	    cmocka_unit_test(test_the_developers_file),
	    cmocka_unit_test(test_every_option_is_documented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
