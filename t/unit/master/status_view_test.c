/* status_view: the table of an answer, alone and beside an earlier one, in little room, with little
 * told. */
#include "t/unit/unit.h"

#include <string.h>

#include "master/status_view.h"

static const char whole[] =
    "{\"version\":\"1.2.3\",\"pid\":77,\"uptime_ms\":93784000,\"phase\":\"running\","
    "\"workers\":{\"configured\":2,\"ready\":2,\"restarts\":0,\"list\":["
    "{\"slot\":0,\"incarnation\":5,\"pid\":101,\"state\":\"ready\",\"connections\":{\"http\":1,"
    "\"sse\":20,\"websocket\":1300},\"turns_live\":7,\"loop_delay_us\":1250,\"work_max\":0,"
    "\"cpu_ms\":5400,\"rss_bytes\":12582912},"
    "{\"slot\":1,\"incarnation\":6,\"pid\":102,\"state\":\"draining\",\"connections\":{\"http\":0,"
    "\"sse\":0,\"websocket\":0},\"turns_live\":0,\"loop_delay_us\":0,\"work_max\":3,"
    "\"cpu_ms\":10,\"rss_bytes\":0}]},"
    "\"connections\":{\"http\":1,\"sse\":20,\"websocket\":1300,\"max\":2000,\"refused\":4},"
    "\"requests\":1500,\"turns\":{\"live\":7,\"completed\":1050,\"failed\":2,\"worker_lost\":1,"
    "\"cancelled\":3},\"tokens\":{\"input\":9000,\"output\":1234567},"
    "\"store\":{\"kind\":\"postgres\",\"pool_in_use\":3,\"pool_max\":30,\"refused\":0},"
    "\"backplane\":{\"kind\":\"redis\",\"is_up\":false,\"messages\":10},"
    "\"providers\":[{\"name\":\"a-provider-with-a-long-name\",\"calls\":24,\"calls_max\":25,"
    "\"waiting\":8,\"pool_in_use\":24,\"pool_max\":100,\"is_up\":true,"
    "\"breakers\":{\"gpt-9\":\"half_open\"}}]}";

/* What such a view says of such an answer; freed by the caller. */
static struct buf
view_of(const struct status_view *v, const char *answer)
{
	struct buf out = BUF_INIT;
	json_t *now = json_loads(answer, 0, NULL);

	assert_non_null(now);
	status_view_write(v, now, &out);
	json_decref(now);
	return out;
}

static void
assert_says(const struct buf *out, const char *words)
{
	if (strstr(out->data, words) == NULL)
		fail_msg("\"%s\" is not in\n%s", words, out->data);
}

static void
assert_no_line_is_longer(const struct buf *out, size_t columns)
{
	for (struct str rest = buf_str(out); rest.p != NULL;) {
		struct str line = str_split(&rest, '\n');

		assert_true(line.len <= columns);
	}
}

static void
test_once(void **state)
{
	struct buf out = view_of(&(struct status_view){0}, whole);

	assert_says(
	    &out, "parley 1.2.3   running, 2 of 2 workers ready   up 1d 02:03:04   pid 77\n");
	assert_says(&out, "[#############.......]  66 %  1,321 of 2,000\n");
	assert_says(&out, "http 1  sse 20  websocket 1,300  4 refused\n");
	assert_says(&out, "7 live  1,050 completed  3 failed  3 cancelled\n");
	assert_says(&out, "9,000 in  1,234,567 out\n");
	assert_says(&out, "postgres  3 of 30 connections in use\n");
	assert_says(&out, "redis  away\n");
	assert_says(&out,
	    "     0       101  ready         -     12 MiB        1,321        7      1.2 ms\n");
	assert_says(&out, "     1       102  draining      -      0 MiB            0        0      "
			  "0.0 ms\n");
	assert_says(
	    &out, "a-provider-w [###################.]  96 %     24/25        8      24/100  up\n");
	assert_says(&out, "breaker half_open: gpt-9\n");
	assert_no_line_is_longer(&out, 80);
	assert_null(strchr(out.data, '\033'));
	buf_fini(&out);
}

static void
test_beside_an_earlier_one(void **state)
{
	json_t *before = json_loads("{\"turns\":{\"completed\":1000},\"requests\":500,\"tokens\":{"
				    "\"input\":9000,\"output\":1234067},\"backplane\":{},"
				    "\"workers\":{\"list\":[{\"incarnation\":5,\"cpu_ms\":4000}]}}",
	    0, NULL);
	struct status_view v = {.has_color = true, .before = before, .since_ms = 2000};
	struct buf out = view_of(&v, whole);

	assert_says(&out, "7 live  25.0/s");
	assert_says(&out, "requests     1,500  500/s\n");
	assert_says(&out, "9,000 in  0.0/s  1,234,567 out  250/s\n");
	assert_says(&out, "\033[33m  70 %\033[0m"); /* of the first worker; the second is new: */
	assert_says(&out, "\033[33mdraining \033[0m     -");
	assert_says(&out, "\033[31maway\033[0m");
	buf_fini(&out);
	json_decref(before);
}

static void
test_a_core_that_is_used_up(void **state)
{
	struct buf out = view_of(&(struct status_view){.has_color = true},
	    "{\"workers\":{\"list\":[{\"state\":\"ready\",\"work_max\":3}]}}");

	assert_says(&out, "\033[31mfull ");
	buf_fini(&out);
}

/* A restart in between: counters begin anew, and no rate is told. */
static void
test_counters_that_went_back(void **state)
{
	json_t *before = json_loads("{\"turns\":{\"completed\":2000},\"requests\":9999}", 0, NULL);
	struct buf out = view_of(&(struct status_view){.before = before, .since_ms = 1000}, whole);

	assert_says(&out, "7 live  1,050 completed");
	assert_says(&out, "requests     1,500\n");
	buf_fini(&out);
	json_decref(before);
}

static void
test_in_little_room(void **state)
{
	json_t *many = json_loads(whole, 0, NULL);
	json_t *list = json_object_get(json_object_get(many, "workers"), "list");
	struct status_view v = {.rows = 20};
	struct buf out = BUF_INIT;

	for (int i = 0; i < 48; i++)
		json_array_append(list, json_array_get(list, 0));
	status_view_write(&v, many, &out);
	assert_says(&out, "   .. and 46 more\n");
	size_t lines = 0;
	for (size_t i = 0; i < out.len; i++)
		lines += out.data[i] == '\n';
	assert_in_range(lines, 10, 20);
	buf_fini(&out);
	json_decref(many);
}

static void
test_when_little_is_told(void **state)
{
	struct buf out = view_of(&(struct status_view){.has_color = true}, "{}");

	assert_says(&out, "0 of 0 workers ready");
	assert_says(&out, "  0 %  0 of 0\n");
	buf_fini(&out);
	out = view_of(&(struct status_view){0}, "{\"phase\":3,\"workers\":[],\"providers\":{}}");
	assert_says(&out, "?, 0 of 0 workers ready");
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_once),
	    cmocka_unit_test(test_beside_an_earlier_one),
	    cmocka_unit_test(test_a_core_that_is_used_up),
	    cmocka_unit_test(test_counters_that_went_back),
	    cmocka_unit_test(test_in_little_room),
	    cmocka_unit_test(test_when_little_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
