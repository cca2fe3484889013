/*
 * limiter - against a naive model over random sequences, by many processes at once, and its places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/limiter.h"

static struct shm *shm;

static int
setup(void **state)
{
	(void)state;
	shm = shm_create(1);
	return shm == NULL;
}

static int
teardown(void **state)
{
	(void)state;
	shm_free(&shm);
	return 0;
}

static struct limiter_key
key_of(uint64_t n)
{
	return limiter_key_of("test", str_sub((char *)&n, sizeof(n)));
}

static uint64_t
random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	return *seed ^= *seed << 17;
}

/* The naive model: everything that was ever allowed, in its order. */
struct model {
	struct {
		uint64_t at_ms;
		uint64_t units;
	} * taken;
	size_t n, cap;
};

static void
model_take(struct model *m, uint64_t now_ms, uint64_t units)
{
	if (m->n == m->cap)
		m->taken = xrealloc(m->taken, (m->cap = m->cap * 2 + 16) * sizeof(*m->taken));
	m->taken[m->n].at_ms = now_ms;
	m->taken[m->n++].units = units;
}

static uint64_t
model_sum(const struct model *m, uint64_t now_ms, uint64_t window_ms)
{
	uint64_t sum = 0;

	for (size_t i = m->n; i-- > 0 && now_ms - m->taken[i].at_ms < window_ms;)
		sum += m->taken[i].units;
	return sum;
}

static void
model_give(struct model *m, uint64_t now_ms, uint64_t window_ms, uint64_t units)
{
	for (size_t i = 0; i < m->n && units > 0; i++) {
		if (now_ms - m->taken[i].at_ms >= window_ms)
			continue;
		uint64_t some = units < m->taken[i].units ? units : m->taken[i].units;
		m->taken[i].units -= some;
		units -= some;
	}
}

static uint64_t
model_retry_ms(const struct model *m, uint64_t now_ms, struct limiter_rule r, uint64_t cost)
{
	if (cost > r.limit)
		return r.window_ms;
	for (size_t i = 0; i < m->n; i++) {
		uint64_t at_ms = m->taken[i].at_ms + r.window_ms;

		if (at_ms > now_ms && model_sum(m, at_ms, r.window_ms) + cost <= r.limit)
			return at_ms - now_ms;
	}
	return 0;
}

struct play {
	struct limiter_rule rule;
	uint32_t cost_max;
	uint64_t step_max_ms; /* time between two operations */
	unsigned pause_in;    /* one in so many steps is a pause of up to three windows */
	unsigned give_in;     /* one in so many operations gives; 0: none */
	unsigned operations;
};

/* Every verdict is the model's, in every field. */
static void
play_exactly(uint64_t seed, const struct play *p)
{
	struct model m = {NULL, 0, 0};
	uint64_t now_ms = 1000000 + random_next(&seed) % 1000000000;
	struct limiter_key key = key_of(seed);
	unsigned allowed = 0, refused = 0;

	for (unsigned i = 0; i < p->operations; i++) {
		now_ms += random_next(&seed) % (p->step_max_ms + 1);
		if (random_next(&seed) % p->pause_in == 0)
			now_ms += random_next(&seed) % (3 * (uint64_t)p->rule.window_ms);
		uint32_t cost = (uint32_t)(random_next(&seed) % (p->cost_max + 1));
		if (p->give_in > 0 && random_next(&seed) % p->give_in == 0) {
			limiter_give(shm, key, p->rule, cost, now_ms);
			model_give(&m, now_ms, p->rule.window_ms, cost);
			continue;
		}
		uint64_t sum = model_sum(&m, now_ms, p->rule.window_ms);
		bool expected = cost == 0 || sum + cost <= p->rule.limit;
		struct limiter_verdict v = limiter_take(shm, key, p->rule, cost, now_ms);

		assert_int_equal(v.is_allowed, expected);
		assert_int_equal(v.remaining, p->rule.limit - sum - (expected ? cost : 0));
		assert_int_equal(v.limit, p->rule.limit);
		if (expected && cost > 0)
			model_take(&m, now_ms, cost);
		else if (!expected)
			assert_int_equal(
			    v.retry_after_ms, model_retry_ms(&m, now_ms, p->rule, cost));
		allowed += expected;
		refused += !expected;
	}
	assert_true(allowed > 0 && refused > 0);
	free(m.taken);
}

static void
test_model(void **state)
{
	static const uint32_t limits[] = {1, 2, 5, 7, 8, 20, 60, 63, 64, 200, 511};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(limits); i++) {
		struct play p = {.rule = {limits[i], 1000},
		    .cost_max = 1 + limits[i] / 4,
		    .step_max_ms = 1000 / limits[i],
		    .pause_in = 100 + 5 * limits[i],
		    .operations = 6000};

		play_exactly(i + 1, &p);
		p.rule.window_ms = 60000;
		p.step_max_ms = 60000 / limits[i];
		play_exactly(i + 100, &p);
		p.cost_max = 1;
		p.step_max_ms = 30000 / limits[i];
		play_exactly(i + 200, &p);
	}
	struct play day = {.rule = {60, 24 * 3600 * 1000},
	    .cost_max = 2,
	    .step_max_ms = 1500000,
	    .pause_in = 50,
	    .operations = 5000};
	play_exactly(1007, &day);
	struct play large = {.rule = {LIMITER_EXACT_MAX, 1000},
	    .cost_max = 9,
	    .step_max_ms = 1,
	    .pause_in = 5000,
	    .operations = 6000};
	play_exactly(1008, &large);
	large.cost_max = 1;
	large.rule.window_ms = 60000;
	large.step_max_ms = 4;
	large.operations = 30000;
	large.pause_in = 20000;
	play_exactly(1009, &large);
}

/* What is given back is forgiven at the old end. */
static void
test_give(void **state)
{
	struct play p = {.rule = {30, 1000},
	    .cost_max = 9,
	    .step_max_ms = 100,
	    .pause_in = 300,
	    .give_in = 4,
	    .operations = 10000};

	(void)state;
	play_exactly(3, &p);
	p = (struct play){.rule = {400, 60000},
	    .cost_max = 100,
	    .step_max_ms = 2000,
	    .pause_in = 300,
	    .give_in = 3,
	    .operations = 10000};
	play_exactly(4, &p);
}

/* However it is driven (rings full of what was given back, coarse times): never more than the
 * limit, and refused only what would not have fitted a quantum ago. */
static void
play_safely(uint64_t seed, const struct play *p, uint64_t late_ms)
{
	struct model m = {NULL, 0, 0};
	uint64_t now_ms = 1000000 + random_next(&seed) % 1000000000;
	struct limiter_key key = key_of(seed);

	for (unsigned i = 0; i < p->operations; i++) {
		now_ms += random_next(&seed) % (p->step_max_ms + 1);
		if (random_next(&seed) % p->pause_in == 0)
			now_ms += random_next(&seed) % (3 * (uint64_t)p->rule.window_ms);
		uint32_t cost = 1 + (uint32_t)(random_next(&seed) % p->cost_max);
		if (p->give_in > 0 && random_next(&seed) % p->give_in == 0) {
			limiter_give(shm, key, p->rule, cost, now_ms);
			model_give(&m, now_ms, p->rule.window_ms, cost);
			continue;
		}
		struct limiter_verdict v = limiter_take(shm, key, p->rule, cost, now_ms);

		if (v.is_allowed) {
			model_take(&m, now_ms, cost);
			assert_true(model_sum(&m, now_ms, p->rule.window_ms) <= p->rule.limit);
		} else if (late_ms > 0) {
			assert_true(model_sum(&m, now_ms, p->rule.window_ms + late_ms) + cost >
				    p->rule.limit);
			assert_true(v.retry_after_ms > 0 &&
				    v.retry_after_ms <= p->rule.window_ms + late_ms);
		}
	}
	free(m.taken);
}

static void
test_coarse(void **state)
{
	struct play p = {.rule = {100000, 60000},
	    .cost_max = 3000,
	    .step_max_ms = 300,
	    .pause_in = 1000,
	    .operations = 20000};

	(void)state;
	play_safely(1, &p, 15);
	p = (struct play){.rule = {2000000000, 24 * 3600 * 1000},
	    .cost_max = 20000000,
	    .step_max_ms = 300000,
	    .pause_in = 1000,
	    .operations = 20000};
	play_safely(2, &p, 21105);
	p = (struct play){.rule = {5000, 1000},
	    .cost_max = 2,
	    .step_max_ms = 1,
	    .pause_in = 5000,
	    .operations = 20000};
	play_safely(3, &p, 1);
}

static void
test_give_without_end(void **state)
{
	struct play p = {.rule = {7, 1000},
	    .cost_max = 3,
	    .step_max_ms = 20,
	    .pause_in = 300,
	    .give_in = 2,
	    .operations = 20000};

	(void)state;
	play_safely(5, &p, 0);
	p.rule.limit = 60;
	p.step_max_ms = 4;
	play_safely(6, &p, 0);
}

static void
test_simple(void **state)
{
	struct limiter_rule none = {0, 1000}, two = {2, 1000};
	struct limiter_key key = limiter_key_of("key", STR("a"));
	struct limiter_verdict v;

	(void)state;
	assert_true(limiter_take(shm, key, none, 1000000, 5).is_allowed);
	v = limiter_take(shm, key, two, 0, 5000);
	assert_true(v.is_allowed && v.remaining == 2 && v.reset_ms == 0);
	v = limiter_take(shm, key, two, 1, 5000);
	assert_true(v.is_allowed && v.remaining == 1 && v.reset_ms == 1000);
	v = limiter_take(shm, key, two, 1, 5400);
	assert_true(v.is_allowed && v.remaining == 0);
	v = limiter_take(shm, key, two, 1, 5500);
	assert_true(!v.is_allowed && v.retry_after_ms == 500 && v.reset_ms == 900);
	v = limiter_take(shm, key, two, 2, 5500);
	assert_true(!v.is_allowed && v.retry_after_ms == 900);
	v = limiter_take(shm, key, two, 3, 5500);
	assert_true(!v.is_allowed && v.retry_after_ms == 1000);
	assert_false(limiter_take(shm, key, two, 1, 5999).is_allowed);
	assert_true(limiter_take(shm, key, two, 1, 6000).is_allowed);
	/* Other kinds and names are other keys. */
	assert_true(limiter_take(shm, limiter_key_of("ke", STR("ya")), two, 2, 6000).is_allowed);
	assert_true(limiter_take(shm, limiter_key_of("key", STR("b")), two, 2, 6000).is_allowed);
	limiter_give(shm, key, two, 5, 6000);
	v = limiter_take(shm, key, two, 2, 6000);
	assert_true(v.is_allowed && v.remaining == 0);
	/* Nobody, and nobody knows. */
	limiter_give(shm, limiter_key_of("key", STR("c")), two, 5, 6000);
}

/* Places of idle keys are used again; a table full of busy ones lets the rest pass. */
static void
test_places(void **state)
{
	struct limiter_rule rule = {1, 1000};
	unsigned allowed = 0, refused = 0;
	struct stat st;

	(void)state;
	for (uint64_t round = 0; round < 20; round++) {
		for (uint64_t i = 0; i < 5000; i++) {
			struct limiter_key key = key_of(round * 5000 + i);
			uint64_t now_ms = 1000000 + round * 10000;

			assert_true(limiter_take(shm, key, rule, 1, now_ms).is_allowed);
			assert_false(limiter_take(shm, key, rule, 1, now_ms + 999).is_allowed);
		}
	}
	assert_int_equal(fstat(shm_fd(shm), &st), 0);
	print_message("%lld KiB for 5,000 keys at a time\n", (long long)st.st_blocks / 2);
	assert_true(st.st_blocks / 2 < 4096);
	for (uint64_t i = 0; i < 100000; i++)
		allowed += limiter_take(shm, key_of(i), rule, 1, 5000000).is_allowed;
	for (uint64_t i = 0; i < 100000; i++)
		refused += !limiter_take(shm, key_of(i), rule, 1, 5000001).is_allowed;
	assert_int_equal(allowed, 100000);
	print_message("%u of 100,000 keys counted\n", refused);
	assert_true(refused > 60000 && refused <= 63 * 1024);
}

/* What the processes did, for the check afterwards. */
enum { PROCESSES = 4, DONE_MAX = 400000 };

struct ledger {
	_Atomic uint64_t clock_ms;
	_Atomic uint32_t n;
	struct done {
		uint64_t before_ms, after_ms; /* the virtual clock around the decision */
		uint32_t cost;
	} done[DONE_MAX];
};

static void
hammer(
    struct ledger *l, struct limiter_rule rule, uint32_t cost_max, uint64_t seed, uint64_t until_ms)
{
	struct limiter_key key = key_of(rule.limit);
	uint64_t before_ms;

	while ((before_ms = atomic_load(&l->clock_ms)) < until_ms) {
		uint32_t cost = 1 + (uint32_t)(random_next(&seed) % cost_max);

		if (limiter_take(shm, key, rule, cost, before_ms).is_allowed) {
			uint32_t i = atomic_fetch_add(&l->n, 1);

			if (i >= DONE_MAX)
				_exit(1);
			l->done[i] = (struct done){before_ms, atomic_load(&l->clock_ms), cost};
		}
		if (random_next(&seed) % 32 == 0)
			atomic_fetch_add(&l->clock_ms, 1);
	}
}

/* Ordered by number, as they were finished. The sum of those that lie wholly in (from, to]. */
static uint64_t
sum_within(const struct ledger *l, uint64_t from_ms, uint64_t to_ms)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		if (l->done[i].before_ms > from_ms && l->done[i].after_ms <= to_ms)
			sum += l->done[i].cost;
	}
	return sum;
}

static uint64_t
sum_touching(const struct ledger *l, uint64_t from_ms, uint64_t to_ms)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < l->n; i++) {
		if (l->done[i].after_ms > from_ms && l->done[i].before_ms <= to_ms)
			sum += l->done[i].cost;
	}
	return sum;
}

static void
hammer_and_check(struct limiter_rule rule, uint32_t cost_max, uint64_t windows)
{
	struct ledger *l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t start_ms = 1000000, end_ms = start_ms + windows * rule.window_ms;
	int status;

	l->clock_ms = start_ms;
	for (int p = 0; p < PROCESSES; p++) {
		if (fork() == 0) {
			hammer(l, rule, cost_max, (uint64_t)p + 1, end_ms);
			_exit(0);
		}
	}
	for (int p = 0; p < PROCESSES; p++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	uint64_t step = rule.window_ms / 50;
	for (uint64_t at = start_ms; at + rule.window_ms < end_ms; at += step) {
		assert_true(sum_within(l, at, at + rule.window_ms) <= rule.limit);
		/* Demand never ceases: all of it is used (a large cost may not fit the rest). */
		assert_true(
		    sum_touching(l, at, at + rule.window_ms + step) + cost_max > rule.limit);
	}
	print_message("limit %u: %u decisions allowed in %llu windows\n", rule.limit, l->n,
	    (unsigned long long)windows);
	munmap(l, sizeof(*l));
}

static void
test_many_processes(void **state)
{
	(void)state;
	hammer_and_check((struct limiter_rule){5, 1000}, 1, 60);
	hammer_and_check((struct limiter_rule){7, 1000}, 1, 60);
	hammer_and_check((struct limiter_rule){60, 1000}, 3, 60);
	hammer_and_check((struct limiter_rule){500, 2000}, 5, 20);
	hammer_and_check((struct limiter_rule){4095, 5000}, 1, 6);
}

/*
 * New keys of one root by the dozen, in all processes at the same time, while those of the rounds
 * before are forgotten: each key has one log.
 */
enum { ROUNDS = 2000, KEYS = 12 };

struct race {
	_Atomic uint32_t arrived, allowed[ROUNDS * KEYS];
};

static void
race(struct race *r, unsigned process)
{
	const struct limiter_rule rule = {3, 1000};

	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i < KEYS; i++) {
			struct limiter_key key = {{0}}; /* one high half: one root */
			uint32_t name = round * KEYS + (i + process * 3) % KEYS;
			uint64_t low = ((uint64_t)name + 1) << 20;

			memcpy(key.bytes, &low, 8);
			for (int n = 0; n < 4; n++) {
				if (limiter_take(shm, key, rule, 1, 1000000 + round * 2005ULL)
					.is_allowed)
					atomic_fetch_add(&r->allowed[name], 1);
			}
		}
		atomic_fetch_add(&r->arrived, 1);
		while (atomic_load(&r->arrived) < (round + 1) * PROCESSES)
			sched_yield();
	}
}

static void
test_one_log_per_key(void **state)
{
	struct race *r =
	    mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	(void)state;
	for (unsigned p = 0; p < PROCESSES; p++) {
		if (fork() == 0) {
			race(r, p);
			_exit(0);
		}
	}
	for (int p = 0; p < PROCESSES; p++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	for (unsigned i = 0; i < ROUNDS * KEYS; i++)
		assert_int_equal(r->allowed[i], 3);
	munmap(r, sizeof(*r));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_simple),
	    TEST(test_model),
	    TEST(test_give),
	    TEST(test_coarse),
	    TEST(test_give_without_end),
	    TEST(test_places),
	    TEST(test_many_processes),
	    TEST(test_one_log_per_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
