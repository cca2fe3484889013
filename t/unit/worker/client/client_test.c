/*
 * client_test - requests over real sockets against mock_llm: phases, pools,
 * times, kept connections, pauses, cancels.
 */
#include "t/unit/unit.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>

#include "t/unit/mock_llm.h"
#include "t/unit/pump.h"
#include "worker/client/client.h"

static struct mock_llm mock;
static struct loop *loop;
static struct client *client;
static struct client_pool *pool;

static const struct client_pool_conf pool_conf = {
    .name = "test",
    .connections_max = 8,
    .keepalive_max = 8,
    .keepalive_ms = 30000,
    .connect_timeout_ms = 2000,
    .write_timeout_ms = 2000,
    .pool_timeout_ms = 5000,
};

enum { IN_HEAD = 1, IN_BODY = 2 };

struct seen { /* what one request got */
	uint64_t handle;
	unsigned heads, dones;
	int status;
	char type[64], retry_after[32];
	struct buf body;
	enum client_outcome outcome;
	char detail[256];
	int order; /* of its end among all */
	bool in_verb;
	bool pauses;
	int cancels_in, starts_in; /* IN_HEAD, IN_BODY */
	struct seen *victim, *next;
};

static int ended;
static bool in_verb; /* a verb is running: no callback may come */

static void begin(struct seen *, const char *path, const char *body, const char *mock_words);

static void
act(struct seen *s, int where)
{
	if (s->cancels_in & where) {
		client_cancel(client, s->victim->handle);
		s->cancels_in = 0;
	}
	if (s->starts_in & where) {
		s->starts_in = 0;
		begin(s->next, "/models", NULL, "");
		in_verb = false;
	}
}

static void
on_head(void *arg, const struct client_head *h)
{
	struct seen *s = arg;

	s->in_verb |= in_verb;
	assert_int_equal(s->heads++, 0);
	s->status = h->status;
	snprintf(s->type, sizeof(s->type), "%.*s", (int)h->content_type.len, h->content_type.p);
	snprintf(s->retry_after, sizeof(s->retry_after), "%.*s", (int)h->retry_after.len,
	    h->retry_after.len > 0 ? h->retry_after.p : "");
	act(s, IN_HEAD);
}

static bool
on_body(void *arg, struct str bytes)
{
	struct seen *s = arg;

	s->in_verb |= in_verb;
	assert_int_equal(s->heads, 1);
	assert_int_equal(s->dones, 0);
	buf_add_str(&s->body, bytes);
	act(s, IN_BODY);
	return !s->pauses;
}

static void
on_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct seen *s = arg;

	s->in_verb |= in_verb;
	assert_int_equal(s->dones++, 0);
	s->outcome = outcome;
	snprintf(s->detail, sizeof(s->detail), "%s", detail);
	s->order = ++ended;
}

static const struct client_handlers handlers = {on_head, on_body, on_done};

struct spec {
	const char *url, *mock_words, *body;
	size_t body_len;
	struct client_request r;
	struct client_pool *pool;
};

static void
begin_spec(struct seen *s, const struct spec *spec)
{
	struct client_header headers[] = {
	    {"X-Mock", spec->mock_words}, {"Content-Type", "application/json"}};
	struct client_request r = spec->r;

	r.method = spec->body != NULL ? "POST" : "GET";
	r.url = spec->url;
	r.headers = headers;
	r.header_count = ARRAY_LEN(headers);
	if (spec->body != NULL)
		r.body =
		    str_sub(spec->body, spec->body_len > 0 ? spec->body_len : strlen(spec->body));
	in_verb = true;
	s->handle = client_start(spec->pool != NULL ? spec->pool : pool, &r, &handlers, s);
	in_verb = false;
	assert_true(s->handle != 0);
}

static void
begin(struct seen *s, const char *path, const char *body, const char *mock_words)
{
	char url[128];

	snprintf(url, sizeof(url), "%s%s", mock.url, path);
	begin_spec(s, &(struct spec){.url = url, .mock_words = mock_words, .body = body});
}

#define CHAT                                                                                       \
	"{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define WHOLE "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

static bool
is_done(void *arg)
{
	return ((struct seen *)arg)->dones > 0;
}

static bool
has_body(void *arg)
{
	return ((struct seen *)arg)->body.len > 0;
}

static void
finish(struct seen *s)
{
	assert_true(pump_until(loop, is_done, s));
	assert_false(s->in_verb);
}

static void
seen_fini(struct seen *s)
{
	buf_fini(&s->body);
	*s = (struct seen){0};
}

static bool
mock_has_none_active(void *arg)
{
	return mock_llm_stat(&mock, "active_requests") == 0;
}

static bool
mock_has_one_active(void *arg)
{
	return mock_llm_stat(&mock, "active_requests") == 1;
}

static bool
mock_connections_are(void *arg)
{
	return mock_llm_stat(&mock, "connections_open") == *(int *)arg;
}

/* ---- phases and outcomes ---- */

static void
test_get_and_post(void **state)
{
	struct seen s = {0};

	begin(&s, "/models", NULL, "");
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_OK);
	assert_int_equal(s.status, 200);
	assert_string_equal(s.type, "application/json");
	assert_non_null(strstr(s.body.data, "\"object\":\"list\""));
	seen_fini(&s);

	begin(&s, "/chat/completions", CHAT, "tokens=3");
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_OK);
	assert_string_equal(s.type, "text/event-stream");
	assert_non_null(strstr(s.body.data, "[DONE]"));
	seen_fini(&s);
}

static void
test_status_is_an_answer(void **state)
{
	struct seen s = {0};

	begin(&s, "/chat/completions", CHAT, "fault=status:429 retry_after=7");
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_OK);
	assert_int_equal(s.status, 429);
	assert_string_equal(s.retry_after, "7");
	seen_fini(&s);
}

static void
test_large_body_arrives(void **state)
{
	static const size_t sizes[] = {1, 65536, 65537, 1000000};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buf body = BUF_INIT;
		struct seen s = {0};

		buf_add_cstr(
		    &body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
		memset(buf_reserve(&body, sizes[i]), 'x', sizes[i]);
		body.len += sizes[i];
		buf_add_cstr(&body, "\"}]}");
		begin(&s, "/chat/completions", body.data, "");
		finish(&s);
		assert_int_equal(s.outcome, CLIENT_OK);
		assert_int_equal(s.status, 200);
		assert_true(s.body.len > sizes[i]); /* the echo */
		seen_fini(&s);
		buf_fini(&body);
	}
}

static void
test_broken_answers(void **state)
{
	static const struct {
		const char *words, *body;
		enum client_outcome outcome;
		bool has_head;
	} cases[] = {
	    {"fault=reset", CHAT, CLIENT_BROKEN, false},
	    {"fault=close", CHAT, CLIENT_BROKEN, false},
	    {"fault=cut_mid", CHAT, CLIENT_BROKEN, true},
	    {"fault=cut_fin", CHAT, CLIENT_BROKEN, true},
	    {"fault=cut_mid", WHOLE, CLIENT_BROKEN, true},
	    {"fault=cut_fin", WHOLE, CLIENT_BROKEN, true},
	    {"fault=cut_clean", CHAT, CLIENT_OK, true},
	    {"fault=drip tokens=2", CHAT, CLIENT_OK, true},
	    {"fault=huge_line", CHAT, CLIENT_OK, true},
	    {"fault=empty", WHOLE, CLIENT_OK, true},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct client_pool_conf conf = pool_conf;
		struct seen s = {0};
		char url[128];

		/* A fresh connection: what breaks on a kept one is tried again by libcurl. */
		conf.keepalive_max = 0;
		struct client_pool *fresh = client_pool_new(client, &conf);
		snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
		begin_spec(&s, &(struct spec){.url = url,
				   .pool = fresh,
				   .mock_words = cases[i].words,
				   .body = cases[i].body});
		finish(&s);
		if (s.outcome != cases[i].outcome || s.heads != cases[i].has_head)
			fail_msg("%s: %s heads=%u detail=%s", cases[i].words,
			    client_outcome_name(s.outcome), s.heads, s.detail);
		assert_int_equal(client_pool_in_use(fresh), 0);
		seen_fini(&s);
		client_pool_free(&fresh);
	}
}

static int
closed_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	close(fd);
	return ntohs(sa.sin_port);
}

static void
expect_no_connection(const char *url)
{
	struct seen s = {0};

	begin_spec(&s, &(struct spec){.url = url, .mock_words = ""});
	finish(&s);
	if (s.outcome != CLIENT_CONNECT_FAILED)
		fail_msg("%s: %s (%s)", url, client_outcome_name(s.outcome), s.detail);
	assert_true(s.detail[0] != '\0');
	seen_fini(&s);
}

static void
test_no_connection(void **state)
{
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", closed_port());
	expect_no_connection(url);
	expect_no_connection("ftp://127.0.0.1/");
	expect_no_connection("http://[nonsense/");
}

/* ---- time ---- */

static void
expect_timeout(const char *words, const char *body, struct client_request r, const char *detail)
{
	struct seen s = {0};
	char url[128];

	mock_llm_reset(&mock);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	begin_spec(&s, &(struct spec){.url = url, .mock_words = words, .body = body, .r = r});
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_TIMEOUT);
	assert_string_equal(s.detail, detail);
	assert_true(pump_until(loop, mock_has_none_active, NULL));
	assert_int_equal(mock_llm_stat(&mock, "aborted"), 1);
	seen_fini(&s);
}

static void
test_timeouts_close_the_upstream(void **state)
{
	expect_timeout("fault=silence", CHAT, (struct client_request){.first_byte_timeout_ms = 40},
	    "no first byte");
	expect_timeout("fault=slow_first", WHOLE,
	    (struct client_request){.first_byte_timeout_ms = 40}, "no first byte");
	expect_timeout("fault=stall", CHAT, (struct client_request){.stall_timeout_ms = 40},
	    "silence in the answer");
	expect_timeout("fault=stall", WHOLE, (struct client_request){.stall_timeout_ms = 40},
	    "silence in the answer");
	expect_timeout("tokens=1000 interval=5", CHAT,
	    (struct client_request){.stall_timeout_ms = 2000, .total_timeout_ms = 60},
	    "total time ran out");
}

static void
test_slow_but_alive(void **state)
{
	struct seen s = {0};
	char url[128];

	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	begin_spec(&s, &(struct spec){.url = url,
			   .mock_words = "tokens=20 interval=20",
			   .body = CHAT,
			   .r = {.first_byte_timeout_ms = 300, .stall_timeout_ms = 300}});
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_OK);
	seen_fini(&s);
}

/* A listener that accepts nothing and whose queue is full: a connect() to it hangs. */
static int
deaf_listener(int fds[3], int *ret_port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 0), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	*ret_port = ntohs(sa.sin_port);
	for (int i = 0; i < 3; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fds[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	return fd;
}

static void
test_connect_timeout(void **state)
{
	struct client_pool_conf conf = pool_conf;
	int fds[3], port, fd = deaf_listener(fds, &port);
	struct seen s = {0};
	char url[64];

	conf.connect_timeout_ms = 50;
	struct client_pool *hasty = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
	begin_spec(&s, &(struct spec){.url = url, .pool = hasty, .mock_words = ""});
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_CONNECT_TIMEOUT);
	seen_fini(&s);
	client_pool_free(&hasty);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(fd);
}

static void
test_write_timeout(void **state)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	struct client_pool_conf conf = pool_conf;
	struct seen s = {0};
	size_t body_len = 16 << 20;
	char url[64], *body = xcalloc(1, body_len);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	/* Connections are made by the kernel; nobody reads. */
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(sa.sin_port));
	conf.write_timeout_ms = 100;
	struct client_pool *hasty = client_pool_new(client, &conf);
	begin_spec(&s,
	    &(struct spec){
		.url = url, .pool = hasty, .mock_words = "", .body = body, .body_len = body_len});
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_TIMEOUT);
	assert_string_equal(s.detail, "no progress sending");
	seen_fini(&s);
	client_pool_free(&hasty);
	close(fd);
	free(body);
}

/* ---- places ---- */

static void
test_places_are_given_in_order(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct seen s[6] = {{0}};
	char url[128];

	conf.connections_max = 2;
	struct client_pool *small = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	for (int i = 0; i < 6; i++)
		begin_spec(&s[i], &(struct spec){.url = url,
				      .pool = small,
				      .body = CHAT,
				      .mock_words = i % 2 == 0 ? "tokens=2 interval=10"
							       : "tokens=4 interval=10"});
	assert_int_equal(client_pool_in_use(small), 2);
	assert_int_equal(client_pool_waiting(small), 4);
	ended = 0;
	for (int i = 0; i < 6; i++) {
		finish(&s[i]);
		assert_int_equal(s[i].outcome, CLIENT_OK);
	}
	for (int i = 2; i < 6; i++) /* nobody was overtaken by one who came two later */
		assert_true(s[i].order > s[i - 2].order);
	assert_int_equal(client_pool_in_use(small), 0);
	assert_int_equal(client_pool_waiting(small), 0);
	for (int i = 0; i < 6; i++)
		seen_fini(&s[i]);
	client_pool_free(&small);
}

static void
test_waiting_ends(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct seen holder = {0}, late = {0}, full = {0}, cancelled = {0};
	struct spec spec = {.mock_words = "fault=stall", .body = CHAT};
	char url[128];

	conf.connections_max = 1;
	conf.pool_timeout_ms = 50;
	conf.queue_max = 2;
	struct client_pool *small = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	spec.url = url;
	spec.pool = small;
	begin_spec(&holder, &spec);
	begin_spec(&late, &spec);
	begin_spec(&cancelled, &spec);
	begin_spec(&full, &spec);
	client_cancel(client, cancelled.handle);
	finish(&full);
	assert_int_equal(full.outcome, CLIENT_POOL_FULL);
	finish(&late);
	assert_int_equal(late.outcome, CLIENT_POOL_TIMEOUT);
	assert_int_equal(cancelled.dones, 0);
	assert_int_equal(client_pool_in_use(small), 1);
	assert_int_equal(client_pool_waiting(small), 0);
	client_cancel(client, holder.handle);
	assert_int_equal(client_pool_in_use(small), 0);
	assert_int_equal(holder.dones, 0);
	seen_fini(&holder);
	client_pool_free(&small);
}

static void
test_place_of_a_cancelled_one_goes_on(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct seen holder = {0}, next = {0};
	char url[128];

	conf.connections_max = 1;
	struct client_pool *small = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	begin_spec(&holder,
	    &(struct spec){.url = url, .pool = small, .mock_words = "fault=silence", .body = CHAT});
	begin_spec(&next,
	    &(struct spec){.url = url, .pool = small, .mock_words = "tokens=1", .body = CHAT});
	client_cancel(client, holder.handle);
	finish(&next);
	assert_int_equal(next.outcome, CLIENT_OK);
	assert_int_equal(holder.dones, 0);
	seen_fini(&next);
	client_pool_free(&small);
}

/* ---- kept connections ---- */

static void
test_connections_are_kept(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct client_pool *own = client_pool_new(client, &conf);
	char url[128];
	long long before, after;

	snprintf(url, sizeof(url), "%s/models", mock.url);
	struct seen s = {0};
	begin_spec(&s, &(struct spec){.url = url, .pool = own, .mock_words = ""});
	finish(&s);
	seen_fini(&s);
	before = mock_llm_stat(&mock, "connections_accepted");
	for (int i = 0; i < 10; i++) {
		begin_spec(&s, &(struct spec){.url = url, .pool = own, .mock_words = ""});
		finish(&s);
		assert_int_equal(s.outcome, CLIENT_OK);
		seen_fini(&s);
	}
	after = mock_llm_stat(&mock, "connections_accepted");
	assert_int_equal(after - before, 1); /* that of the question itself */
	client_pool_free(&own);
}

static void
test_idle_connections_are_trimmed(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct seen s[5] = {{0}};
	char url[128];
	int want;

	conf.keepalive_max = 2;
	conf.keepalive_ms = 300;
	struct client_pool *own = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	for (int i = 0; i < 5; i++)
		begin_spec(&s[i], &(struct spec){.url = url,
				      .pool = own,
				      .body = CHAT,
				      .mock_words = "tokens=3 interval=10"});
	for (int i = 0; i < 5; i++) {
		finish(&s[i]);
		seen_fini(&s[i]);
	}
	want = 2;
	assert_true(pump_until(loop, mock_connections_are, &want));
	want = 0;
	assert_true(pump_until(loop, mock_connections_are, &want));
	/* and the next request does not trip over them */
	begin_spec(
	    &s[0], &(struct spec){.url = url, .pool = own, .body = CHAT, .mock_words = "tokens=1"});
	finish(&s[0]);
	assert_int_equal(s[0].outcome, CLIENT_OK);
	seen_fini(&s[0]);
	client_pool_free(&own);
	assert_true(pump_until(loop, mock_connections_are, &want));
}

static void
test_dead_kept_connection_is_replaced(void **state)
{
	char *large = xmalloc(200001);
	struct buf body = BUF_INIT;

	memset(large, 'x', 200000);
	large[200000] = '\0';
	buf_printf(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
	    large);
	const char *const bodies[] = {WHOLE, body.data};
	const char *const faults[] = {"{\"fault\":\"reset\"}", "{\"fault\":\"close\"}"};
	for (size_t i = 0; i < 4; i++) {
		struct seen s = {0};

		begin(&s, "/models", NULL, "");
		finish(&s);
		seen_fini(&s);
		mock_llm_fault(&mock, faults[i / 2]);
		begin(&s, "/chat/completions", bodies[i % 2], "");
		finish(&s);
		assert_int_equal(s.outcome, CLIENT_OK);
		assert_int_equal(s.status, 200);
		assert_int_equal(mock_llm_stat(&mock, "faults_queued"), 0);
		seen_fini(&s);
	}
	buf_fini(&body);
	free(large);
}

/* ---- pause, cancel, start from callbacks ---- */

static size_t body_seen;

static bool
has_more_body(void *arg)
{
	return ((struct seen *)arg)->body.len > body_seen;
}

static void
resume(struct seen *s)
{
	in_verb = true;
	client_resume(client, s->handle);
	client_resume(client, s->handle);
	in_verb = false;
}

static void
test_pause_and_resume(void **state)
{
	struct seen s = {.pauses = true};

	begin(&s, "/chat/completions", CHAT, "tokens=20000");
	for (int round = 0; round < 5; round++) {
		struct seen other = {0};

		assert_true(pump_until(loop, has_more_body, &s));
		body_seen = s.body.len;
		/* While it is paused others go on and it gets nothing. */
		begin(&other, "/models", NULL, "");
		finish(&other);
		assert_int_equal(s.body.len, body_seen);
		assert_int_equal(s.dones, 0);
		seen_fini(&other);
		s.pauses = round < 3;
		resume(&s);
		assert_int_equal(s.body.len, body_seen);
		if (!s.pauses)
			break;
	}
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_OK);
	assert_non_null(strstr(s.body.data, "tok19999\""));
	assert_non_null(strstr(s.body.data, "[DONE]"));
	body_seen = 0;
	seen_fini(&s);
}

static void
test_a_paused_one_does_not_stall(void **state)
{
	struct seen s = {.pauses = true}, other = {0};
	char url[128];

	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	begin_spec(&s, &(struct spec){.url = url,
			   .mock_words = "tokens=20000",
			   .body = CHAT,
			   .r = {.stall_timeout_ms = 50}});
	assert_true(pump_until(loop, has_body, &s));
	begin(&other, "/chat/completions", CHAT, "tokens=10 interval=15"); /* 150 ms */
	finish(&other);
	assert_int_equal(s.dones, 0);
	client_cancel(client, s.handle);
	seen_fini(&s);
	seen_fini(&other);
}

static void
test_cancel_closes_the_upstream(void **state)
{
	static const char *const words[] = {
	    "fault=silence", "fault=stall", "tokens=100000 interval=1"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct seen s = {0};

		mock_llm_reset(&mock);
		begin(&s, "/chat/completions", CHAT, words[i]);
		assert_true(pump_until(loop, mock_has_one_active, NULL));
		client_cancel(client, s.handle);
		client_cancel(client, s.handle); /* unknown by now */
		client_resume(client, s.handle);
		assert_true(pump_until(loop, mock_has_none_active, NULL));
		assert_int_equal(mock_llm_stat(&mock, "aborted"), 1);
		assert_int_equal(s.dones, 0);
		assert_int_equal(client_pool_in_use(pool), 0);
		seen_fini(&s);
	}
}

static void
test_cancel_from_callbacks(void **state)
{
	static const int places[] = {IN_HEAD, IN_BODY};

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		struct seen self = {0}, other = {0}, victim = {0}, after = {0};

		mock_llm_reset(&mock);
		self.cancels_in = places[i];
		self.victim = &self;
		begin(&self, "/chat/completions", CHAT, "tokens=100000 interval=1");
		begin(&victim, "/chat/completions", CHAT, "fault=silence");
		other.cancels_in = places[i];
		other.victim = &victim;
		begin(&other, "/chat/completions", CHAT, "tokens=3 interval=20");
		finish(&other);
		assert_int_equal(other.outcome, CLIENT_OK);
		assert_true(pump_until(loop, mock_has_none_active, NULL));
		assert_int_equal(mock_llm_stat(&mock, "aborted"), 2);
		assert_int_equal(self.dones, 0);
		assert_int_equal(victim.dones, 0);
		assert_int_equal(client_pool_in_use(pool), 0);
		begin(&after, "/models", NULL, "");
		finish(&after);
		seen_fini(&self);
		seen_fini(&other);
		seen_fini(&after);
	}
}

static void
test_start_from_callbacks(void **state)
{
	struct seen next = {0}, s = {.starts_in = IN_BODY, .next = &next};

	begin(&s, "/chat/completions", CHAT, "tokens=3");
	finish(&s);
	finish(&next);
	assert_int_equal(next.outcome, CLIENT_OK);
	seen_fini(&s);
	seen_fini(&next);
}

static void
test_cancel_while_a_name_resolves(void **state)
{
	struct seen s = {0}, other = {0};
	uint64_t before;

	begin_spec(&s, &(struct spec){.url = "http://slow.example.invalid/", .mock_words = ""});
	begin(&other, "/models", NULL, "");
	finish(&other); /* the resolver is at work */
	before = clock_mono_ms();
	client_cancel(client, s.handle);
	assert_true(clock_mono_ms() - before < 100);
	seen_fini(&other);
	seen_fini(&s);
}

/* ---- names and TLS ---- */

/* ::1 refuses or is not there, 127.0.0.1 answers. */
static void
test_name_with_two_addresses(void **state)
{
	struct seen s = {0};
	char url[128];

	for (int i = 0; i < 3; i++) {
		snprintf(url, sizeof(url), "http://localhost:%d/v1/models", mock.port);
		begin_spec(&s, &(struct spec){.url = url, .mock_words = ""});
		finish(&s);
		assert_int_equal(s.outcome, CLIENT_OK);
		seen_fini(&s);
	}
}

/* ::1 drops what comes, so 127.0.0.1 is tried beside it and wins; the other is given up. */
static void
test_name_with_a_deaf_address(void **state)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6,
	    .sin6_addr = IN6ADDR_LOOPBACK_INIT,
	    .sin6_port = htons((uint16_t)mock.port)};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), fds[3];
	char url[128];

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
		skip(); /* no IPv6 here */
	assert_int_equal(listen(fd, 0), 0);
	for (int i = 0; i < 3; i++) {
		fds[i] = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fds[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	snprintf(url, sizeof(url), "http://localhost:%d/v1/models", mock.port);
	for (int i = 0; i < 2; i++) {
		struct seen s = {0};

		begin_spec(&s, &(struct spec){.url = url, .mock_words = ""});
		finish(&s);
		assert_int_equal(s.outcome, CLIENT_OK);
		seen_fini(&s);
	}
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(fd);
}

/* openssl's own server, with a certificate made now for `localhost`. */
struct tls_server {
	char dir[64], ca[96];
	int port;
	pid_t pid;
};

static void
tls_server_start(struct tls_server *t)
{
	char command[512], key[96], port[16];

	strcpy(t->dir, "/tmp/client_test.XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->ca, sizeof(t->ca), "%s/cert.pem", t->dir);
	snprintf(key, sizeof(key), "%s/key.pem", t->dir);
	snprintf(command, sizeof(command),
	    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
	    "-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout %s -out %s "
	    "2>/dev/null",
	    key, t->ca);
	assert_int_equal(system(command), 0);
	t->port = closed_port();
	snprintf(port, sizeof(port), "%d", t->port);
	t->pid = fork();
	if (t->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp("openssl", "openssl", "s_server", "-quiet", "-www", "-accept", port, "-cert",
		    t->ca, "-key", key, (char *)NULL);
		_exit(127);
	}
}

static void
tls_server_stop(struct tls_server *t)
{
	char command[96];

	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	snprintf(command, sizeof(command), "rm -r %s", t->dir);
	assert_int_equal(system(command), 0);
}

static bool
port_answers(void *arg)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t) * (int *)arg)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bool answers = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
	close(fd);
	return answers;
}

/* A client of its own: which certificates are believed is read when it is made. */
static enum client_outcome
ask_tls(const char *ca_file, const char *host, int port)
{
	struct client *usual = client;
	struct seen s = {0};
	char url[64];

	setenv("SSL_CERT_FILE", ca_file, 1);
	client = client_new(loop);
	unsetenv("SSL_CERT_FILE");
	struct client_pool *own = client_pool_new(client, &pool_conf);
	snprintf(url, sizeof(url), "https://%s:%d/", host, port);
	begin_spec(&s, &(struct spec){.url = url, .pool = own, .mock_words = ""});
	finish(&s);
	enum client_outcome outcome = s.outcome;
	if (outcome == CLIENT_OK)
		assert_int_equal(s.status, 200);
	else
		assert_int_equal(s.heads, 0);
	seen_fini(&s);
	client_pool_free(&own);
	client_free(&client);
	client = usual;
	return outcome;
}

static void
test_tls(void **state)
{
	struct tls_server t;

	tls_server_start(&t);
	assert_true(pump_until(loop, port_answers, &t.port));
	assert_int_equal(ask_tls(t.ca, "localhost", t.port), CLIENT_OK);
	/* a certificate of another name, one that nobody vouches for */
	assert_int_equal(ask_tls(t.ca, "127.0.0.1", t.port), CLIENT_CONNECT_FAILED);
	assert_int_equal(ask_tls("", "localhost", t.port), CLIENT_CONNECT_FAILED);
	tls_server_stop(&t);
}

/* ---- private addresses ---- */

static void
test_private_addresses_are_refused(void **state)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost", "0.0.0.0", "[::1]",
	    "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"};
	long long before = mock_llm_stat(&mock, "connections_accepted");

	for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
		struct seen s = {0};
		char url[128];

		snprintf(url, sizeof(url), "http://%s:%d/v1/models", hosts[i], mock.port);
		begin_spec(&s,
		    &(struct spec){.url = url, .mock_words = "", .r = {.refuses_private = true}});
		finish(&s);
		if (s.outcome != CLIENT_REFUSED_ADDRESS)
			fail_msg("%s: %s", hosts[i], client_outcome_name(s.outcome));
		seen_fini(&s);
	}
	assert_int_equal(mock_llm_stat(&mock, "connections_accepted") - before, 1);
}

static void
test_private_kept_connection_is_refused(void **state)
{
	struct seen s = {0};
	char url[128];
	long long requests;

	snprintf(url, sizeof(url), "%s/models", mock.url);
	begin_spec(&s, &(struct spec){.url = url, .mock_words = ""});
	finish(&s);
	seen_fini(&s);
	requests = mock_llm_stat(&mock, "models");
	struct client_pool *strangers = client_pool_new(client, &pool_conf);
	begin_spec(&s,
	    &(struct spec){
		.url = url, .pool = strangers, .mock_words = "", .r = {.refuses_private = true}});
	finish(&s);
	assert_int_equal(s.outcome, CLIENT_REFUSED_ADDRESS);
	assert_int_equal(mock_llm_stat(&mock, "models"), requests);
	seen_fini(&s);
	client_pool_free(&strangers);
}

/* ---- life ---- */

static void
test_freeing_a_pool_cancels(void **state)
{
	struct client_pool_conf conf = pool_conf;
	struct seen s[3] = {{0}};
	char url[128];

	conf.connections_max = 2;
	struct client_pool *own = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	mock_llm_reset(&mock);
	for (int i = 0; i < 3; i++)
		begin_spec(
		    &s[i], &(struct spec){
			       .url = url, .pool = own, .body = CHAT, .mock_words = "fault=stall"});
	assert_true(pump_until(loop, has_body, &s[0]));
	assert_true(pump_until(loop, has_body, &s[1]));
	client_pool_free(&own);
	assert_null(own);
	assert_true(pump_until(loop, mock_has_none_active, NULL));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(s[i].dones, 0);
		seen_fini(&s[i]);
	}
}

/* libcurl's poll() is ours, and others' does what it did. */
static void
test_poll_is_ours(void **state)
{
	const char *(*name_of)(enum client_outcome) = client_outcome_name;
	Dl_info ours, polls;
	int fds[2];

	assert_int_not_equal(dladdr((void *)(uintptr_t)name_of, &ours), 0);
	assert_int_not_equal(dladdr(dlsym(RTLD_DEFAULT, "poll"), &polls), 0);
	assert_ptr_equal(ours.dli_fbase, polls.dli_fbase);
	assert_int_equal(pipe(fds), 0);
	struct pollfd p = {.fd = fds[0], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(poll(&p, 1, 20), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_int_equal(p.revents, POLLIN);
	close(fds[0]);
	close(fds[1]);
}

static void
test_many_at_once(void **state)
{
	enum { MANY = 200 };
	static struct seen s[MANY];
	struct client_pool_conf conf = pool_conf;
	char url[128];

	conf.connections_max = 50;
	struct client_pool *own = client_pool_new(client, &conf);
	snprintf(url, sizeof(url), "%s/chat/completions", mock.url);
	for (int i = 0; i < MANY; i++)
		begin_spec(&s[i],
		    &(struct spec){.url = url,
			.pool = own,
			.body = CHAT,
			.mock_words = i % 7 == 0 ? "fault=cut_fin" : "tokens=20 interval=1"});
	for (int i = 0; i < MANY; i++) {
		if (i % 11 == 1)
			client_cancel(client, s[i].handle);
	}
	for (int i = 0; i < MANY; i++) {
		if (i % 11 != 1)
			finish(&s[i]);
		assert_int_equal(s[i].dones, i % 11 != 1);
		if (i % 11 != 1 && i % 7 != 0)
			assert_int_equal(s[i].outcome, CLIENT_OK);
	}
	assert_int_equal(client_pool_in_use(own), 0);
	assert_true(pump_until(loop, mock_has_none_active, NULL));
	for (int i = 0; i < MANY; i++)
		seen_fini(&s[i]);
	client_pool_free(&own);
}

static int
setup(void **state)
{
	client = client_new(loop);
	pool = client_pool_new(client, &pool_conf);
	mock_llm_reset(&mock);
	ended = 0;
	return 0;
}

static int
teardown(void **state)
{
	client_pool_free(&pool);
	client_free(&client);
	assert_null(client);
	return 0;
}

static int
start_all(void **state)
{
	mock_llm_start(&mock);
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
	    TEST(test_get_and_post),
	    TEST(test_status_is_an_answer),
	    TEST(test_large_body_arrives),
	    TEST(test_broken_answers),
	    TEST(test_no_connection),
	    TEST(test_timeouts_close_the_upstream),
	    TEST(test_slow_but_alive),
	    TEST(test_connect_timeout),
	    TEST(test_write_timeout),
	    TEST(test_places_are_given_in_order),
	    TEST(test_waiting_ends),
	    TEST(test_place_of_a_cancelled_one_goes_on),
	    TEST(test_connections_are_kept),
	    TEST(test_idle_connections_are_trimmed),
	    TEST(test_dead_kept_connection_is_replaced),
	    TEST(test_pause_and_resume),
	    TEST(test_a_paused_one_does_not_stall),
	    TEST(test_cancel_closes_the_upstream),
	    TEST(test_cancel_from_callbacks),
	    TEST(test_start_from_callbacks),
	    TEST(test_cancel_while_a_name_resolves),
	    TEST(test_name_with_two_addresses),
	    TEST(test_name_with_a_deaf_address),
	    TEST(test_tls),
	    TEST(test_private_addresses_are_refused),
	    TEST(test_private_kept_connection_is_refused),
	    TEST(test_freeing_a_pool_cancels),
	    TEST(test_poll_is_ours),
	    TEST(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, start_all, stop_all);
}
