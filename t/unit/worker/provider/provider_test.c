/*
 * provider_test - calls of a model over real sockets against mock_llm: each ends
 * exactly once, with the right error, and leaves nothing running upstream.
 */
#include "t/unit/unit.h"

#include <time.h>

#include "common/err.h"
#include "common/log.h"
#include "t/unit/mock_llm.h"
#include "t/unit/pump.h"
#include "worker/provider/provider.h"

static struct mock_llm mock;
static struct loop *loop;
static struct client *client;
static struct providers *providers;
static struct conf conf;

struct seen {
	uint64_t handle;
	unsigned dones;
	bool in_verb;
	bool cancels_in_text;
	struct buf text, reasoning, calls;
	int err;
	char message[600], provider[32], model[128];
	uint32_t retry_after_ms;
	enum provider_finish finish;
	struct provider_usage usage;
};

static bool in_verb;

static void
on_text(void *arg, struct str text)
{
	struct seen *s = arg;

	s->in_verb |= in_verb;
	assert_int_equal(s->dones, 0);
	buf_add_str(&s->text, text);
	if (s->cancels_in_text)
		provider_cancel(providers, s->handle);
}

static void
on_reasoning(void *arg, struct str text)
{
	buf_add_str(&((struct seen *)arg)->reasoning, text);
}

static void
on_done(void *arg, const struct provider_result *r)
{
	struct seen *s = arg;

	s->in_verb |= in_verb;
	assert_int_equal(s->dones++, 0);
	s->err = r->err;
	snprintf(s->message, sizeof(s->message), "%s", r->message != NULL ? r->message : "");
	snprintf(s->provider, sizeof(s->provider), "%s", r->provider);
	snprintf(s->model, sizeof(s->model), "%s", r->model);
	s->retry_after_ms = r->retry_after_ms;
	s->finish = r->finish;
	s->usage = r->usage;
	for (uint32_t i = 0; i < r->tool_call_count; i++)
		buf_printf(&s->calls, "%s:%s(%s)", r->tool_calls[i].id, r->tool_calls[i].name,
		    r->tool_calls[i].arguments);
	provider_cancel(providers, s->handle); /* unknown by now */
}

static void
seen_fini(struct seen *s)
{
	buf_fini(&s->text);
	buf_fini(&s->reasoning);
	buf_fini(&s->calls);
	*s = (struct seen){0};
}

/* One user message, its directives included. */
static void
begin_with(struct seen *s, const char *alias, const char *said, struct provider_request r)
{
	static const struct provider_handlers handlers = {on_text, on_reasoning, on_done, NULL};
	json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", said);
	json_t *tools = json_pack("[{s:s, s:{s:s}}, {s:s, s:{s:s}}]", "type", "function",
	    "function", "name", "look", "type", "function", "function", "name", "b");

	r.model = alias;
	r.messages = messages;
	r.tools = tools;
	in_verb = true;
	s->handle = provider_call(providers, &r, &handlers, s);
	in_verb = false;
	assert_true(s->handle != 0);
	json_decref(messages); /* borrowed for the call only */
	json_decref(tools);
}

static void
begin(struct seen *s, const char *said)
{
	begin_with(s, NULL, said, (struct provider_request){.timeout_ms = 5000});
}

static bool
is_done(void *arg)
{
	return ((struct seen *)arg)->dones > 0;
}

static bool
has_text(void *arg)
{
	return ((struct seen *)arg)->text.len > 0;
}

static bool
mock_is_idle(void *arg)
{
	return mock_llm_stat(&mock, "active_requests") == 0;
}

static bool
mock_is_busy(void *arg)
{
	return mock_llm_stat(&mock, "active_requests") > 0;
}

static void
finish(struct seen *s)
{
	assert_true(pump_until(loop, is_done, s));
	assert_false(s->in_verb);
}

static const char *
text_of(const struct buf *b)
{
	return b->len > 0 ? b->data : "";
}

/* ---- whole answers ---- */

static void
test_text(void **state)
{
	struct seen s = {0};

	begin(&s, "[[mock tokens=4 reasoning=2 cached=3]] how are you");
	finish(&s);
	assert_int_equal(s.err, 0);
	assert_string_equal(text_of(&s.text), "tok0 tok1 tok2 tok3");
	assert_string_equal(text_of(&s.reasoning), "why0 why1");
	assert_int_equal(s.finish, PROVIDER_FINISH_STOP);
	assert_string_equal(s.provider, "mock");
	assert_string_equal(s.model, "m1");
	assert_false(s.usage.is_estimated);
	assert_int_equal(s.usage.output_tokens, 6);
	assert_int_equal(s.usage.cached_tokens, 3);
	assert_true(s.usage.input_tokens >= 12);
	seen_fini(&s);
}

static void
test_usage_is_estimated(void **state)
{
	struct seen s = {0};

	begin(&s, "[[mock tokens=4 no_usage]]");
	finish(&s);
	assert_int_equal(s.err, 0);
	assert_true(s.usage.is_estimated);
	assert_int_equal(s.usage.output_tokens, 5); /* 19 bytes */
	assert_true(s.usage.input_tokens > 0);
	seen_fini(&s);
}

static void
test_tool_calls(void **state)
{
	struct seen s = {0};

	begin(&s, "[[mock tool=look args={\"at\":[[1],\"\xc3\xb6\"]} tool=b]]");
	finish(&s);
	assert_int_equal(s.err, 0);
	assert_int_equal(s.finish, PROVIDER_FINISH_TOOL_CALLS);
	assert_string_equal(
	    text_of(&s.calls), "call_0:look({\"at\":[[1],\"\xc3\xb6\"]})call_1:b({})");
	seen_fini(&s);
}

static void
test_what_is_sent(void **state)
{
	struct seen s = {0};

	begin_with(&s, "other", "hi",
	    (struct provider_request){.request_id = "req-1", .traceparent = "00-a-b-01"});
	finish(&s);
	assert_int_equal(s.err, 0);
	assert_string_equal(s.model, "m2");
	seen_fini(&s);
	/* one that would begin another header is left out */
	begin_with(&s, NULL, "hi", (struct provider_request){.request_id = "a\r\nX-Evil: 1"});
	finish(&s);
	assert_int_equal(s.err, 0);
	seen_fini(&s);

	json_t *requests = mock_llm_ask(&mock, "GET", "/mock/requests", "");
	const json_t *second = json_array_get(requests, 0), *first = json_array_get(requests, 1);
	const json_t *headers = json_object_get(first, "headers");
	const json_t *body = json_object_get(first, "body");
	assert_string_equal(
	    json_string_value(json_object_get(first, "path")), "/v1/chat/completions");
	assert_string_equal(
	    json_string_value(json_object_get(headers, "authorization")), "Bearer sk-1");
	assert_string_equal(json_string_value(json_object_get(headers, "x-request-id")), "req-1");
	assert_string_equal(
	    json_string_value(json_object_get(headers, "traceparent")), "00-a-b-01");
	assert_string_equal(
	    json_string_value(json_object_get(headers, "content-type")), "application/json");
	assert_null(json_object_get(headers, "expect"));
	assert_string_equal(json_string_value(json_object_get(body, "model")), "m2");
	assert_true(json_is_true(json_object_get(body, "stream")));
	assert_int_equal(json_array_size(json_object_get(body, "tools")), 2);
	headers = json_object_get(second, "headers");
	assert_null(json_object_get(headers, "x-evil"));
	assert_null(json_object_get(headers, "x-request-id"));
	json_decref(requests);
}

static void
test_unknown_model(void **state)
{
	struct seen s = {0};

	begin_with(&s, "nobody", "hi", (struct provider_request){0});
	finish(&s);
	assert_int_equal(s.err, E_INVALID_VALUE);
	assert_false(providers_know_model(providers, "nobody"));
	assert_true(providers_know_model(providers, "other"));
	assert_true(providers_know_model(providers, NULL));
	seen_fini(&s);
	/* cancelled before it could fail */
	begin_with(&s, "nobody", "hi", (struct provider_request){0});
	provider_cancel(providers, s.handle);
	begin(&s, "hi");
	finish(&s);
	assert_int_equal(s.err, 0);
	seen_fini(&s);
}

/* ---- faults ---- */

static void
expect_of(const char *alias, const char *said, int err, const char *text, const char *message)
{
	struct seen s = {0};

	begin_with(&s, alias, said, (struct provider_request){.timeout_ms = 5000});
	finish(&s);
	if (s.err != err || strcmp(text_of(&s.text), text) != 0 || strcmp(s.message, message) != 0)
		fail_msg("%s: %s text=\"%s\" message=\"%s\"", said,
		    s.err != 0 ? err_info(s.err)->name : "0", text_of(&s.text), s.message);
	seen_fini(&s);
	if (!pump_until(loop, mock_is_idle, NULL))
		fail_msg("%s: the upstream goes on", said);
}

static void
expect(const char *said, int err, const char *text, const char *message)
{
	expect_of(NULL, said, err, text, message);
}

#define FAILED    "The model provider failed."
#define TOO_LONG  "The model provider took too long."
#define MALFORMED "The model provider's answer was malformed."
#define CUT       "The model provider's answer ended before it was complete."

static void
test_error_statuses(void **state)
{
	expect("[[mock fault=status:400]]", E_PROVIDER_REFUSED, "",
	    "mock fault status 400 (mock_fault)");
	expect("[[mock fault=status:422]]", E_PROVIDER_REFUSED, "",
	    "mock fault status 422 (mock_fault)");
	expect("[[mock fault=status:404]]", E_PROVIDER_REFUSED, "",
	    "mock fault status 404 (mock_fault)");
	expect("[[mock fault=status:400 message=\"what about sk-1 here\"]]", E_PROVIDER_REFUSED, "",
	    "The model provider refused the request.");
	expect("[[mock fault=status:401]]", E_PROVIDER, "", FAILED);
	expect("[[mock fault=status:403]]", E_PROVIDER, "", FAILED);
	expect("[[mock fault=status:500]]", E_PROVIDER, "", FAILED);
	expect("[[mock fault=status:503 retry_after=3]]", E_PROVIDER, "", FAILED);
	expect("[[mock fault=status:204]]", E_PROVIDER, "",
	    "The model provider's answer was not an event stream.");
}

static void
test_rate_limited(void **state)
{
	struct seen s = {0};

	begin(&s, "[[mock fault=status:429 retry_after=7]]");
	finish(&s);
	assert_int_equal(s.err, E_RATE_LIMITED);
	assert_int_equal(s.retry_after_ms, 7000);
	seen_fini(&s);
	begin(&s, "[[mock fault=status:429]]");
	finish(&s);
	assert_int_equal(s.err, E_RATE_LIMITED);
	assert_int_equal(s.retry_after_ms, 0);
	seen_fini(&s);
	/* a date */
	char said[128], date[64];
	time_t at = time(NULL) + 100;
	struct tm tm;
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &tm));
	snprintf(said, sizeof(said), "[[mock fault=status:429 retry_after=\"%s\"]]", date);
	begin(&s, said);
	finish(&s);
	assert_in_range(s.retry_after_ms, 95000, 100000);
	seen_fini(&s);
}

static void
test_broken_streams(void **state)
{
	expect("[[mock fault=reset]]", E_PROVIDER, "", FAILED);
	expect("[[mock fault=close]]", E_PROVIDER, "", FAILED);
	expect("[[mock tokens=5 fault=cut_mid]]", E_PROVIDER, "tok0 tok1", FAILED);
	expect("[[mock tokens=5 fault=cut_fin]]", E_PROVIDER, "tok0 tok1", FAILED);
	expect("[[mock tokens=5 fault=cut_clean]]", E_PROVIDER, "tok0 tok1", CUT);
	expect("[[mock tokens=5 fault=no_finish]]", E_PROVIDER, "tok0 tok1 tok2 tok3 tok4", CUT);
	expect("[[mock tokens=5 fault=empty]]", E_PROVIDER, "", CUT);
	expect("[[mock tokens=5 fault=malformed]]", E_PROVIDER, "tok0 tok1", MALFORMED);
	expect("[[mock tokens=5 fault=bad_utf8]]", E_PROVIDER, "tok0 tok1", MALFORMED);
	expect("[[mock tokens=5 fault=error_event]]", E_PROVIDER, "tok0 tok1",
	    "mock fault error_event (mock_error)");
	expect("[[mock tokens=5 fault=huge_line]]", E_PROVIDER, "tok0 tok1",
	    "An event of the model provider was too large.");
	expect("[[mock tokens=5 fault=wrong_type]]", E_PROVIDER, "",
	    "The model provider's answer was not an event stream.");
}

static void
test_odd_streams(void **state)
{
	expect("[[mock tokens=3 fault=no_done]]", 0, "tok0 tok1 tok2", "");
	expect("[[mock tokens=3 fault=crlf]]", 0, "tok0 tok1 tok2", "");
	expect_of("narrow", "[[mock tokens=3 fault=drip]]", 0, "tok0 tok1 tok2", "");
	expect("[[mock tokens=3 fault=duplicate_finish]]", 0, "tok0 tok1 tok2", "");
	/* chunks have no number: what comes twice is shown twice */
	expect("[[mock tokens=3 fault=duplicate after=1]]", 0, "tok0 tok1 tok1 tok2", "");
	expect("[[mock tokens=3 fault=linger]]", 0, "tok0 tok1 tok2", "");
	expect("[[mock tokens=0]]", 0, "", "");
	expect("[[mock tokens=3 refusal]]", 0, "tok0 tok1 tok2", "");
}

static void
test_silence(void **state)
{
	expect_of("hasty", "[[mock fault=silence]]", E_PROVIDER_TIMEOUT, "", TOO_LONG);
	expect_of("hasty", "[[mock fault=slow_first]]", E_PROVIDER_TIMEOUT, "", TOO_LONG);
	expect_of(
	    "hasty", "[[mock tokens=5 fault=stall]]", E_PROVIDER_TIMEOUT, "tok0 tok1", TOO_LONG);
	expect_of(
	    "hasty", "[[mock tokens=5 fault=stall after=0]]", E_PROVIDER_TIMEOUT, "", TOO_LONG);
}

/* Longer than both limits in all, never between two tokens. */
static void
test_slow_but_alive(void **state)
{
	expect("[[mock tokens=5 interval=300]]", 0, "tok0 tok1 tok2 tok3 tok4", "");
}

static void
test_total_time(void **state)
{
	struct seen s = {0};

	begin_with(&s, NULL, "[[mock tokens=1000 interval=10]]",
	    (struct provider_request){.timeout_ms = 80});
	finish(&s);
	assert_int_equal(s.err, E_PROVIDER_TIMEOUT);
	assert_true(pump_until(loop, mock_is_idle, NULL));
	seen_fini(&s);
}

static void
test_no_provider(void **state)
{
	struct seen s = {0};

	begin_with(&s, "gone", "hi", (struct provider_request){.timeout_ms = 5000});
	finish(&s);
	assert_int_equal(s.err, E_PROVIDER);
	assert_string_equal(s.provider, "gone");
	seen_fini(&s);
}

/* ---- places, cancel ---- */

static void
test_concurrent_requests(void **state)
{
	struct seen s[6] = {{0}};
	struct provider_request r = {.timeout_ms = 5000};

	/* concurrent_requests 2, max_queue 3, pool_timeout 150 ms */
	for (int i = 0; i < 6; i++)
		begin_with(&s[i], "narrow", "[[mock tokens=3 fault=stall]]", r);
	finish(&s[5]);
	assert_int_equal(s[5].err, E_POOL_TIMEOUT);
	assert_string_equal(s[5].message, "Too many calls wait for the model provider.");
	for (int i = 2; i < 5; i++) {
		finish(&s[i]);
		assert_int_equal(s[i].err, E_POOL_TIMEOUT);
	}
	for (int i = 0; i < 2; i++) {
		provider_cancel(providers, s[i].handle);
		assert_int_equal(s[i].dones, 0);
	}
	for (int i = 0; i < 6; i++)
		seen_fini(&s[i]);
}

static void
test_cancel_closes_the_upstream(void **state)
{
	static const char *const said[] = {"[[mock fault=silence]]",
	    "[[mock tokens=3 fault=stall]]", "[[mock tokens=100000 interval=1]]"};

	for (size_t i = 0; i < ARRAY_LEN(said); i++) {
		struct seen s = {0};

		mock_llm_reset(&mock);
		begin(&s, said[i]);
		assert_true(pump_until(loop, i == 0 ? mock_is_busy : has_text, &s));
		provider_cancel(providers, s.handle);
		assert_true(pump_until(loop, mock_is_idle, NULL));
		assert_int_equal(mock_llm_stat(&mock, "aborted"), 1);
		assert_int_equal(s.dones, 0);
		seen_fini(&s);
	}
}

static void
test_cancel_from_a_delta(void **state)
{
	struct seen s = {.cancels_in_text = true}, other = {0};

	/* many deltas in one piece: nothing comes after the cancel */
	begin(&s, "[[mock tokens=1000]]");
	assert_true(pump_until(loop, has_text, &s));
	begin(&other, "hi");
	finish(&other);
	assert_string_equal(text_of(&s.text), "tok0");
	assert_int_equal(s.dones, 0);
	assert_true(pump_until(loop, mock_is_idle, NULL));
	seen_fini(&s);
	seen_fini(&other);
}

static void
test_connection_is_kept(void **state)
{
	struct seen s = {0};
	long long before;

	begin(&s, "hi");
	finish(&s);
	seen_fini(&s);
	before = mock_llm_stat(&mock, "connections_accepted");
	for (int i = 0; i < 5; i++) {
		begin(&s, "hi");
		finish(&s);
		assert_string_equal(text_of(&s.text), "echo: hi");
		seen_fini(&s);
	}
	assert_int_equal(mock_llm_stat(&mock, "connections_accepted") - before, 1);
}

/* ---- money ---- */

static void
test_cost(void **state)
{
	struct provider_usage u = {
	    .input_tokens = 1000, .output_tokens = 100, .cached_tokens = 200};

	/* 0.15 in, 0.60 out, 0.075 cached per million: 800 * 0.15 + 200 * 0.075 + 100 * 0.6 */
	assert_int_equal(providers_cost(providers, NULL, &u), 195);
	assert_int_equal(providers_cost(providers, "other", &u), -1);
	assert_int_equal(providers_cost(providers, "nobody", &u), -1);
	/* no price of its own for cached ones */
	assert_int_equal(providers_cost(providers, "gone", &u), 1100);
	assert_int_equal(providers_context_tokens(providers, NULL), 1000);
	assert_int_equal(providers_context_tokens(providers, "other"), 0);
	assert_int_equal(providers_context_tokens(providers, "nobody"), 0);
}

static struct conf_provider provider_confs[4];
static struct conf_target targets[] = {{.provider = "mock", .model = "m1", .context = 2000},
    {.provider = "mock", .model = "m3", .context = 1000}, {.provider = "mock", .model = "m2"},
    {.provider = "gone", .model = "m", .context = 1}, {.provider = "hasty", .model = "m"},
    {.provider = "narrow", .model = "m"}};
static struct conf_model models[5];

static void
make_conf(void)
{
	static char url[80];

	snprintf(url, sizeof(url), "%s/", mock.url);
	provider_confs[0] = (struct conf_provider){
	    .name = "mock", .dialect = "openai", .base_url = url, .api_key = "sk-1"};
	provider_confs[0].http_client.max_connections = 5;
	provider_confs[0].http_client.max_keepalive = 5;
	provider_confs[0].http_client.keepalive_expiry_ms = 30000;
	provider_confs[0].http_client.connect_timeout_ms = 2000;
	provider_confs[0].http_client.read_timeout_ms = 3000;
	provider_confs[0].http_client.write_timeout_ms = 2000;
	provider_confs[0].http_client.pool_timeout_ms = 5000;
	provider_confs[0].http_client.first_token_timeout_ms = 1000;
	provider_confs[0].http_client.stall_timeout_ms = 1000;
	provider_confs[0].http_client.concurrent_requests = 5;
	provider_confs[0].http_client.max_queue = 3;
	provider_confs[0].breaker.window_ms = 60000;
	provider_confs[1] = provider_confs[0];
	provider_confs[1].name = "gone";
	provider_confs[1].api_key = "";
	provider_confs[1].base_url = "http://127.0.0.1:1/v1";
	provider_confs[2] = provider_confs[0];
	provider_confs[2].name = "hasty";
	provider_confs[2].http_client.first_token_timeout_ms = 150;
	provider_confs[2].http_client.stall_timeout_ms = 150;
	provider_confs[3] = provider_confs[0];
	provider_confs[3].name = "narrow";
	provider_confs[3].http_client.pool_timeout_ms = 150;
	provider_confs[3].http_client.first_token_timeout_ms = 9000;
	provider_confs[3].http_client.stall_timeout_ms = 9000;
	provider_confs[3].http_client.concurrent_requests = 2;
	models[0] = (struct conf_model){.name = "default",
	    .targets = {.v = targets, .n = 2},
	    .price = {.input = 0.15, .output = 0.60, .cached = 0.075}};
	models[1] = (struct conf_model){.name = "other",
	    .targets = {.v = targets + 2, .n = 1},
	    .price = {.input = -1, .output = -1, .cached = -1}};
	models[2] = (struct conf_model){.name = "gone",
	    .targets = {.v = targets + 3, .n = 1},
	    .price = {.input = 1, .output = 1, .cached = -1}};
	models[3] = (struct conf_model){.name = "hasty", .targets = {.v = targets + 4, .n = 1}};
	models[4] = (struct conf_model){.name = "narrow", .targets = {.v = targets + 5, .n = 1}};
	conf.providers.v = provider_confs;
	conf.providers.n = ARRAY_LEN(provider_confs);
	conf.models.v = models;
	conf.models.n = ARRAY_LEN(models);
}

static int
setup(void **state)
{
	client = client_new(loop);
	providers = providers_new(loop, client, &conf, NULL, (struct shm_who){0, 0});
	mock_llm_reset(&mock);
	return 0;
}

static int
teardown(void **state)
{
	providers_free(&providers);
	client_free(&client);
	assert_null(providers);
	return 0;
}

static int
start_all(void **state)
{
	log_open(&(struct log_conf){.level = LOG_ERROR});
	mock_llm_start(&mock);
	make_conf();
	loop = loop_new();
	return 0;
}

static int
stop_all(void **state)
{
	loop_free(&loop);
	mock_llm_stop(&mock);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_text),
	    TEST(test_usage_is_estimated),
	    TEST(test_tool_calls),
	    TEST(test_what_is_sent),
	    TEST(test_unknown_model),
	    TEST(test_error_statuses),
	    TEST(test_rate_limited),
	    TEST(test_broken_streams),
	    TEST(test_odd_streams),
	    TEST(test_silence),
	    TEST(test_slow_but_alive),
	    TEST(test_total_time),
	    TEST(test_no_provider),
	    TEST(test_concurrent_requests),
	    TEST(test_cancel_closes_the_upstream),
	    TEST(test_cancel_from_a_delta),
	    TEST(test_connection_is_kept),
	    TEST(test_cost),
	};

	return cmocka_run_group_tests(tests, start_all, stop_all);
}
