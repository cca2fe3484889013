/*
 * webhook_test - what is pure about webhooks: signatures, verdicts, endpoints as they are named,
 * recorded and used.
 */
#include "t/unit/unit.h"

#include <string.h>

#include "worker/webhook/endpoint.h"
#include "worker/webhook/sign.h"
#include "worker/webhook/verdict.h"

/* ---- signatures ---- */

/* The example of the specification's libraries. */
static void
test_the_known_signature(void **state)
{
	static const char *const secret[] = {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"};
	struct buf out = BUF_INIT;

	sign_webhook(secret, 1, STR("msg_p5jXN8AQM9LWM0D4loKWxJek"), 1614265330,
	    STR("{\"test\": 2432232314}"), &out);
	assert_true(str_eq(buf_str(&out), STR("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")));
	buf_fini(&out);
}

static void
test_one_for_each_secret(void **state)
{
	static const char *const secrets[] = {"one", "", NULL, "two"};
	struct buf out = BUF_INIT;
	struct str rest, first;

	sign_webhook(secrets, 4, STR("id"), 1, STR("body"), &out);
	rest = buf_str(&out);
	first = str_split(&rest, ' ');
	assert_true(str_starts(first, STR("v1,")) && str_starts(rest, STR("v1,")));
	assert_int_equal(first.len, 3 + 44);
	assert_int_equal(rest.len, 3 + 44);
	assert_false(str_eq(first, rest));
	buf_clear(&out);
	sign_webhook(secrets + 1, 2, STR("id"), 1, STR("body"), &out);
	assert_int_equal(out.len, 0);
	/* What only looks like base64 is a key as it stands. */
	sign_key(STR("whsec_!"), &out);
	assert_true(str_eq(buf_str(&out), STR("whsec_!")));
	buf_fini(&out);
}

/* ---- verdicts ---- */

static const struct conf_webhooks conf = {
    .max_retries = 3,
    .backoff_ms = 2000,
    .backoff_max_ms = 60000,
    .encryption_key = "",
};

static struct verdict
verdict(enum client_outcome outcome, int status, uint64_t before, double dice)
{
	return verdict_of(
	    &(struct attempt){.outcome = outcome, .status = status, .before = before, .dice = dice},
	    &conf);
}

static void
test_delays(void **state)
{
	for (uint64_t before = 0; before < 3; before++) {
		uint64_t least_ms = UINT64_C(2000) << before;

		assert_int_equal(verdict(CLIENT_OK, 500, before, 0).delay_ms, least_ms);
		assert_true(verdict(CLIENT_OK, 500, before, 0.999).delay_ms > least_ms * 12 / 10);
		assert_true(verdict(CLIENT_OK, 500, before, 0.999).delay_ms < least_ms * 5 / 4);
	}
	assert_int_equal(verdict(CLIENT_OK, 500, 3, 0).what, VERDICT_DEAD);
	struct attempt a = {
	    .outcome = CLIENT_OK, .status = 429, .retry_after_ms = 30000, .before = 0};
	assert_int_equal(verdict_of(&a, &conf).delay_ms, 30000);
	a.retry_after_ms = 1000000; /* not for ever */
	assert_int_equal(verdict_of(&a, &conf).delay_ms, 60000);
	a.retry_after_ms = 1; /* nor sooner than others */
	assert_int_equal(verdict_of(&a, &conf).delay_ms, 2000);
}

static void
test_what_an_answer_means(void **state)
{
	static const struct {
		enum client_outcome outcome;
		int status;
		enum verdict_what what;
		const char *error;
		bool is_fault;
	} cases[] = {
	    {CLIENT_OK, 200, VERDICT_DELIVERED, NULL, false},
	    {CLIENT_OK, 204, VERDICT_DELIVERED, NULL, false},
	    {CLIENT_OK, 299, VERDICT_DELIVERED, NULL, false},
	    {CLIENT_OK, 301, VERDICT_AGAIN, "redirect_not_followed", true},
	    {CLIENT_OK, 404, VERDICT_AGAIN, "status", true},
	    {CLIENT_OK, 410, VERDICT_GONE, "gone", false},
	    {CLIENT_OK, 500, VERDICT_AGAIN, "status", true},
	    {CLIENT_CONNECT_FAILED, 0, VERDICT_AGAIN, "connect_failed", true},
	    {CLIENT_TIMEOUT, 0, VERDICT_AGAIN, "timeout", true},
	    {CLIENT_TIMEOUT, 500, VERDICT_AGAIN, "status", true},
	    {CLIENT_BROKEN, 0, VERDICT_AGAIN, "broken", true},
	    {CLIENT_REFUSED_ADDRESS, 0, VERDICT_DEAD, "refused_address", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct verdict v = verdict(cases[i].outcome, cases[i].status, 0, 0);

		assert_int_equal(v.what, cases[i].what);
		assert_int_equal(v.counts_as_fault, cases[i].is_fault);
		if (cases[i].error != NULL)
			assert_string_equal(v.error, cases[i].error);
		else
			assert_null(v.error);
	}
}

/* ---- endpoints ---- */

static const struct client_header header = {"Authorization", "Bearer t"};

static struct endpoint_named
named(const char *url)
{
	return (struct endpoint_named){.app_id = "demo",
	    .url = url,
	    .secret = "whsec_c2VjcmV0",
	    .headers = &header,
	    .header_count = 1,
	    .batch = 5};
}

static void
test_recorded_and_used(void **state)
{
	static const char *const keys[] = {"", "a key of thirty-two characters.."};

	for (size_t i = 0; i < 2; i++) {
		struct conf_webhooks mine = {.encryption_key = keys[i]};
		struct endpoint_named n = named("https://example.com/a?b=c");
		struct arena arena = ARENA_INIT;
		struct store_webhook_endpoint row, again;
		struct endpoint e;

		endpoint_format(&n, &mine, &arena, &row);
		endpoint_format(&n, &mine, &arena, &again);
		assert_string_equal(row.id, again.id);
		assert_int_equal(strstr(row.secrets, "whsec") == NULL, i == 1);
		assert_int_equal(strstr(row.headers, "Bearer") == NULL, i == 1);
		assert_true(endpoint_init(&e, &mine, &row));
		assert_string_equal(e.url, n.url);
		assert_string_equal(e.host, "https://example.com:443");
		assert_string_equal(e.secrets[0], n.secret);
		assert_string_equal(e.headers[0].value, "Bearer t");
		assert_int_equal(e.batch, 5);
		endpoint_fini(&e);
		n.secret = NULL;
		endpoint_format(&n, &mine, &arena, &again);
		assert_string_not_equal(row.id, again.id);
		/* Sealed with another key. */
		mine.encryption_key = "another one of thirty-two letters";
		assert_int_equal(endpoint_init(&e, &mine, &row), i == 0);
		endpoint_fini(&e);
		arena_fini(&arena);
	}
}

static void
test_refused(void **state)
{
	static const char *const urls[] = {"", "x", "ftp://example.com/", "http://", "http://a b/",
	    "http://user@example.com/", "http://example.com:22/", "file:///etc/passwd",
	    "https://example.com:99999/"};
	const char *field = NULL;
	struct endpoint_named n = named("https://example.com/");

	assert_null(endpoint_check(&n, &conf, &field));
	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		n.url = urls[i];
		assert_non_null(endpoint_check(&n, &conf, &field));
		assert_string_equal(field, "url");
	}
	n = named("http://example.com:8080/");
	assert_null(endpoint_check(&n, &conf, &field));
	n.headers = &(struct client_header){"Webhook-Id", "x"};
	assert_non_null(endpoint_check(&n, &conf, &field));
	assert_string_equal(field, "headers");
	n.headers = &(struct client_header){"X", "a\r\nb: c"};
	assert_non_null(endpoint_check(&n, &conf, &field));
	n = named("http://example.com:8080/");
	n.secret = "";
	assert_non_null(endpoint_check(&n, &conf, &field));
	assert_string_equal(field, "secret");
}

static void
test_of_the_configuration(void **state)
{
	const char *events[] = {"turn.*"}, *apps[] = {"demo"};
	struct conf_webhook one = {.name = "a",
	    .url = "https://user:pass@example.com/x",
	    .secret = "s",
	    .old_secret = "",
	    .events = {events, 1},
	    .apps = {apps, 1},
	    .batch = 1};
	struct conf_webhooks mine = {.encryption_key = "", .endpoints = {&one, 1}};
	struct arena arena = ARENA_INIT;
	struct store_webhook_endpoint row;
	struct endpoint e;

	endpoint_of_conf(&one, &arena, &row);
	assert_string_equal(row.id, "conf:a");
	assert_string_equal(row.url, "https://example.com/x"); /* no password in the record */
	assert_null(row.secrets);
	assert_true(endpoint_init(&e, &mine, &row));
	assert_string_equal(e.url, one.url);
	endpoint_fini(&e);
	assert_ptr_equal(endpoint_conf(&mine, "conf:a"), &one);
	assert_null(endpoint_conf(&mine, "conf:b"));
	assert_null(endpoint_conf(&mine, "whe_a"));
	assert_true(endpoint_wants(&one, "demo", "turn.completed"));
	assert_false(endpoint_wants(&one, "demo", "task.done"));
	assert_false(endpoint_wants(&one, "other", "turn.completed"));
	mine.endpoints.n = 0; /* taken out */
	assert_false(endpoint_init(&e, &mine, &row));
	endpoint_fini(&e);
	arena_fini(&arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_known_signature),
	    cmocka_unit_test(test_one_for_each_secret),
	    cmocka_unit_test(test_delays),
	    cmocka_unit_test(test_what_an_answer_means),
	    cmocka_unit_test(test_recorded_and_used),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_of_the_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
