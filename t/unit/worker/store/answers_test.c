/*
 * answers_test - answers that are kept, in the record. PARLEY_TEST_STORE names a PostgreSQL
 * database to run over.
 */
#include "t/unit/worker/store/world.h"

static struct world w;
static const int64_t now = 1767225600000;

static struct {
	int err, status;
	uint64_t count;
	char type[32];
	struct buf body;
} got;

static int
setup(void **state)
{
	world_init(&w);
	world_start(&w);
	return 0;
}

static int
teardown(void **state)
{
	buf_fini(&got.body);
	world_fini(&w);
	return 0;
}

static void
on_done(void *arg, int err)
{
	assert_int_equal(err, 0);
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	assert_int_equal(err, 0);
	got.count = count;
	world_came(&w);
}

static void
on_answer(void *arg, int err, const struct store_answer *a)
{
	got.err = err;
	got.status = err == 0 ? a->status : 0;
	snprintf(got.type, sizeof(got.type), "%s", err == 0 ? a->content_type : "");
	buf_clear(&got.body);
	if (err == 0)
		buf_add_str(&got.body, a->body);
	world_came(&w);
}

static void
put(const char *key, const char *request, int status, struct str body)
{
	const struct store_answer a = {.key_id = key,
	    .request_id = request,
	    .status = status,
	    .content_type = "text/event-stream",
	    .body = body,
	    .created_at = now,
	    .expires_at = now + 1000};

	world_expect(&w);
	store_answer_put(w.store, &a, on_done, NULL);
	world_wait(&w);
}

static int
get(const char *key, const char *request, int64_t at)
{
	world_expect(&w);
	store_answer_get(w.store, key, request, at, on_answer, NULL);
	world_wait(&w);
	return got.err;
}

static uint64_t
sweep(int64_t at)
{
	world_expect(&w);
	store_answer_sweep(w.store, at, on_count, NULL);
	world_wait(&w);
	return got.count;
}

static void
test_kept_for_the_key_that_asked(void **state)
{
	static const char bytes[] = "\0\xff'\\ \xc3\xbc\n";

	put("key_a", "r", 200, str_sub(bytes, sizeof(bytes) - 1));
	assert_int_equal(get("key_a", "r", now), 0);
	assert_int_equal(got.status, 200);
	assert_string_equal(got.type, "text/event-stream");
	assert_true(str_eq(buf_str(&got.body), str_sub(bytes, sizeof(bytes) - 1)));
	assert_int_equal(get("key_b", "r", now), E_NOT_FOUND);
	assert_int_equal(get("key_a", "s", now), E_NOT_FOUND);
	put("key_b", "r", 502, STR(""));
	assert_int_equal(get("key_b", "r", now), 0);
	assert_int_equal(got.body.len, 0);
}

static void
test_the_later_takes_the_place(void **state)
{
	put("key_a", "r", 200, STR("one"));
	put("key_a", "r", 413, STR("two"));
	assert_int_equal(get("key_a", "r", now), 0);
	assert_int_equal(got.status, 413);
	assert_true(str_eq(buf_str(&got.body), STR("two")));
}

static void
test_it_expires(void **state)
{
	put("key_a", "r", 200, STR("one"));
	put("key_b", "r", 200, STR("one"));
	assert_int_equal(get("key_a", "r", now + 999), 0);
	assert_int_equal(get("key_a", "r", now + 1000), E_NOT_FOUND);
	assert_int_equal(sweep(now + 999), 0);
	assert_int_equal(sweep(now + 1000), 2);
	assert_int_equal(get("key_a", "r", now), E_NOT_FOUND);
}

static void
test_a_large_one(void **state)
{
	struct buf body = BUF_INIT;

	for (int i = 0; i < 4 << 16; i++)
		buf_add_cstr(
		    &body, "sixty-four bytes of an answer that is as large as one may be.. \n");
	put("key_a", "r", 200, buf_str(&body));
	assert_int_equal(get("key_a", "r", now), 0);
	assert_true(str_eq(buf_str(&got.body), buf_str(&body)));
	buf_fini(&body);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_kept_for_the_key_that_asked),
	    T(test_the_later_takes_the_place),
	    T(test_it_expires),
	    T(test_a_large_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
