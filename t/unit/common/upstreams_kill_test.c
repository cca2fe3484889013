/*
 * upstreams_kill - workers that take places and probe a breaker all the time, killed at
 * random instructions and replaced, as the master would. Each writes into memory of its own who
 * holds a place or makes the probe; two living ones at once is one too many. In the end nothing is
 * held by anybody.
 */
#include "t/unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/upstreams.h"

enum { WORKERS = 4, PLACES = 3, RUN_MS = 2500, RECOVERY_MS = 2 };

static const struct breaker_rule rule = {.failures = 2,
    .failure_rate = 0.5,
    .calls_min = 20,
    .window_ms = 1000,
    .recovery_ms = RECOVERY_MS};

static struct notes {
	_Atomic uint64_t holder[PLACES], prober; /* row << 32 | number */
	_Atomic uint64_t taken, probes, refused;
	_Atomic uint32_t failures;
} * notes;

static struct shm *shm;

static uint64_t
random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	return *seed ^= *seed << 17;
}

static uint64_t
word_of(struct shm_who who)
{
	return (uint64_t)who.row << 32 | who.number;
}

/* Nobody who lives may be there. */
static void
note_holder(_Atomic uint64_t *at, struct shm_who me)
{
	uint64_t was = atomic_exchange(at, word_of(me));
	struct shm_who who = {.row = (uint32_t)(was >> 32), .number = (uint32_t)was};

	if (was != 0 && shm_is_alive(shm, who))
		atomic_fetch_add(&notes->failures, 1);
}

static void
use_place(struct places *p, struct shm_who me, uint32_t *hint)
{
	int at = places_take(p, PLACES, shm, me, hint);

	if (at < 0) {
		atomic_fetch_add(&notes->refused, 1);
		return;
	}
	note_holder(&notes->holder[at], me);
	atomic_fetch_add(&notes->taken, 1);
	for (volatile int i = 0; i < 200; i++)
		;
	atomic_store(&notes->holder[at], 0);
	places_give(p, at, me);
}

static void
use_breaker(struct breaker *b, struct shm_who me, uint64_t dice)
{
	uint64_t now_ms = clock_mono_ms();
	struct breaker_pass pass;

	if (!breaker_enter(b, &rule, shm, me, now_ms, &pass))
		return;
	if (breaker_is_probe(&pass)) {
		note_holder(&notes->prober, me);
		atomic_fetch_add(&notes->probes, 1);
		for (volatile int i = 0; i < 2000; i++)
			;
		atomic_store(&notes->prober, 0);
	}
	if (dice % 4 == 0)
		breaker_return(b, &rule, pass, now_ms);
	else
		breaker_record(
		    b, &rule, pass, dice % 4 == 1 ? BREAKER_SUCCESS : BREAKER_FAILURE, now_ms);
}

static void
work(struct shm_who me)
{
	struct places *p = &upstreams_provider(shm, STR("provider"))->places;
	struct breaker *b = &upstreams_target(shm, STR("provider"), STR("model"))->breaker;
	uint64_t seed = me.number * UINT64_C(0x9e3779b97f4a7c15) + 1;
	uint32_t hint = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		use_place(p, me, &hint);
		use_breaker(b, me, random_next(&seed) >> 11);
	}
}

struct slot {
	pid_t pid;
	struct shm_who who;
};

static void
spawn(struct slot *s, uint32_t slot)
{
	assert_true(shm_row_claim(shm, slot, 0, &s->who));
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		work(s->who);
}

static void
kill_one(struct slot *s)
{
	int status;

	kill(s->pid, SIGKILL);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	shm_row_reap(shm, s->who);
}

static void
test_kill(void **state)
{
	struct slot slots[WORKERS];
	uint64_t seed = clock_mono_us() | 1, end_ms = clock_mono_ms() + RUN_MS;
	unsigned kills = 0;

	(void)state;
	for (uint32_t i = 0; i < WORKERS; i++)
		spawn(&slots[i], i);
	while (clock_mono_ms() < end_ms) {
		struct timespec wait = {.tv_nsec = (long)(random_next(&seed) % 3000000)};
		uint32_t i = (uint32_t)(random_next(&seed) % WORKERS);

		nanosleep(&wait, NULL);
		kill_one(&slots[i]);
		spawn(&slots[i], i);
		kills++;
	}
	for (uint32_t i = 0; i < WORKERS; i++)
		kill_one(&slots[i]);
	printf("kills=%u taken=%ju refused=%ju probes=%ju\n", kills, (uintmax_t)notes->taken,
	    (uintmax_t)notes->refused, (uintmax_t)notes->probes);
	assert_int_equal(notes->failures, 0);
	assert_true(kills > 20 && notes->taken > 1000 && notes->probes > 10);

	/* What the dead left hinders nobody. */
	struct shm_who me;
	uint32_t hint = 0;
	struct upstream_shared *u = upstreams_provider(shm, STR("provider"));
	struct breaker *b = &upstreams_target(shm, STR("provider"), STR("model"))->breaker;
	struct breaker_pass pass;

	assert_true(shm_row_claim(shm, 0, 0, &me));
	assert_int_equal(places_held(&u->places, PLACES, shm), 0);
	for (int i = 0; i < PLACES; i++)
		assert_true(places_take(&u->places, PLACES, shm, me, &hint) >= 0);
	assert_int_equal(places_take(&u->places, PLACES, shm, me, &hint), -1);
	assert_true(breaker_enter(b, &rule, shm, me, clock_mono_ms() + RECOVERY_MS, &pass));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};

	shm = shm_create(WORKERS);
	notes =
	    mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shm != NULL && notes != MAP_FAILED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
