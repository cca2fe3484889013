/* catalog: pages to lists, lists to one view; what is verbatim, what is left out. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "worker/mcp/catalog.h"

static const struct mcp_list_limits wide = {.items_max = 100, .bytes_max = 1 << 20};

static struct mcp_list *
list_of(const char *page, const struct mcp_list_limits *limits)
{
	struct mcp_list *l = mcp_list_new(MCP_TOOLS);
	struct buf next = BUF_INIT;

	assert_int_equal(mcp_list_add_page(l, str_of(page), limits, &next), 0);
	buf_fini(&next);
	mcp_list_close(l);
	return l;
}

static void
test_pages(void **state)
{
	struct mcp_list *l = mcp_list_new(MCP_TOOLS);
	struct buf next = BUF_INIT, out = BUF_INIT;

	assert_int_equal(mcp_list_add_page(l,
			     STR("{\"tools\":[{\"name\":\"b\",\"inputSchema\":{ \"x-y\" "
				 ":1}},{\"name\":\"bad name\"},{}],"
				 "\"nextCursor\":\"p\\n2\",\"ttlMs\":5000}"),
			     &wide, &next),
	    0);
	assert_string_equal(next.data, "\"p\\n2\"");
	assert_int_equal(mcp_list_add_page(l,
			     STR("{\"ttlMs\":3000,\"tools\":[{\"name\":\"a\",\"annotations\":{"
				 "\"readOnlyHint\":true}},{\"name\":\"b\"}]}"),
			     &wide, &next),
	    0);
	assert_int_equal(next.len, 0);
	mcp_list_close(l);
	assert_int_equal(mcp_list_count(l), 2);
	assert_int_equal(mcp_list_left_out(l), 3);
	assert_int_equal(mcp_list_ttl_ms(l), 3000);
	assert_true(mcp_list_at(l, 0)->is_read_only);
	assert_null(mcp_list_find(l, STR("c")));
	const struct mcp_item *b = mcp_list_find(l, STR("b"));
	assert_non_null(b);
	assert_false(b->is_read_only);
	mcp_list_format(l, &out);
	struct mcp_list *again = list_of(out.data, &wide);
	assert_true(mcp_list_equal(l, again));
	assert_false(mcp_list_equal(l, NULL));
	mcp_list_unref(&again);
	mcp_list_unref(&l);
	buf_fini(&next);
	buf_fini(&out);
}

static void
test_bad_pages(void **state)
{
	static const char *const bad[] = {"{}", "[]", "{\"tools\":{}}", "{\"prompts\":[]}"};
	struct mcp_list_limits narrow = {.items_max = 1, .bytes_max = 1000};
	struct mcp_list *l = mcp_list_new(MCP_TOOLS);
	struct buf next = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(
		    mcp_list_add_page(l, str_of(bad[i]), &wide, &next), E_INVALID_REQUEST);
	assert_int_equal(
	    mcp_list_add_page(
		l, STR("{\"tools\":[{\"name\":\"a\"},{\"name\":\"b\"}]}"), &narrow, &next),
	    E_PAYLOAD_TOO_LARGE);
	narrow.bytes_max = 100;
	assert_int_equal(mcp_list_add_page(l, STR("{\"tools\":[]}"), &narrow, &next), 0);
	narrow.bytes_max = 50;
	mcp_list_unref(&l);
	l = mcp_list_new(MCP_TOOLS);
	assert_int_equal(
	    mcp_list_add_page(l,
		STR("{\"tools\":[],\"_\":\"........................................\"}"), &narrow,
		&next),
	    E_PAYLOAD_TOO_LARGE);
	mcp_list_unref(&l);
	buf_fini(&next);
}

static void
test_allowed(void **state)
{
	const char *names[] = {"b"};
	struct conf_list only = {names, 1};
	struct mcp_list_limits limits = {100, 1000, &only, NULL};
	struct mcp_list *l = list_of("{\"tools\":[{\"name\":\"a\"},{\"name\":\"b\"}]}", &limits);

	assert_int_equal(mcp_list_count(l), 1);
	assert_int_equal(mcp_list_left_out(l), 0);
	mcp_list_unref(&l);
}

static void
test_view(void **state)
{
	struct mcp_list *one = list_of("{\"tools\":[{\"title\":\"T\", \"name\" : \"x\" "
				       ",\"inputSchema\":{}},{\"name\":\"a\"}]}",
	    &wide);
	struct mcp_list *two = list_of("{\"tools\":[{\"name\":\"x\"},{\"name\":\"y\"}]}", &wide);
	struct mcp_source sources[] = {
	    {"s1", true, one}, {"s2", false, two}, {"s3", false, NULL}, {"s4", false, two}};
	struct mcp_view *v = mcp_view_new(MCP_TOOLS, sources, ARRAY_LEN(sources));
	static const char *const names[] = {"s1__a", "s1__x", "x", "y", "s4__x", "s4__y"};
	struct buf out = BUF_INIT;

	mcp_list_unref(&one); /* the view has its own */
	mcp_list_unref(&two);
	assert_int_equal(mcp_view_count(v), ARRAY_LEN(names));
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct mcp_entry *e = mcp_view_at(v, i);

		assert_true(str_eq(e->name, str_of(names[i])));
		assert_ptr_equal(mcp_view_find(v, str_of(names[i])), e);
	}
	assert_null(mcp_view_find(v, STR("a")));
	assert_int_equal(mcp_view_at(v, 4)->source, 3);
	mcp_entry_format(mcp_view_at(v, 1), &out);
	assert_string_equal(
	    out.data, "{\"title\":\"T\", \"name\" : \"s1__x\" ,\"inputSchema\":{}}");
	buf_clear(&out);
	mcp_entry_format(mcp_view_at(v, 3), &out);
	assert_string_equal(out.data, "{\"name\":\"y\"}");
	mcp_view_free(&v);
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pages),
	    cmocka_unit_test(test_bad_pages),
	    cmocka_unit_test(test_allowed),
	    cmocka_unit_test(test_view),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
