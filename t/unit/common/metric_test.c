/* metric - sums, the dead, names, and the exposition format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/metric.h"
#include "common/metric_layout.h"

static struct shm *shm;
static struct shm_who a, b;
static const struct shm_who master = {0, 0};

static int
setup(void **state)
{
	(void)state;
	shm = shm_create(2);
	assert_true(shm_row_claim(shm, 0, 1, &a));
	assert_true(shm_row_claim(shm, 1, 2, &b));
	shm_row_set_state(shm, a, SHM_READY);
	shm_row_set_state(shm, b, SHM_READY);
	metric_init(shm, a);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	metric_init(NULL, master);
	shm_free(&shm);
	return 0;
}

static char *
expose(void)
{
	static struct buf out;

	buf_fini(&out);
	metric_expose(shm, &out);
	return out.data;
}

static void
assert_line(const char *line)
{
	char *all = expose();
	size_t len = strlen(line);

	for (char *at = all; (at = strstr(at, line)) != NULL; at++) {
		if ((at == all || at[-1] == '\n') && at[len] == '\n')
			return;
	}
	fail_msg("not exposed: %s\n%s", line, all);
}

static void
test_sums_and_the_dead(void **state)
{
	(void)state;
	metric_add(METRIC_TURNS, TURN_OUTCOME_FAILED, 0, 2);
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, 5);
	metric_gauge(METRIC_CONNECTIONS, KIND_SSE, 0, 4);
	metric_init(shm, b);
	metric_add(METRIC_TURNS, TURN_OUTCOME_FAILED, 0, 3);
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, -1);
	metric_gauge_set(METRIC_CONNECTIONS, KIND_SSE, 0, 6);
	metric_init(shm, master);
	metric_add(METRIC_WORKER_RESTARTS, RESTART_SIGNAL, 0, 1);

	assert_int_equal(metric_total(shm, METRIC_TURNS, TURN_OUTCOME_FAILED, 0), 5);
	assert_int_equal(metric_total(shm, METRIC_TURNS_LIVE, 0, 0), 4);
	assert_int_equal(metric_of_row(shm, a.row, METRIC_TURNS_LIVE, 0, 0), 5);
	assert_line("parley_turns_total{outcome=\"failed\"} 5");
	assert_line("parley_turns_live 4");
	assert_line("parley_connections{worker=\"0\",kind=\"sse\"} 4");
	assert_line("parley_connections{worker=\"1\",kind=\"sse\"} 6");
	assert_line("parley_workers{state=\"ready\"} 2");
	assert_line("parley_worker_restarts_total{reason=\"signal\"} 1");

	shm_row_reap(shm, a);
	assert_int_equal(metric_total(shm, METRIC_TURNS, TURN_OUTCOME_FAILED, 0), 5);
	assert_int_equal(metric_total(shm, METRIC_TURNS_LIVE, 0, 0), -1);
	assert_null(strstr(expose(), "parley_connections{worker=\"0\""));

	/* Its successor in the slot, in the same row, counts on. */
	struct shm_who next;
	assert_true(shm_row_claim(shm, 0, 3, &next));
	metric_init(shm, next);
	metric_add(METRIC_TURNS, TURN_OUTCOME_FAILED, 0, 1);
	assert_line("parley_turns_total{outcome=\"failed\"} 6");
	assert_line("parley_connections{worker=\"0\",kind=\"sse\"} 0");
}

static void
test_two_in_a_slot_are_one_line(void **state)
{
	struct shm_who next;

	(void)state;
	metric_gauge(METRIC_CONNECTIONS, KIND_HTTP, 0, 2);
	shm_row_set_state(shm, a, SHM_DRAINING);
	assert_true(shm_row_claim(shm, 0, 3, &next));
	metric_init(shm, next);
	metric_gauge(METRIC_CONNECTIONS, KIND_HTTP, 0, 3);
	assert_line("parley_connections{worker=\"0\",kind=\"http\"} 5");
	assert_line("parley_workers{state=\"draining\"} 1");
}

static void
test_extremes(void **state)
{
	(void)state;
	unsigned t = metric_label_pair(LABEL_TARGET, STR("openai"), STR("gpt-4o/x"));

	metric_gauge_set(METRIC_BACKPLANE_UP, 0, 0, 1);
	metric_gauge_set(METRIC_PROVIDER_BREAKER_STATE, t, 0, 2);
	assert_line("parley_backplane_up 0");
	metric_init(shm, b);
	metric_gauge_set(METRIC_BACKPLANE_UP, 0, 0, 1);
	assert_line("parley_backplane_up 1");
	assert_line("parley_provider_breaker_state{provider=\"openai\",model=\"gpt-4o/x\"} 2");
}

static void
test_histogram(void **state)
{
	(void)state;
	unsigned r = metric_label(LABEL_ROUTE, STR("/health"));

	metric_observe_us(METRIC_HTTP_REQUEST_SECONDS, r, 0);
	metric_observe_us(METRIC_HTTP_REQUEST_SECONDS, r, 100);
	metric_observe_us(METRIC_HTTP_REQUEST_SECONDS, r, 101);
	metric_observe_us(METRIC_HTTP_REQUEST_SECONDS, r, 61000000);
	assert_int_equal(metric_total(shm, METRIC_HTTP_REQUEST_SECONDS, r, 0), 4);
	assert_line("# TYPE parley_http_request_seconds histogram");
	assert_line("parley_http_request_seconds_bucket{route=\"/health\",le=\"0.0001\"} 2");
	assert_line("parley_http_request_seconds_bucket{route=\"/health\",le=\"0.00025\"} 3");
	assert_line("parley_http_request_seconds_bucket{route=\"/health\",le=\"60\"} 3");
	assert_line("parley_http_request_seconds_bucket{route=\"/health\",le=\"+Inf\"} 4");
	assert_line("parley_http_request_seconds_sum{route=\"/health\"} 61.000201");
	assert_line("parley_http_request_seconds_count{route=\"/health\"} 4");
}

static void
test_names(void **state)
{
	char name[200];

	(void)state;
	unsigned odd = metric_label(LABEL_PROVIDER, STR("a\"b\\c\nd"));
	metric_gauge(METRIC_PROVIDER_POOL_IN_USE, odd, 0, 1);
	assert_line("parley_provider_pool_in_use{provider=\"a\\\"b\\\\c\\nd\"} 1");
	assert_int_equal(metric_label(LABEL_PROVIDER, STR("a\"b\\c\nd")), odd);
	/* Full: the rest is "other". */
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "provider-%d", i);
		unsigned at = metric_label(LABEL_PROVIDER, str_of(name));

		assert_int_equal(at, i < LABEL_PROVIDER_SIZE - 2 ? i + 1 : LABEL_PROVIDER_SIZE - 1);
	}
	assert_null(strstr(expose(), "{provider=\"other\"}"));
	metric_gauge(METRIC_PROVIDER_POOL_IN_USE, LABEL_PROVIDER_SIZE - 1, 0, 7);
	assert_line("parley_provider_pool_in_use{provider=\"other\"} 7");
	memset(name, 'x', sizeof(name));
	assert_int_equal(
	    metric_label(LABEL_MODEL, str_sub(name, sizeof(name))), LABEL_MODEL_SIZE - 1);
	assert_int_equal(metric_label(LABEL_RUN_BY, STR("server")), RUN_BY_SERVER);
	assert_int_equal(metric_status(404), STATUS_404);
	assert_int_equal(metric_status(418), STATUS_OTHER);
	assert_int_equal(metric_status(-1), STATUS_OTHER);
}

static void
test_cost(void **state)
{
	(void)state;
	unsigned m = metric_label(LABEL_MODEL, STR("default"));

	metric_add(METRIC_COST, m, 0, 1250001);
	metric_add(METRIC_TOKENS, m, TOKENS_INPUT, 10);
	assert_line("parley_cost_total{model=\"default\"} 1.250001");
	assert_line("parley_tokens_total{model=\"default\",direction=\"input\"} 10");
	assert_null(strstr(expose(), "direction=\"output\""));
}

/* Names registered by racing processes are there once. */
static void
test_names_race(void **state)
{
	int status;
	char name[32];

	(void)state;
	for (int p = 0; p < 4; p++) {
		if (fork() != 0)
			continue;
		metric_init(shm, p % 2 ? a : b);
		for (int i = 0; i < 60; i++) {
			snprintf(name, sizeof(name), "model-%d", (i + p * 7) % 60);
			metric_label(LABEL_MODEL, str_of(name));
		}
		_exit(0);
	}
	for (int p = 0; p < 4; p++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	unsigned sum = 0;
	for (int i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "model-%d", i);
		sum += metric_label(LABEL_MODEL, str_of(name));
	}
	assert_int_equal(sum, 59 * 60 / 2);
	assert_null(metric_label_value(shm, LABEL_MODEL, 60).p);
}

/* Every line is a comment or `name{labels} value`, each family begins once with HELP and TYPE. */
static void
test_format(void **state)
{
	(void)state;
	unsigned r = metric_label(LABEL_ROUTE, STR("/v1/sessions/{id}"));
	char *families[256];
	size_t n = 0;

	metric_add(METRIC_HTTP_REQUESTS, r, metric_status(200), 3);
	metric_observe_us(METRIC_TURN_FIRST_EVENT_SECONDS, 0, 1500);
	char *all = strdup(expose()), *save = NULL;
	assert_int_equal(all[strlen(all) - 1], '\n');
	for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "# HELP ", 7) == 0) {
			char *name = strndup(line + 7, strcspn(line + 7, " "));

			for (size_t i = 0; i < n; i++)
				assert_string_not_equal(families[i], name);
			assert_true(n < sizeof(families) / sizeof(*families));
			families[n++] = name;
			line = strtok_r(NULL, "\n", &save);
			assert_memory_equal(line, "# TYPE ", 7);
			assert_memory_equal(line + 7, name, strlen(name));
			continue;
		}
		assert_memory_equal(line, families[n - 1], strlen(families[n - 1]));
		char *end, *value = strrchr(line, ' ') + 1;
		strtod(value, &end);
		assert_true(end > value && *end == '\0');
	}
	while (n > 0)
		free(families[--n]);
	free(all);
	assert_line("parley_http_requests_total{route=\"/v1/sessions/{id}\",status=\"200\"} 3");
	assert_line("parley_turn_first_event_seconds_count 1");
	assert_non_null(strstr(expose(), "parley_build_info{version=\""));
}

static void
test_memory(void **state)
{
	struct stat st;

	(void)state;
	for (int i = 0; i < 20; i++)
		expose();
	assert_int_equal(fstat(shm_fd(shm), &st), 0);
	print_message("%lld KiB touched with 2 rows used\n", (long long)st.st_blocks / 2);
	assert_true(st.st_blocks * 512 < 300 << 10);
}

static void
test_without_memory(void **state)
{
	(void)state;
	metric_init(NULL, master);
	metric_add(METRIC_TURNS, TURN_OUTCOME_FAILED, 0, 2);
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, 1);
	metric_observe_us(METRIC_STORE_QUERY_SECONDS, STORE_OP_READ, 1);
	assert_int_equal(metric_label(LABEL_MODEL, STR("x")), LABEL_MODEL_SIZE - 1);
	assert_int_equal(metric_total(shm, METRIC_TURNS, TURN_OUTCOME_FAILED, 0), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_sums_and_the_dead),
	    TEST(test_two_in_a_slot_are_one_line),
	    TEST(test_extremes),
	    TEST(test_histogram),
	    TEST(test_names),
	    TEST(test_cost),
	    TEST(test_names_race),
	    TEST(test_format),
	    TEST(test_memory),
	    TEST(test_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
