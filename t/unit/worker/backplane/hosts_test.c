/*
 * hosts - two hosts in one process and a Redis: calls, casts, broadcasts, owners, windows
 * over both; and what becomes of them when Redis dies, hangs, forgets or is full.
 */
#include "t/unit/unit.h"

#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "t/unit/pump.h"
#include "t/unit/redis_server.h"
#include "worker/backplane/backplane.h"
#include "worker/backplane/limits.h"
#include "worker/backplane/owner.h"
#include "worker/backplane/reconnect.h"

enum { LEASE_MS = 30000, CLOCKS_MS = 50 }; /* CLOCKS_MS: how far Redis's and ours may part */

static struct redis_server server;
static struct loop *loop;
static struct conf_backplane conf = {.key_prefix = "t:",
    .ca_file = "",
    .connect_timeout_ms = 2000,
    .command_timeout_ms = 500,
    .lease_ms = LEASE_MS,
    .max_commands = 10000,
    .max_queue_bytes = 4 << 20};

static struct host {
	struct shm *shm;
	struct shm_who who;
	struct backplane *backplane;
	struct limits *limits;
	unsigned requests, replies, resumed, found;
	int err;
	char heard[64];
	struct backplane_addr from, owner;
} a, b;

static void
serve(void *arg, const struct backplane_call *call)
{
	struct host *h = arg;

	h->requests++;
	h->from = call->from;
	snprintf(h->heard, sizeof(h->heard), "%.*s", (int)call->payload.len, call->payload.p);
	if (str_eq(call->payload, STR("silence")))
		return;
	backplane_reply(h->backplane, call->from, call->call_id,
	    str_eq(call->payload, STR("fail")) ? E_CONFLICT : 0, STR("pong"));
}

static void
on_reply(void *arg, int err, struct str payload)
{
	struct host *h = arg;

	h->replies++;
	h->err = err;
	snprintf(
	    h->heard, sizeof(h->heard), "%.*s", (int)payload.len, payload.len > 0 ? payload.p : "");
}

static void
on_owner(void *arg, int err, struct backplane_addr owner)
{
	struct host *h = arg;

	h->found++;
	h->err = err;
	h->owner = owner;
}

static void
on_resumed(void *arg)
{
	((struct host *)arg)->resumed++;
}

static void
host_open(struct host *h)
{
	memset(h, 0, sizeof(*h));
	h->shm = shm_create(1);
	check(h->shm != NULL && shm_row_claim(h->shm, 0, getpid(), &h->who));
	shm_row_set_state(h->shm, h->who, SHM_READY);
	metric_init(h->shm, h->who);
	h->backplane = backplane_new(loop, h->shm, h->who);
	check(h->backplane != NULL);
	backplane_serve(h->backplane, BACKPLANE_TURN_STATE, serve, h);
	backplane_on_resumed(h->backplane, on_resumed, h);
	check(backplane_reach(h->backplane, &conf) == 0);
	h->limits = limits_new(h->shm, backplane_redis(h->backplane), conf.key_prefix);
}

static void
host_close(struct host *h)
{
	limits_free(&h->limits);
	backplane_free(&h->backplane);
	shm_free(&h->shm);
}

static bool
are_up(void *arg)
{
	(void)arg;
	return redis_state(backplane_redis(a.backplane)) == REDIS_UP &&
	       redis_state(backplane_redis(b.backplane)) == REDIS_UP;
}

static bool
are_away(void *arg)
{
	(void)arg;
	return redis_state(backplane_redis(a.backplane)) == REDIS_AWAY &&
	       redis_state(backplane_redis(b.backplane)) == REDIS_AWAY;
}

static bool
is_full(void *arg)
{
	return redis_state(backplane_redis(((struct host *)arg)->backplane)) == REDIS_FULL;
}

static bool
is_set(void *arg)
{
	return *(unsigned *)arg > 0;
}

static int
setup(void **state)
{
	redis_server_start(&server);
	conf.url = server.url;
	loop = loop_new();
	host_open(&a);
	host_open(&b);
	assert_true(pump_until(loop, are_up, NULL));
	return 0;
}

/* A Redis that is given all the time it needs, on a machine with much else to do. */
static int
setup_patient(void **state)
{
	uint64_t timeout_ms = conf.command_timeout_ms;

	conf.command_timeout_ms = 60000;
	setup(state);
	conf.command_timeout_ms = timeout_ms;
	return 0;
}

static int
setup_short_lease(void **state)
{
	conf.lease_ms = 1000;
	return setup_patient(state);
}

static int
teardown(void **state)
{
	conf.lease_ms = LEASE_MS;
	host_close(&a);
	host_close(&b);
	loop_free(&loop);
	redis_server_stop(&server);
	return 0;
}

static void
call_b(const char *text, uint32_t timeout_ms)
{
	a.replies = 0;
	backplane_send_call(a.backplane, backplane_self(b.backplane), BACKPLANE_TURN_STATE,
	    str_of(text), timeout_ms, on_reply, &a);
	assert_int_equal(a.replies, 0); /* never from inside */
	assert_true(pump_until(loop, is_set, &a.replies));
}

/* ---- messages ---- */

static void
test_calls(void **state)
{
	call_b("hello", 5000);
	assert_int_equal(a.err, 0);
	assert_string_equal(a.heard, "pong");
	assert_string_equal(b.heard, "hello");
	assert_true(b.from.host == backplane_self(a.backplane).host);
	call_b("fail", 5000);
	assert_int_equal(a.err, E_CONFLICT);
	call_b("silence", 50);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
}

static void
test_nobody_there(void **state)
{
	struct backplane_addr nobody = backplane_self(b.backplane);

	nobody.who.number++;
	backplane_send_call(
	    a.backplane, nobody, BACKPLANE_TURN_STATE, STR("x"), 60000, on_reply, &a);
	assert_true(pump_until(loop, is_set, &a.replies));
	assert_int_equal(a.err, E_GONE);
}

static void
test_casts_and_broadcasts(void **state)
{
	assert_int_equal(backplane_cast(a.backplane, backplane_self(b.backplane),
			     BACKPLANE_TURN_STATE, STR("cast")),
	    0);
	assert_true(pump_until(loop, is_set, &b.requests));
	assert_string_equal(b.heard, "cast");
	b.requests = 0;
	backplane_broadcast(a.backplane, BACKPLANE_TURN_STATE, STR("all"), NULL, NULL);
	assert_true(pump_until(loop, is_set, &b.requests));
	assert_string_equal(b.heard, "all");
	/* What comes after it has come; a has not heard itself. */
	call_b("after", 5000);
	assert_int_equal(a.requests, 0);
	assert_int_equal(b.requests, 2);
}

static void
test_messages_are_bounded(void **state)
{
	char *large = xcalloc(1, conf.max_queue_bytes);

	/* One alone may be longer than the queue: nothing would ever make room for it. */
	assert_int_equal(backplane_cast(a.backplane, backplane_self(b.backplane),
			     BACKPLANE_TURN_STATE, str_sub(large, conf.max_queue_bytes)),
	    0);
	assert_int_equal(backplane_cast(a.backplane, backplane_self(b.backplane),
			     BACKPLANE_TURN_STATE, STR("more")),
	    E_BUSY);
	assert_true(pump_until(loop, is_set, &b.requests));
	assert_int_equal(backplane_cast(a.backplane, backplane_self(b.backplane),
			     BACKPLANE_TURN_STATE, str_sub(large, conf.max_queue_bytes / 2)),
	    0);
	b.requests = 0;
	assert_true(pump_until(loop, is_set, &b.requests));
	free(large);
}

static void
find(struct host *h, const struct id *id)
{
	h->found = 0;
	backplane_find_owner(h->backplane, id, on_owner, h);
	assert_int_equal(h->found, 0);
	assert_true(pump_until(loop, is_set, &h->found));
}

static void
test_owners(void **state)
{
	struct id id = id_new("turn"), other = id_new("turn");

	assert_true(backplane_own(a.backplane, &id));
	call_b("own is on its way", 5000); /* Redis takes a's commands in order */
	find(&b, &id);
	assert_int_equal(b.err, 0);
	assert_true(b.owner.host == backplane_self(a.backplane).host);
	assert_int_equal(b.owner.who.number, a.who.number);
	find(&b, &other);
	assert_int_equal(b.err, E_NOT_FOUND);
	backplane_disown(a.backplane, &id);
	call_b("so is disown", 5000);
	find(&b, &id);
	assert_int_equal(b.err, E_NOT_FOUND);
}

static bool
is_alone(void *arg)
{
	redisReply *r = redis_server_ask(&server, "ZCARD t:workers");
	bool is_one = r->integer == 1;

	(void)arg;
	freeReplyObject(r);
	return is_one;
}

static void
test_registry(void **state)
{
	redisReply *r = redis_server_ask(&server, "ZCARD t:workers");

	assert_int_equal(r->integer, 2);
	freeReplyObject(r);
	/* Who ends in order signs off; the others need not wait for its lease. */
	host_close(&b);
	assert_true(pump_until(loop, is_alone, NULL));
	host_open(&b);
	assert_true(pump_until(loop, are_up, NULL));
}

static void
on_gone(void *arg, struct backplane_addr peer)
{
	const struct backplane_addr stranger = {.host = 0xabc, .who = {1, 1}};

	if (owner_equal(peer, stranger))
		++*(unsigned *)arg;
}

/* Its last heartbeat was just now: its connection may have broken, and wait before it tries again.
 */
static void
add_stranger(void)
{
	redisReply *r = redis_server_ask(&server, "TIME");
	char command[128];

	assert_int_equal(r->elements, 2);
	snprintf(command, sizeof(command), "ZADD t:workers %lld 0000000000000abc.1.1",
	    atoll(r->element[0]->str) * 1000 + atoll(r->element[1]->str) / 1000);
	freeReplyObject(r);
	redis_server_tell(&server, command);
}

static void
test_who_connects_again_is_not_dead(void **state)
{
	uint64_t begin_ms = clock_mono_ms();
	unsigned gone = 0;

	backplane_on_peer_gone(a.backplane, on_gone, &gone);
	add_stranger();
	assert_true(pump_until(loop, is_set, &gone));
	assert_true(clock_mono_ms() - begin_ms + CLOCKS_MS >= conf.lease_ms + RECONNECT_MAX_MS);
}

/* ---- windows ---- */

struct take {
	struct limit_ask ask;
	unsigned decided;
};

static void
on_decided(struct limit_ask *ask)
{
	container_of(ask, struct take, ask)->decided++;
}

static struct limiter_verdict
take(struct host *h, const char *name, uint32_t limit, uint32_t window_ms, uint32_t cost)
{
	struct take t = {.ask = {.count = 1, .on_decided = on_decided}};

	t.ask.windows[0] =
	    (struct limit_window){limiter_key_of("test", str_of(name)), {limit, window_ms}, cost};
	if (!limits_take(h->limits, &t.ask))
		assert_true(pump_until(loop, is_set, &t.decided));
	assert_int_equal(t.ask.decided, 1);
	return t.ask.verdicts[0];
}

static bool
is_later(void *arg)
{
	return clock_mono_ms() >= *(uint64_t *)arg;
}

static void
test_windows_hold_over_hosts(void **state)
{
	uint64_t begin_ms = clock_mono_ms();
	struct limiter_verdict v;

	for (unsigned i = 0; i < 10; i++) {
		v = take(i % 2 ? &a : &b, "w", 10, 3000, 1);
		assert_true(v.is_allowed);
		assert_int_equal(v.limit, 10);
		assert_int_equal(v.remaining, 9 - i);
		assert_true(v.reset_ms > 2900 && v.reset_ms <= 3000);
	}
	for (unsigned i = 0; i < 2; i++) {
		v = take(i ? &a : &b, "w", 10, 3000, 1);
		assert_false(v.is_allowed);
		assert_int_equal(v.remaining, 0);
		assert_true(v.retry_after_ms > 0 && v.retry_after_ms <= 3000);
	}
	/* Slides: the first unit comes back when it is a window old, and not before. */
	uint64_t due_ms = clock_mono_ms() + v.retry_after_ms;
	assert_true(pump_until(loop, is_later, &due_ms));
	assert_true(take(&a, "w", 10, 3000, 1).is_allowed);
	assert_true(clock_mono_ms() - begin_ms >= 3000);
	/* Only looking takes nothing. */
	v = take(&b, "look", 5, 60000, 0);
	assert_true(v.is_allowed && v.remaining == 5 && v.reset_ms == 0);
	assert_int_equal(take(&a, "look", 5, 60000, 0).remaining, 5);
}

static void
test_costs(void **state)
{
	const struct limit_window back = {limiter_key_of("test", STR("c")), {100000, 60000}, 30000};
	struct limiter_verdict v = take(&a, "c", 100000, 60000, 70000);

	assert_int_equal(v.remaining, 30000);
	v = take(&b, "c", 100000, 60000, 30001);
	assert_false(v.is_allowed);
	assert_int_equal(v.remaining, 30000);
	v = take(&b, "c", 100000, 60000, 100001);
	assert_int_equal(v.retry_after_ms, 60000);
	limits_give(a.limits, &back);
	call_b("given", 5000);
	assert_int_equal(take(&b, "c", 100000, 60000, 0).remaining, 60000);
	/* More was used than was taken: as much as still fits. */
	struct limit_window more = back;
	more.rule.limit = 60001;
	more.key = limiter_key_of("test", STR("more"));
	assert_int_equal(take(&a, "more", 60001, 60000, 60000).remaining, 1);
	limits_fill(a.limits, &more);
	call_b("filled", 5000);
	assert_int_equal(take(&b, "more", 60001, 60000, 0).remaining, 0);
	for (int i = 0; i < 600; i++) /* an entry each, or one for several */
		assert_true(take(&a, "c", 100000, 60000, 100).is_allowed);
	assert_int_equal(take(&b, "c", 100000, 60000, 1).remaining, 0);
}

static void
test_several_windows(void **state)
{
	struct take t = {.ask = {.count = 3, .on_decided = on_decided}};
	const char *names[] = {"s1", "s2", "s3"};
	const uint32_t limits[] = {5, 0, 2};

	for (int i = 0; i < 3; i++)
		t.ask.windows[i] = (struct limit_window){
		    limiter_key_of("test", str_of(names[i])), {limits[i], 60000}, 1};
	for (int i = 0; i < 3; i++) {
		t.decided = 0;
		if (!limits_take(a.limits, &t.ask))
			assert_true(pump_until(loop, is_set, &t.decided));
		assert_int_equal(t.ask.decided, 3);
		assert_int_equal(t.ask.verdicts[0].remaining, 4 - i);
		assert_int_equal(t.ask.verdicts[1].limit, 0);
		assert_int_equal(t.ask.verdicts[2].is_allowed, i < 2);
	}
	/* The first refuses: the others are not asked. */
	t.ask.windows[0].cost = 3;
	t.decided = 0;
	assert_false(limits_take(a.limits, &t.ask));
	assert_true(pump_until(loop, is_set, &t.decided));
	assert_int_equal(t.ask.decided, 1);
}

static void
test_nobody_waits_any_more(void **state)
{
	struct take t = {.ask = {.count = 1, .on_decided = on_decided}};

	t.ask.windows[0] = (struct limit_window){limiter_key_of("test", STR("n")), {5, 60000}, 1};
	take(&a, "another", 5, 60000, 1); /* Redis knows the script */
	assert_false(limits_take(a.limits, &t.ask));
	limits_cancel(&t.ask);
	call_b("after it", 5000);
	assert_int_equal(t.decided, 0);
	assert_int_equal(take(&a, "n", 5, 60000, 0).remaining, 4);
}

static void
test_redis_forgets_the_script(void **state)
{
	assert_int_equal(take(&a, "f", 5, 60000, 1).remaining, 4);
	redis_server_tell(&server, "SCRIPT FLUSH");
	assert_int_equal(take(&b, "f", 5, 60000, 1).remaining, 3);
	assert_int_equal(take(&a, "f", 5, 60000, 1).remaining, 2);
}

/* Twice as many processes' worth of requests as fit, in one pipeline. */
static void
test_exact_under_load(void **state)
{
	enum { EACH = 700, LIMIT = 1000 };
	static struct take takes[2 * EACH];
	unsigned allowed = 0;

	memset(takes, 0, sizeof(takes));
	for (unsigned i = 0; i < 2 * EACH; i++) {
		takes[i].ask = (struct limit_ask){.count = 1, .on_decided = on_decided};
		takes[i].ask.windows[0] =
		    (struct limit_window){limiter_key_of("test", STR("load")), {LIMIT, 60000}, 1};
		assert_false(limits_take((i % 2 ? &a : &b)->limits, &takes[i].ask));
	}
	for (unsigned i = 0; i < 2 * EACH; i++) {
		assert_true(pump_until(loop, is_set, &takes[i].decided));
		allowed += takes[i].ask.verdicts[0].is_allowed;
	}
	assert_int_equal(allowed, LIMIT);
}

/* ---- outages ---- */

static void
test_redis_dies_and_comes_back_empty(void **state)
{
	for (int i = 0; i < 3; i++)
		assert_true(take(&a, "d", 5, 60000, 1).is_allowed);
	redis_server_kill(&server);
	assert_true(pump_until(loop, are_away, NULL));
	/* The host goes on alone, with what it has given out itself. */
	assert_int_equal(take(&a, "d", 5, 60000, 1).remaining, 1);
	assert_int_equal(take(&b, "d", 5, 60000, 1).remaining, 4);
	call_b("x", 5000);
	assert_int_equal(a.err, E_BUSY);
	find(&b, &(struct id){"turn_01m7x2gje4t2s57fnd9m2kryvz"});
	assert_int_equal(b.err, E_NOT_FOUND);
	redis_server_again(&server);
	assert_true(pump_until(loop, are_up, NULL));
	assert_int_equal(a.resumed, 1);
	assert_int_equal(b.resumed, 1);
	call_b("again", 5000);
	assert_int_equal(a.err, 0);
	assert_int_equal(take(&a, "d", 5, 60000, 1).remaining, 4);
}

static void
test_redis_hangs(void **state)
{
	struct take t = {.ask = {.count = 1, .on_decided = on_decided}};

	assert_int_equal(take(&a, "h", 5, 60000, 1).remaining, 4);
	kill(server.pid, SIGSTOP);
	t.ask.windows[0] = (struct limit_window){limiter_key_of("test", STR("h")), {5, 60000}, 1};
	assert_false(limits_take(a.limits, &t.ask));
	assert_true(pump_until(loop, is_set, &t.decided));
	assert_true(t.ask.verdicts[0].is_allowed);
	assert_int_equal(t.ask.verdicts[0].remaining, 3);
	/* Also the one that asks nothing notices. */
	assert_true(pump_until(loop, are_away, NULL));
	assert_non_null(strstr(redis_reason(backplane_redis(a.backplane)), "no answer"));
	kill(server.pid, SIGCONT);
	assert_true(pump_until(loop, are_up, NULL));
	call_b("again", 5000);
	assert_int_equal(a.err, 0);
}

static struct take *given_up;

static void
on_decided_gives_up_another(struct limit_ask *ask)
{
	on_decided(ask);
	limits_cancel(&given_up->ask);
}

/* Its memory may be gone then. */
static void
test_who_gives_up_amid_the_end_of_a_connection_is_not_called(void **state)
{
	struct take first = {.ask = {.count = 1, .on_decided = on_decided_gives_up_another}};
	struct take second = {.ask = {.count = 1, .on_decided = on_decided}};
	struct take third = second;

	take(&a, "another", 5, 60000, 1); /* Redis knows the script */
	first.ask.windows[0] = second.ask.windows[0] = third.ask.windows[0] =
	    (struct limit_window){limiter_key_of("test", STR("g")), {5, 60000}, 1};
	given_up = &second;
	assert_false(limits_take(a.limits, &first.ask));
	assert_false(limits_take(a.limits, &second.ask));
	assert_false(limits_take(a.limits, &third.ask));
	redis_server_kill(&server);
	assert_true(pump_until(loop, are_away, NULL));
	assert_int_equal(first.decided, 1);
	assert_int_equal(second.decided, 0);
	assert_int_equal(third.decided, 1);
	redis_server_again(&server);
	assert_true(pump_until(loop, are_up, NULL));
}

static void
test_connections_are_cut(void **state)
{
	for (int i = 0; i < 5; i++) {
		unsigned resumed = a.resumed;

		redis_server_tell(&server,
		    i % 2 ? "CLIENT KILL TYPE normal SKIPME yes" : "CLIENT KILL TYPE pubsub");
		a.resumed = 0;
		assert_true(pump_until(loop, is_set, &a.resumed));
		assert_true(pump_until(loop, are_up, NULL));
		a.resumed += resumed;
		call_b("again", 5000);
		assert_int_equal(a.err, 0);
	}
}

static void
test_redis_is_full(void **state)
{
	assert_int_equal(take(&a, "o1", 5, 60000, 1).remaining, 4);
	redis_server_tell(&server, "CONFIG SET maxmemory 1");
	assert_int_equal(take(&a, "o2", 5, 60000, 1).remaining, 4); /* this host's */
	assert_true(pump_until(loop, is_full, &a));
	assert_non_null(strstr(redis_reason(backplane_redis(a.backplane)), "OOM"));
	call_b("messages pass", 5000);
	assert_int_equal(a.err, 0);
	redis_server_tell(&server, "CONFIG SET maxmemory 0");
	assert_true(pump_until(loop, are_up, NULL));
	assert_int_equal(a.resumed, 0); /* nothing was missed */
	assert_int_equal(take(&b, "o1", 5, 60000, 1).remaining, 3);
}

static void
test_a_replica_is_not_taken(void **state)
{
	redis_server_tell(&server, "REPLICAOF 127.0.0.1 1");
	take(&a, "r", 5, 60000, 1); /* READONLY */
	take(&b, "r", 5, 60000, 1);
	assert_true(pump_until(loop, are_away, NULL));
	redis_server_tell(&server, "REPLICAOF NO ONE");
	assert_true(pump_until(loop, are_up, NULL));
}

static bool
has_reason(void *arg)
{
	return redis_reason(arg)[0] != '\0';
}

static void
test_who_may_not_log_in(void **state)
{
	redis_server_tell(&server, "CONFIG SET requirepass secret");
	host_close(&b);
	host_open(&b);
	struct redis *redis = backplane_redis(b.backplane);
	assert_true(pump_until(loop, has_reason, redis));
	assert_int_equal(redis_state(redis), REDIS_AWAY);
	assert_non_null(strstr(redis_reason(redis), "NOAUTH"));
	host_close(&b);
	char url[sizeof(server.url) + 32];
	snprintf(url, sizeof(url), "%s?password=secret&db=3", server.url);
	conf.url = url;
	host_open(&b);
	assert_true(pump_until(loop, are_up, NULL));
	conf.url = server.url;
	/* Messages know no databases. */
	call_b("hello", 5000);
	assert_int_equal(a.err, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_calls),
	    TEST(test_nobody_there),
	    TEST(test_casts_and_broadcasts),
	    TEST(test_messages_are_bounded),
	    TEST(test_owners),
	    TEST(test_registry),
	    cmocka_unit_test_setup_teardown(
		test_who_connects_again_is_not_dead, setup_short_lease, teardown),
	    TEST(test_windows_hold_over_hosts),
	    TEST(test_costs),
	    TEST(test_several_windows),
	    TEST(test_nobody_waits_any_more),
	    TEST(test_redis_forgets_the_script),
	    cmocka_unit_test_setup_teardown(test_exact_under_load, setup_patient, teardown),
	    TEST(test_redis_dies_and_comes_back_empty),
	    TEST(test_redis_hangs),
	    TEST(test_who_gives_up_amid_the_end_of_a_connection_is_not_called),
	    TEST(test_connections_are_cut),
	    TEST(test_redis_is_full),
	    TEST(test_a_replica_is_not_taken),
	    TEST(test_who_may_not_log_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
