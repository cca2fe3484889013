/*
 * provider_test - calls of a model through failures, with the clock and the upstream in the
 * test's hand: retries, chains, breakers, the gate, answers that break in the middle.
 *
 * Two providers, `a` and `b`; the alias "chain" is both in that order, "alone" is a's.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "t/replay/fake_client.h"
#include "t/replay/fake_loop.h"
#include "worker/provider/provider.h"

enum { FIRST_MS = 1000, STALL_MS = 2000, POOL_MS = 500, RECOVERY_MS = 60000 };

static struct loop *loop;
static struct client *client;
static struct providers *providers;
static struct shm *shm;
static struct shm_who me;
static struct conf conf;
static struct conf_provider confs[2];
static struct conf_target targets[4];
static struct conf_model models[3];

struct said {
	uint64_t handle;
	unsigned dones, restarts;
	struct buf text;
	int err;
	char message[200], provider[8], model[8];
	uint32_t retry_after_ms, attempts;
	uint64_t output_tokens;
};

static void
on_text(void *arg, struct str text)
{
	buf_add_str(&((struct said *)arg)->text, text);
}

static void
on_restarted(void *arg)
{
	struct said *s = arg;

	s->restarts++;
	buf_clear(&s->text);
}

static void
on_done(void *arg, const struct provider_result *r)
{
	struct said *s = arg;

	s->dones++;
	s->err = r->err;
	snprintf(s->message, sizeof(s->message), "%s", r->message != NULL ? r->message : "");
	snprintf(s->provider, sizeof(s->provider), "%s", r->provider);
	snprintf(s->model, sizeof(s->model), "%s", r->model);
	s->retry_after_ms = r->retry_after_ms;
	s->attempts = r->attempts;
	s->output_tokens = r->usage.output_tokens;
}

static void
begin_within(struct said *s, const char *alias, uint32_t timeout_ms)
{
	static const struct provider_handlers handlers = {on_text, NULL, on_done, on_restarted};
	json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
	struct provider_request r = {
	    .model = alias, .messages = messages, .timeout_ms = timeout_ms};

	*s = (struct said){0};
	s->handle = provider_call(providers, &r, &handlers, s);
	json_decref(messages);
	fake_loop_settle();
}

static void
begin(struct said *s, const char *alias)
{
	begin_within(s, alias, 600000);
}

static void
expect_end(struct said *s, int err, const char *text, const char *provider, uint32_t attempts)
{
	fake_loop_settle();
	assert_int_equal(s->dones, 1);
	if (s->err != err)
		fail_msg("%s: %s", s->err != 0 ? err_info(s->err)->name : "0", s->message);
	assert_string_equal(s->text.len > 0 ? s->text.data : "", text);
	assert_string_equal(s->provider, provider);
	assert_int_equal(s->attempts, attempts);
	buf_fini(&s->text);
}

/* The request that there is now, and no other. */
static unsigned
expect_asked(unsigned count, const char *provider)
{
	char url[64];

	fake_loop_settle();
	assert_int_equal(fake_client_requests(), count);
	snprintf(url, sizeof(url), "http://%s/chat/completions", provider);
	assert_string_equal(fake_client_url(count - 1), url);
	return count - 1;
}

/* The next request comes after a wait of so much at most. */
static void
wait_asked(unsigned count, unsigned limit_ms)
{
	for (unsigned ms = 0; ms < limit_ms && fake_client_requests() < count; ms++)
		fake_loop_advance(1);
	assert_int_equal(fake_client_requests(), count);
}

/* ---- retries ---- */

static void
test_backoff(void **state)
{
	struct said s;

	begin(&s, "alone");
	for (unsigned n = 1; n <= 3; n++) {
		fake_client_refuse(expect_asked(n, "a"), 500, "", "");
		assert_int_equal(s.dones, 0);
		wait_asked(n + 1, 500u << (n - 1)); /* full jitter: at most all of it */
	}
	fake_client_refuse(expect_asked(4, "a"), 503, "", "");
	expect_end(&s, E_PROVIDER, "", "a", 4);
}

static void
test_connection_failures_are_retried(void **state)
{
	static const enum client_outcome outcomes[] = {
	    CLIENT_CONNECT_FAILED, CLIENT_CONNECT_TIMEOUT, CLIENT_BROKEN};
	struct said s;

	begin(&s, "alone");
	for (unsigned i = 0; i < 3; i++) {
		fake_client_end(expect_asked(i + 1, "a"), outcomes[i]);
		wait_asked(i + 2, 500u << i);
	}
	fake_client_answer(expect_asked(4, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 4);
}

static void
test_retry_after_is_honoured(void **state)
{
	struct said s;

	begin(&s, "alone");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "2");
	fake_loop_advance(1999);
	assert_int_equal(fake_client_requests(), 1);
	fake_loop_advance(1);
	fake_client_answer(expect_asked(2, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 2);
}

static void
test_retry_after_beyond_the_time(void **state)
{
	struct said s;

	begin_within(&s, "alone", 5000);
	fake_client_refuse(expect_asked(1, "a"), 429, "", "6");
	expect_end(&s, E_RATE_LIMITED, "", "a", 1);
	assert_int_equal(s.retry_after_ms, 6000);
	begin(&s, "alone");
	fake_client_refuse(expect_asked(2, "a"), 429, "", "31"); /* beyond backoff_max */
	expect_end(&s, E_RATE_LIMITED, "", "a", 1);
}

static void
test_retry_after_and_another_target(void **state)
{
	struct said s;

	begin(&s, "chain");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "20");
	fake_client_answer(expect_asked(2, "b"), "yes"); /* at once */
	expect_end(&s, 0, "yes", "b", 2);
	assert_string_equal(s.model, "mb");
}

static void
test_refusals_are_answers(void **state)
{
	struct said s;

	begin(&s, "chain");
	fake_client_refuse(expect_asked(1, "a"), 400,
	    "{\"error\":{\"message\":\"No.\",\"code\":\"content_policy_violation\"}}", "");
	expect_end(&s, E_PROVIDER_REFUSED, "", "a", 1);
	assert_string_equal(s.message, "No. (content_policy_violation)");
}

static void
test_time_is_up(void **state)
{
	struct said s;

	begin_within(&s, "chain", 300);
	fake_client_stream(expect_asked(1, "a"));
	fake_loop_advance(300);
	expect_end(&s, E_PROVIDER_TIMEOUT, "", "a", 1);
}

static void
test_budget(void **state)
{
	struct said s[30];
	unsigned made = 0;

	/* 30 calls fail together: 10 retries, whatever max_retries would permit */
	confs[0].breaker.failures = 0;
	confs[0].breaker.failure_rate = 0;
	providers_free(&providers);
	providers = providers_new(loop, client, &conf, shm, me);
	for (unsigned i = 0; i < 30; i++)
		begin(&s[i], "alone");
	assert_int_equal(fake_client_requests(), 30);
	for (unsigned turn = 0; turn < 100; turn++) {
		for (; made < fake_client_requests(); made++)
			fake_client_refuse(made, 500, "", "");
		fake_loop_advance(50);
	}
	assert_int_equal(fake_client_requests(), 40);
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(s[i].dones, 1);
		assert_int_equal(s[i].err, E_PROVIDER);
	}
}

/* ---- chains ---- */

static void
test_silence_is_not_asked_again(void **state)
{
	struct said s;

	begin(&s, "chain");
	expect_asked(1, "a");
	fake_loop_advance(FIRST_MS - 1);
	assert_int_equal(fake_client_requests(), 1);
	fake_loop_advance(1);
	assert_false(fake_client_is_open(0));
	fake_client_answer(expect_asked(2, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 2);
	begin(&s, "alone");
	expect_asked(3, "a");
	fake_loop_advance(FIRST_MS);
	expect_end(&s, E_PROVIDER_TIMEOUT, "", "a", 1);
}

static void
test_a_comment_is_life(void **state)
{
	struct said s;

	begin(&s, "alone");
	fake_client_stream(expect_asked(1, "a"));
	for (int i = 0; i < 60; i++) { /* it thinks for a minute */
		fake_loop_advance(FIRST_MS - 1);
		fake_client_say(0, ": thinking\n\n");
	}
	fake_client_delta(0, "so");
	for (int i = 0; i < 10; i++) {
		fake_loop_advance(STALL_MS - 1);
		fake_client_say(0, ":\n\n");
	}
	assert_int_equal(s.dones, 0);
	fake_client_finish(0);
	fake_client_end(0, CLIENT_OK);
	expect_end(&s, 0, "so", "a", 1);
}

static void
test_what_goes_elsewhere_at_once(void **state)
{
	static const struct {
		int status;
		const char *type, *body;
	} cases[] = {
	    {401, "application/json", "{\"error\":{\"message\":\"key\"}}"},
	    {402, "application/json", ""},
	    {404, "application/json", "{\"error\":{\"message\":\"model\"}}"},
	    {429, "application/json", "{\"error\":{\"code\":\"insufficient_quota\"}}"},
	    {200, "text/html", "<p>"},
	    {200, "text/event-stream", "data: {\"cho\n\n"},
	    {200, "text/event-stream", "data: {\"error\":{\"code\":\"invalid_api_key\"}}\n\n"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct said s;

		begin(&s, "chain");
		unsigned at = expect_asked(2 * i + 1, "a");
		fake_client_head(at, cases[i].status, cases[i].type, "");
		if (fake_client_is_open(at) && *cases[i].body != '\0')
			fake_client_say(at, cases[i].body);
		if (fake_client_is_open(at))
			fake_client_end(at, CLIENT_OK);
		fake_client_answer(expect_asked(2 * i + 2, "b"), "yes");
		expect_end(&s, 0, "yes", "b", 2);
	}
}

static void
test_context_goes_to_a_larger_one(void **state)
{
	static const char *const body = "{\"error\":{\"message\":\"Too long.\","
					"\"code\":\"context_length_exceeded\"}}";
	struct said s;

	begin(&s, "chain"); /* a has 1000, b has 1000 */
	fake_client_refuse(expect_asked(1, "a"), 400, body, "");
	expect_end(&s, E_PROVIDER_REFUSED, "", "a", 1);
	assert_string_equal(s.message, "Too long. (context_length_exceeded)");
	targets[1].context = 2000;
	begin(&s, "chain");
	fake_client_refuse(expect_asked(2, "a"), 400, body, "");
	fake_client_answer(expect_asked(3, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 2);
}

static void
test_the_last_failure_is_told(void **state)
{
	struct said s;

	begin(&s, "chain");
	fake_client_refuse(expect_asked(1, "a"), 401, "", "");
	fake_client_refuse(expect_asked(2, "b"), 429, "", "40");
	expect_end(&s, E_RATE_LIMITED, "", "b", 2);
	assert_int_equal(s.retry_after_ms, 40000);
}

/* ---- breakers ---- */

static void
open_breaker(void)
{
	for (unsigned i = 0; i < 5; i++) {
		struct said s;

		begin(&s, "alone");
		fake_loop_advance(FIRST_MS); /* silent, so never twice */
		expect_end(&s, E_PROVIDER_TIMEOUT, "", "a", 1);
	}
	assert_int_equal(fake_client_requests(), 5);
}

static void
test_breaker(void **state)
{
	struct said s, other;

	open_breaker();
	begin(&s, "alone");
	expect_end(&s, E_UNAVAILABLE, "", "a", 0);
	assert_int_equal(s.retry_after_ms, RECOVERY_MS);
	begin(&s, "chain");
	fake_client_answer(expect_asked(6, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 1);

	fake_loop_advance(RECOVERY_MS);
	begin(&s, "chain"); /* is the probe */
	expect_asked(7, "a");
	begin(&other, "chain"); /* there is one only */
	fake_client_answer(expect_asked(8, "b"), "yes");
	expect_end(&other, 0, "yes", "b", 1);
	fake_client_answer(6, "back");
	expect_end(&s, 0, "back", "a", 1);
	begin(&s, "alone");
	fake_client_answer(expect_asked(9, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

static void
test_probe_fails(void **state)
{
	struct said s;

	open_breaker();
	fake_loop_advance(RECOVERY_MS);
	begin(&s, "chain");
	fake_client_refuse(expect_asked(6, "a"), 500, "", "");
	fake_client_answer(expect_asked(7, "b"), "yes"); /* no retry at an open breaker */
	expect_end(&s, 0, "yes", "b", 2);
	fake_loop_advance(RECOVERY_MS - 1);
	begin(&s, "alone");
	expect_end(&s, E_UNAVAILABLE, "", "a", 0);
}

static void
test_probe_is_given_back(void **state)
{
	struct said s;

	open_breaker();
	fake_loop_advance(RECOVERY_MS);
	begin(&s, "alone");
	expect_asked(6, "a");
	provider_cancel(providers, s.handle);
	assert_false(fake_client_is_open(5));
	begin(&s, "alone");
	fake_client_answer(expect_asked(7, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

/* ---- the gate ---- */

static void
test_places(void **state)
{
	struct said s[4];

	confs[0].http_client.concurrent_requests = 2;
	for (int i = 0; i < 4; i++)
		begin(&s[i], "alone");
	assert_int_equal(fake_client_requests(), 2);
	fake_client_answer(0, "0");
	fake_loop_settle();
	assert_int_equal(fake_client_requests(), 3); /* the next one, at once */
	provider_cancel(providers, s[1].handle);
	fake_loop_settle();
	assert_int_equal(fake_client_requests(), 4);
	assert_false(fake_client_is_open(1));
	fake_client_answer(2, "2");
	fake_client_answer(3, "3");
	expect_end(&s[0], 0, "0", "a", 1);
	expect_end(&s[2], 0, "2", "a", 1);
	expect_end(&s[3], 0, "3", "a", 1);
	assert_int_equal(s[1].dones, 0);
}

static void
test_no_place_in_time(void **state)
{
	struct said s, waits, falls;

	confs[0].http_client.concurrent_requests = 1;
	begin(&s, "alone");
	begin(&waits, "alone");
	begin(&falls, "chain");
	fake_client_stream(0);
	fake_client_delta(0, "x");
	fake_loop_advance(POOL_MS + 10);
	expect_end(&waits, E_POOL_TIMEOUT, "", "a", 0);
	fake_client_answer(expect_asked(2, "b"), "yes");
	expect_end(&falls, 0, "yes", "b", 1);
	fake_client_finish(0);
	fake_client_end(0, CLIENT_OK);
	expect_end(&s, 0, "x", "a", 1);
}

static void
test_requests_per_minute(void **state)
{
	struct said s;

	confs[0].http_client.requests_per_minute = 2;
	for (unsigned i = 0; i < 2; i++) {
		begin(&s, "alone");
		fake_client_answer(expect_asked(i + 1, "a"), "yes");
		expect_end(&s, 0, "yes", "a", 1);
	}
	begin(&s, "alone"); /* the next share is later than pool_timeout: at once */
	expect_end(&s, E_RATE_LIMITED, "", "a", 0);
	assert_in_range(s.retry_after_ms, 59000, 60000);
	begin(&s, "chain");
	fake_client_answer(expect_asked(3, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 1);
	fake_loop_advance(60000 - POOL_MS / 2);
	begin(&s, "alone"); /* .. sooner: it waits */
	assert_int_equal(fake_client_requests(), 3);
	fake_loop_advance(POOL_MS / 2 + 10);
	fake_client_answer(expect_asked(4, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

/* Another worker of the host holds the place, and dies. */
static void
test_places_of_the_host(void **state)
{
	struct providers *others;
	struct shm_who other;
	struct said s;

	confs[0].http_client.concurrent_requests = 1;
	assert_true(shm_row_claim(shm, 1, 2, &other));
	others = providers_new(loop, client, &conf, shm, other);
	struct providers *mine = providers;
	struct said theirs;
	providers = others;
	begin(&theirs, "alone");
	providers = mine;
	begin(&s, "alone");
	fake_loop_advance(100);
	assert_int_equal(fake_client_requests(), 1);
	shm_row_reap(shm, other);
	fake_loop_advance(10);
	fake_client_answer(expect_asked(2, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
	/* What the dead one would give is no longer its own. */
	assert_true(fake_client_is_open(0));
	fake_client_answer(0, "late");
	expect_end(&theirs, 0, "late", "a", 1);
	providers_free(&others);
}

/* Who has waited for longest gets the place, wherever he waits. */
static void
test_in_order_over_workers(void **state)
{
	struct providers *mine = providers, *others;
	struct shm_who other;
	struct said s[2], theirs;

	confs[0].http_client.concurrent_requests = 1;
	assert_true(shm_row_claim(shm, 1, 2, &other));
	others = providers_new(loop, client, &conf, shm, other);
	begin(&s[0], "alone");
	fake_loop_advance(10);
	providers = others;
	begin(&theirs, "alone"); /* waits */
	providers = mine;
	fake_loop_advance(10);
	begin(&s[1], "alone"); /* waits in the worker that gets the place back */
	fake_loop_advance(10);
	fake_client_answer(0, "0");
	expect_end(&s[0], 0, "0", "a", 1);
	fake_loop_advance(10);
	fake_client_answer(expect_asked(2, "a"), "theirs");
	expect_end(&theirs, 0, "theirs", "a", 1);
	assert_int_equal(s[1].dones, 0);
	fake_loop_advance(10);
	fake_client_answer(expect_asked(3, "a"), "1");
	expect_end(&s[1], 0, "1", "a", 1);
	providers_free(&others);
}

/* Nothing is left of a call, whatever it waited for. */
static void
test_cancel_anywhere(void **state)
{
	struct said s, other;

	begin(&s, "alone"); /* in the back-off */
	fake_client_refuse(expect_asked(1, "a"), 500, "", "");
	provider_cancel(providers, s.handle);
	fake_loop_advance(60000);
	assert_int_equal(fake_client_requests(), 1);

	confs[0].http_client.concurrent_requests = 1; /* at the gate */
	begin(&s, "alone");
	begin(&other, "alone");
	provider_cancel(providers, other.handle);
	fake_client_answer(expect_asked(2, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
	fake_loop_advance(60000);
	assert_int_equal(fake_client_requests(), 2);
	assert_int_equal(other.dones + fake_client_open(), 0);
}

/* ---- answers that break in the middle ---- */

/* Half an answer of a's; then its end. */
static void
break_at(struct said *s, const char *text)
{
	begin(s, "chain");
	unsigned at = expect_asked(fake_client_requests(), "a");

	fake_client_stream(at);
	fake_client_delta(at, text);
	fake_client_end(at, CLIENT_BROKEN);
}

static void
test_continued(void **state)
{
	struct said s;

	targets[1].supports_prefill = true;
	break_at(&s, "one \"two\"");
	unsigned at = expect_asked(2, "b");
	assert_non_null(strstr(
	    fake_client_body(at), "{\"role\":\"assistant\",\"content\":\"one \\\"two\\\"\"}]"));
	fake_client_answer(at, " three");
	assert_int_equal(s.restarts, 0);
	assert_int_equal(s.output_tokens, 3); /* of the one that answered */
	expect_end(&s, 0, "one \"two\" three", "b", 2);
}

static void
test_repeated(void **state)
{
	struct said s;

	break_at(&s, "one two");
	unsigned at = expect_asked(2, "b");
	assert_null(strstr(fake_client_body(at), "assistant"));
	fake_client_stream(at);
	fake_client_delta(at, "one t");
	fake_client_delta(at, "wo three");
	fake_client_finish(at);
	fake_client_end(at, CLIENT_OK);
	assert_int_equal(s.restarts, 0);
	expect_end(&s, 0, "one two three", "b", 2);
}

static void
test_restarted(void **state)
{
	struct said s;

	break_at(&s, "one two");
	fake_client_answer(expect_asked(2, "b"), "one, three");
	assert_int_equal(s.restarts, 1);
	expect_end(&s, 0, "one, three", "b", 2);
	break_at(&s, "one two");
	fake_client_answer(expect_asked(4, "b"), "one"); /* shorter */
	assert_int_equal(s.restarts, 1);
	expect_end(&s, 0, "one", "b", 2);
}

static void
test_nowhere_to_go_on(void **state)
{
	struct said s;

	begin(&s, "alone");
	fake_client_stream(expect_asked(1, "a"));
	fake_client_delta(0, "one");
	fake_client_end(0, CLIENT_BROKEN);
	expect_end(&s, E_PROVIDER, "one", "a", 1); /* and the same target is not asked again */
	break_at(&s, "one");
	fake_client_refuse(expect_asked(3, "b"), 401, "", "");
	expect_end(&s, E_PROVIDER, "one", "b", 2);
}

static void
test_every_break_goes_on(void **state)
{
	static const char *const bytes[] = {"data: {\"cho\n\n",
	    "data: {\"error\":{\"message\":\"overloaded\"}}\n\n", "data: [DONE]\n\n", NULL};

	for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
		struct said s;

		begin(&s, "chain");
		unsigned at = expect_asked(2 * i + 1, "a");
		fake_client_stream(at);
		fake_client_delta(at, "one");
		if (bytes[i] != NULL)
			fake_client_say(at, bytes[i]);
		else
			fake_loop_advance(STALL_MS);
		assert_false(fake_client_is_open(at));
		fake_client_answer(expect_asked(2 * i + 2, "b"), "one two");
		assert_int_equal(s.restarts, 0);
		expect_end(&s, 0, "one two", "b", 2);
	}
}

static void
test_whole_without_its_end(void **state)
{
	struct said s;

	begin(&s, "chain"); /* no [DONE], and the connection stays open */
	fake_client_stream(expect_asked(1, "a"));
	fake_client_delta(0, "one");
	fake_client_finish(0);
	fake_loop_advance(1000);
	expect_end(&s, 0, "one", "a", 1);
	assert_false(fake_client_is_open(0));
	begin(&s, "chain"); /* the connection breaks after finish_reason */
	fake_client_stream(expect_asked(2, "a"));
	fake_client_delta(1, "one");
	fake_client_finish(1);
	fake_client_end(1, CLIENT_BROKEN);
	expect_end(&s, 0, "one", "a", 1);
}

/* ---- the frame ---- */

static void
make_conf(void)
{
	confs[0] = (struct conf_provider){
	    .name = "a", .dialect = "openai", .base_url = "http://a", .api_key = "sk-a"};
	confs[0].http_client.max_connections = 100;
	confs[0].http_client.concurrent_requests = 100;
	confs[0].http_client.pool_timeout_ms = POOL_MS;
	confs[0].http_client.read_timeout_ms = 5000;
	confs[0].http_client.first_token_timeout_ms = FIRST_MS;
	confs[0].http_client.stall_timeout_ms = STALL_MS;
	confs[0].http_client.max_retries = 3;
	confs[0].http_client.backoff_factor = 0.5;
	confs[0].http_client.backoff_max_ms = 30000;
	confs[0].breaker.failures = 5;
	confs[0].breaker.failure_rate = 0.2;
	confs[0].breaker.min_calls = 20;
	confs[0].breaker.window_ms = 60000;
	confs[0].breaker.recovery_ms = RECOVERY_MS;
	confs[1] = confs[0];
	confs[1].name = "b";
	confs[1].base_url = "http://b";
	targets[0] = (struct conf_target){.provider = "a", .model = "ma", .context = 1000};
	targets[1] = (struct conf_target){.provider = "b", .model = "mb", .context = 1000};
	targets[2] = targets[0];
	targets[2].model = "alone";
	models[0] = (struct conf_model){.name = "chain", .targets = {.v = targets, .n = 2}};
	models[1] = (struct conf_model){.name = "alone", .targets = {.v = targets, .n = 1}};
	conf.providers.v = confs;
	conf.providers.n = 2;
	conf.models.v = models;
	conf.models.n = 2;
}

static int
setup(void **state)
{
	make_conf();
	loop = loop_new();
	client = client_new(loop);
	shm = shm_create(2);
	assert_true(shm_row_claim(shm, 0, 1, &me));
	providers = providers_new(loop, client, &conf, shm, me);
	return 0;
}

static int
teardown(void **state)
{
	fake_loop_settle();
	providers_free(&providers);
	client_free(&client);
	shm_free(&shm);
	fake_client_forget();
	assert_int_equal(fake_loop_timers(), 0);
	loop_free(&loop);
	return 0;
}

/* ---- a provider that wants not to be asked ---- */

static void
cool_down(unsigned ms)
{
	for (size_t i = 0; i < 2; i++)
		confs[i].http_client.cooldown_max_ms = ms;
}

/* One call is told, all know. */
static void
test_cool_down_goes_elsewhere(void **state)
{
	struct said s;

	cool_down(60000);
	begin(&s, "chain");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "20");
	fake_client_answer(expect_asked(2, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 2);
	fake_loop_advance(19000);
	begin(&s, "chain");
	fake_client_answer(expect_asked(3, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 1);
	fake_loop_advance(1000);
	begin(&s, "chain");
	fake_client_answer(expect_asked(4, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

static void
test_cool_down_is_waited_for(void **state)
{
	struct said first, s;

	cool_down(60000);
	begin(&first, "alone");
	fake_client_refuse(expect_asked(1, "a"), 503, "", "2");
	begin(&s, "alone");
	expect_asked(1, "a");
	fake_loop_advance(1999);
	expect_asked(1, "a");
	wait_asked(2, 1); /* who was told comes first, .. */
	fake_client_answer(1, "one");
	expect_end(&first, 0, "one", "a", 2);
	wait_asked(3, 500); /* .. the others are spread */
	fake_client_answer(2, "two");
	expect_end(&s, 0, "two", "a", 1);
}

static void
test_cool_down_beyond_the_time_is_an_answer(void **state)
{
	struct said s;

	cool_down(60000);
	begin(&s, "alone");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "50");
	expect_end(&s, E_RATE_LIMITED, "", "a", 1);
	fake_loop_advance(10000);
	begin(&s, "alone"); /* longer than backoff_max */
	expect_end(&s, E_RATE_LIMITED, "", "a", 0);
	assert_int_equal(s.retry_after_ms, 40000);
	assert_int_equal(fake_client_requests(), 1);
	fake_loop_advance(30000);
	begin_within(&s, "alone", 5000);
	expect_end(&s, E_RATE_LIMITED, "", "a", 0);
	assert_int_equal(s.retry_after_ms, 10000);
	begin_within(&s, "alone", 20000);
	wait_asked(2, 10500);
	fake_client_answer(1, "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

static void
test_cool_down_has_a_limit(void **state)
{
	struct said s;

	cool_down(5000);
	begin(&s, "alone");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "86400");
	expect_end(&s, E_RATE_LIMITED, "", "a", 1);
	assert_int_equal(s.retry_after_ms, 86400000);
	fake_loop_advance(5000);
	begin(&s, "alone");
	fake_client_answer(expect_asked(2, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

/* Refusals that have nothing to do with how much is asked do not count, nor do those without the
 * header. */
static void
test_what_does_not_cool_down(void **state)
{
	struct said s;

	cool_down(60000);
	begin(&s, "chain");
	fake_client_refuse(expect_asked(1, "a"), 401, "", "20");
	fake_client_answer(expect_asked(2, "b"), "yes");
	expect_end(&s, 0, "yes", "b", 2);
	begin(&s, "chain");
	fake_client_answer(expect_asked(3, "a"), "yes");
	expect_end(&s, 0, "yes", "a", 1);
}

static void
test_cancelled_while_it_cools_down(void **state)
{
	struct said first, s;

	cool_down(60000);
	begin(&first, "alone");
	fake_client_refuse(expect_asked(1, "a"), 429, "", "2");
	begin(&s, "alone");
	provider_cancel(providers, s.handle);
	provider_cancel(providers, first.handle);
	fake_loop_advance(5000);
	assert_int_equal(fake_client_requests(), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_backoff),
	    TEST(test_connection_failures_are_retried),
	    TEST(test_retry_after_is_honoured),
	    TEST(test_retry_after_beyond_the_time),
	    TEST(test_retry_after_and_another_target),
	    TEST(test_refusals_are_answers),
	    TEST(test_time_is_up),
	    TEST(test_budget),
	    TEST(test_silence_is_not_asked_again),
	    TEST(test_a_comment_is_life),
	    TEST(test_what_goes_elsewhere_at_once),
	    TEST(test_context_goes_to_a_larger_one),
	    TEST(test_the_last_failure_is_told),
	    TEST(test_cool_down_goes_elsewhere),
	    TEST(test_cool_down_is_waited_for),
	    TEST(test_cool_down_beyond_the_time_is_an_answer),
	    TEST(test_cool_down_has_a_limit),
	    TEST(test_what_does_not_cool_down),
	    TEST(test_cancelled_while_it_cools_down),
	    TEST(test_breaker),
	    TEST(test_probe_fails),
	    TEST(test_probe_is_given_back),
	    TEST(test_places),
	    TEST(test_no_place_in_time),
	    TEST(test_requests_per_minute),
	    TEST(test_places_of_the_host),
	    TEST(test_in_order_over_workers),
	    TEST(test_cancel_anywhere),
	    TEST(test_continued),
	    TEST(test_repeated),
	    TEST(test_restarted),
	    TEST(test_nowhere_to_go_on),
	    TEST(test_every_break_goes_on),
	    TEST(test_whole_without_its_end),
	};

	log_open(&(struct log_conf){.level = LOG_ERROR});
	return cmocka_run_group_tests(tests, NULL, NULL);
}
