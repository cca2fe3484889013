/* backplane - two workers in one process: calls, casts, ends, time limits, owners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "common/err.h"
#include "t/replay/fake_loop.h"
#include "worker/backplane/backplane.h"

struct worker {
	struct loop *loop;
	struct shm_who who;
	struct backplane *backplane;
	/* as a service */
	unsigned requests;
	bool is_silent;
	struct backplane_call last;
	char payload[64];
	/* as a caller */
	unsigned replies, gone;
	int err;
	char answer[64];
	struct backplane_addr gone_addr, owner;
};

static struct shm *shm;
static struct worker a, b;

static void
copy_text(char to[64], struct str s)
{
	size_t n = s.len < 63 ? s.len : 63;

	if (n > 0)
		memcpy(to, s.p, n);
	to[n] = '\0';
}

static void
serve(void *arg, const struct backplane_call *call)
{
	struct worker *w = arg;

	w->requests++;
	w->last = *call;
	copy_text(w->payload, call->payload);
	if (!w->is_silent)
		backplane_reply(w->backplane, call->from, call->call_id,
		    str_eq(call->payload, STR("fail")) ? E_CONFLICT : 0, STR("pong"));
}

static void
on_reply(void *arg, int err, struct str payload)
{
	struct worker *w = arg;

	w->replies++;
	w->err = err;
	copy_text(w->answer, payload);
}

static void
on_gone(void *arg, struct backplane_addr addr)
{
	struct worker *w = arg;

	w->gone++;
	w->gone_addr = addr;
}

static void
worker_open(struct worker *w, uint32_t slot)
{
	memset(w, 0, sizeof(*w));
	w->loop = loop_new();
	assert_true(shm_row_claim(shm, slot, (int)getpid(), &w->who));
	w->backplane = backplane_new(w->loop, shm, w->who);
	assert_non_null(w->backplane);
	backplane_serve(w->backplane, BACKPLANE_TURN_STATE, serve, w);
	backplane_on_peer_gone(w->backplane, on_gone, w);
	shm_row_set_state(shm, w->who, SHM_READY);
}

static void
worker_close(struct worker *w)
{
	backplane_free(&w->backplane);
	loop_free(&w->loop);
}

static int
setup(void **state)
{
	(void)state;
	shm = shm_create(2);
	worker_open(&a, 0);
	worker_open(&b, 1);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	worker_close(&a);
	worker_close(&b);
	assert_int_equal(fake_loop_timers(), 0);
	shm_free(&shm);
	return 0;
}

static void
call(struct worker *from, struct backplane_addr to, const char *payload)
{
	backplane_send_call(
	    from->backplane, to, BACKPLANE_TURN_STATE, str_of(payload), 1000, on_reply, from);
}

static void
test_call(void **state)
{
	(void)state;
	call(&a, backplane_self(b.backplane), "ping");
	assert_int_equal(a.replies, 0);
	fake_loop_settle();
	assert_int_equal(a.replies, 1);
	assert_int_equal(a.err, 0);
	assert_string_equal(a.answer, "pong");
	assert_string_equal(b.payload, "ping");
	assert_int_equal(b.last.from.who.number, a.who.number);
	call(&a, backplane_self(b.backplane), "fail");
	fake_loop_settle();
	assert_int_equal(a.err, E_CONFLICT);
	/* Settled once: no timer comes after. */
	fake_loop_advance(5000);
	assert_int_equal(a.replies, 2);
}

static void
test_oneself(void **state)
{
	(void)state;
	call(&a, backplane_self(a.backplane), "ping");
	assert_int_equal(a.requests, 0);
	fake_loop_settle();
	assert_int_equal(a.requests, 1);
	assert_int_equal(a.replies, 1);
	assert_string_equal(a.answer, "pong");
}

static void
test_unserved(void **state)
{
	(void)state;
	backplane_send_call(a.backplane, backplane_self(b.backplane), BACKPLANE_TURN_ATTACH,
	    STR_NONE, 1000, on_reply, &a);
	fake_loop_settle();
	assert_int_equal(a.err, E_UNAVAILABLE);
}

static void
test_time_limit_and_late_answer(void **state)
{
	(void)state;
	b.is_silent = true;
	call(&a, backplane_self(b.backplane), "ping");
	fake_loop_advance(999);
	assert_int_equal(b.requests, 1);
	assert_int_equal(a.replies, 0);
	fake_loop_advance(1);
	assert_int_equal(a.replies, 1);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	backplane_reply(b.backplane, b.last.from, b.last.call_id, 0, STR("late"));
	fake_loop_settle();
	assert_int_equal(a.replies, 1);
	/* Later, from a copy, works as well. */
	call(&a, backplane_self(b.backplane), "ping");
	fake_loop_advance(500);
	backplane_reply(b.backplane, b.last.from, b.last.call_id, 0, STR("slow"));
	fake_loop_settle();
	assert_int_equal(a.replies, 2);
	assert_string_equal(a.answer, "slow");
}

static void
test_dead(void **state)
{
	struct backplane_addr addr = backplane_self(b.backplane), far = addr;

	(void)state;
	b.is_silent = true;
	call(&a, addr, "ping");
	call(&a, addr, "ping");
	fake_loop_settle();
	backplane_free(&b.backplane);
	fake_loop_settle();
	assert_int_equal(a.replies, 2);
	assert_int_equal(a.err, E_GONE);
	assert_int_equal(a.gone, 1);
	assert_int_equal(a.gone_addr.who.number, b.who.number);
	call(&a, addr, "ping");
	assert_int_equal(a.replies, 2);
	fake_loop_settle();
	assert_int_equal(a.replies, 3);
	assert_int_equal(backplane_cast(a.backplane, addr, BACKPLANE_TURN_STATE, STR("x")), E_GONE);
	/* Told once, also when the table says so later. */
	shm_row_reap(shm, b.who);
	fake_loop_advance(2000);
	assert_int_equal(a.gone, 1);
	far.host++;
	call(&a, far, "ping");
	fake_loop_settle();
	assert_int_equal(a.replies, 4);
	assert_int_equal(a.err, E_GONE);
}

/* Someone we never talked to. */
static void
test_dead_stranger(void **state)
{
	struct shm_who other;

	(void)state;
	assert_true(shm_row_claim(shm, 1, 12345, &other));
	fake_loop_advance(1000);
	shm_row_reap(shm, other);
	assert_int_equal(a.gone, 0);
	fake_loop_advance(1000);
	assert_int_equal(a.gone, 1);
	assert_int_equal(b.gone, 1);
	assert_int_equal(a.gone_addr.who.number, other.number);
	fake_loop_advance(5000);
	assert_int_equal(a.gone, 1);
}

static void
test_cast_and_broadcast(void **state)
{
	(void)state;
	assert_int_equal(backplane_cast(a.backplane, backplane_self(b.backplane),
			     BACKPLANE_TURN_STATE, STR("cast")),
	    0);
	fake_loop_settle();
	assert_string_equal(b.payload, "cast");
	assert_int_equal(b.last.call_id, 0);
	backplane_broadcast(b.backplane, BACKPLANE_TURN_STATE, STR("all"), NULL, NULL);
	fake_loop_settle();
	assert_string_equal(a.payload, "all");
	assert_int_equal(b.requests, 1);
	assert_int_equal(a.replies + b.replies, 0);
}

static void
on_owner(void *arg, int err, struct backplane_addr addr)
{
	struct worker *w = arg;

	w->err = err;
	w->owner = addr;
	w->replies++;
}

static void
test_owner(void **state)
{
	struct id turn = id_new("turn");

	(void)state;
	backplane_find_owner(b.backplane, &turn, on_owner, &b);
	assert_int_equal(b.replies, 0);
	fake_loop_settle();
	assert_int_equal(b.err, E_NOT_FOUND);
	assert_true(backplane_own(a.backplane, &turn));
	backplane_find_owner(b.backplane, &turn, on_owner, &b);
	fake_loop_settle();
	assert_int_equal(b.err, 0);
	assert_int_equal(b.owner.who.number, a.who.number);
	assert_int_equal(b.owner.host, shm_host_id(shm));
	backplane_disown(a.backplane, &turn);
	backplane_find_owner(b.backplane, &turn, on_owner, &b);
	fake_loop_settle();
	assert_int_equal(b.err, E_NOT_FOUND);
	/* Freed with one under way: nobody is called. */
	backplane_find_owner(b.backplane, &turn, on_owner, &b);
	call(&b, backplane_self(a.backplane), "ping");
}

static void
test_payload(void **state)
{
	static const uint64_t numbers[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX};
	struct buf out = BUF_INIT;
	uint64_t n;
	struct str rest, s;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		backplane_put_u64(&out, numbers[i]);
		backplane_put_str(&out, str_sub("abcdefgh", i));
	}
	rest = buf_str(&out);
	for (size_t i = 0; i < 8; i++) {
		assert_true(backplane_take_u64(&rest, &n) && n == numbers[i]);
		assert_true(backplane_take_str(&rest, &s) && str_eq(s, str_sub("abcdefgh", i)));
	}
	assert_int_equal(rest.len, 0);
	assert_false(backplane_take_u64(&rest, &n));
	/* Cut anywhere: refused, never read beyond. */
	for (size_t len = 0; len < out.len; len++) {
		char *cut = malloc(len + 1);

		memcpy(cut, out.data, len);
		rest = str_sub(cut, len);
		while (backplane_take_u64(&rest, &n) && backplane_take_str(&rest, &s))
			;
		free(cut);
	}
	rest = STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
	assert_false(backplane_take_u64(&rest, &n));
	rest = STR("\x05"
		   "abc");
	assert_false(backplane_take_str(&rest, &s));
	assert_int_equal(rest.len, 4);
	buf_fini(&out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_call),
	    TEST(test_oneself),
	    TEST(test_unserved),
	    TEST(test_time_limit_and_late_answer),
	    TEST(test_dead),
	    TEST(test_dead_stranger),
	    TEST(test_cast_and_broadcast),
	    TEST(test_owner),
	    cmocka_unit_test(test_payload),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
