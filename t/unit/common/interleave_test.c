/*
 * interleave_test - places, breakers, tallies and upstreams in shared memory: every order in which
 * up to three workers can take their steps, stopped and killed between any two of them.
 */
#include "t/unit/interleave.h"

#define shm_is_alive  alive_here
#define shm_rows_used rows_here
#define shm_upstreams upstreams_here
#include "common/breaker.c"
#include "common/places.c"
#include "common/tally.c"
#include "common/upstreams.c"

enum { NOW_MS = 5000, RECOVERY_MS = 10, PLACES = 2 };

static bool is_alive[ACTORS_MAX + 1]; /* the last is a later one, who finds what they left */
static struct table table;
static struct places places;
static struct breaker breaker;
static struct tally tally;
static int inside[PLACES], prober; /* actor + 1 */
static unsigned opened, ended;

static struct shm_who
who(int actor)
{
	return (struct shm_who){.row = (uint32_t)actor, .number = (uint32_t)actor + 7};
}

bool
alive_here(const struct shm *shm, struct shm_who w)
{
	(void)shm;
	return w.row <= ACTORS_MAX && w.number == w.row + 7 && is_alive[w.row];
}

uint32_t
rows_here(const struct shm *shm)
{
	(void)shm;
	return ACTORS_MAX;
}

void *
upstreams_here(const struct shm *shm, size_t *ret_len)
{
	(void)shm;
	(void)ret_len;
	return &table;
}

/* Nothing looks into it: alive_here() and its like are asked. */
static struct shm *
no_shm(void)
{
	return (struct shm *)&table;
}

static void
reset_all(void)
{
	memset(is_alive, true, sizeof(is_alive));
	memset(&places.holders, 0, PLACES * sizeof(places.holders[0]));
	memset(&breaker, 0, sizeof(breaker));
	memset(&tally, 0, sizeof(tally));
	memset(inside, 0, sizeof(inside));
	prober = 0;
	opened = ended = 0;
}

static void
reap(int me)
{
	is_alive[me] = false;
}

static bool
lives(int actor_and_one)
{
	return actor_and_one > 0 && !interleave_was_killed(actor_and_one - 1);
}

/* ---- places ---- */

static void
use_place(int me)
{
	uint32_t hint = (uint32_t)me;
	int at = places_take(&places, PLACES, no_shm(), who(me), &hint);

	if (at < 0)
		return;
	assert_false(lives(inside[at]));
	inside[at] = me + 1;
	interleave_step();
	assert_int_equal(inside[at], me + 1);
	inside[at] = 0;
	places_give(&places, at, who(me));
}

static void
places_are_all_there(void)
{
	uint32_t hint = 0;

	assert_int_equal(places_held(&places, PLACES, no_shm()), 0);
	for (int i = 0; i < PLACES; i++)
		assert_true(places_take(&places, PLACES, no_shm(), who(ACTORS_MAX), &hint) >= 0);
	assert_int_equal(places_take(&places, PLACES, no_shm(), who(ACTORS_MAX), &hint), -1);
}

static void
test_places(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 3,
	    .kills_max = 1,
	    .reset = reset_all,
	    .run = use_place,
	    .on_kill = reap,
	    .finish = places_are_all_there};

	(void)state;
	assert_true(interleave_all(&what) > 1000);
}

/* ---- breaker ---- */

static const struct breaker_rule probed = {
    .failures = 1, .recovery_ms = RECOVERY_MS, .window_ms = 1000};
static const struct breaker_rule twice = {
    .failures = 2, .recovery_ms = RECOVERY_MS, .window_ms = 1000};

static void
reset_open(void)
{
	reset_all();
	breaker.state = open_word(NOW_MS - RECOVERY_MS);
}

static void
probe(int me)
{
	struct breaker_pass pass;

	if (!breaker_enter(&breaker, &probed, no_shm(), who(me), NOW_MS, &pass))
		return;
	if (breaker_is_probe(&pass)) {
		assert_false(lives(prober));
		prober = me + 1;
		interleave_step();
		assert_int_equal(prober, me + 1);
		prober = 0;
	}
	if (me == 2)
		breaker_return(&breaker, &probed, pass, NOW_MS);
	else
		breaker_record(
		    &breaker, &probed, pass, me == 0 ? BREAKER_SUCCESS : BREAKER_FAILURE, NOW_MS);
}

static void
it_can_be_tried_again(void)
{
	struct breaker_pass pass;

	assert_true(breaker_enter(
	    &breaker, &probed, no_shm(), who(ACTORS_MAX), NOW_MS + RECOVERY_MS, &pass));
}

static void
test_one_probe(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 3,
	    .kills_max = 1,
	    .reset = reset_open,
	    .run = probe,
	    .on_kill = reap,
	    .finish = it_can_be_tried_again};

	(void)state;
	assert_true(interleave_all(&what) > 1000);
}

static void
fail_once(int me)
{
	struct breaker_pass pass;

	if (!breaker_enter(&breaker, &twice, no_shm(), who(me), NOW_MS, &pass))
		return;
	opened += breaker_record(&breaker, &twice, pass, BREAKER_FAILURE, NOW_MS);
	ended++;
}

static void
it_opened_once(void)
{
	assert_true(opened <= 1);
	if (ended >= 2)
		assert_int_equal(breaker_state(&breaker), BREAKER_OPEN);
}

static void
test_opens_once(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 3,
	    .kills_max = 1,
	    .reset = reset_all,
	    .run = fail_once,
	    .on_kill = reap,
	    .finish = it_opened_once};

	(void)state;
	assert_true(interleave_all(&what) > 1000);
}

/* ---- tally ---- */

static void
count_one(int me)
{
	(void)me;
	tally_add(&tally, 1000, 1, 1, NOW_MS);
	ended++;
}

static void
none_is_missing(void)
{
	struct tally_counts n = tally_read(&tally, 1000, 0, NOW_MS);
	unsigned killed = 0;

	for (int i = 0; i < 3; i++)
		killed += interleave_was_killed(i);
	assert_true(n.a >= ended && n.a <= ended + killed);
	assert_int_equal(n.a, n.b);
}

static void
test_counts(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 4,
	    .kills_max = 2,
	    .reset = reset_all,
	    .run = count_one,
	    .on_kill = reap,
	    .finish = none_is_missing};

	(void)state;
	assert_true(interleave_all(&what) > 100);
}

/* The first was stopped for a whole window between looking at the clock and counting. */
static void
count_late(int me)
{
	tally_add(&tally, 1000, 1, 0, me == 0 ? NOW_MS - 1000 : NOW_MS);
}

static void
the_new_ones_are_there(void)
{
	assert_int_equal(tally_read(&tally, 1000, 0, NOW_MS).a, 2);
}

static void
test_late_counts(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 4,
	    .reset = reset_all,
	    .run = count_late,
	    .finish = the_new_ones_are_there};

	(void)state;
	assert_true(interleave_all(&what) > 20);
}

/* ---- upstreams ---- */

static struct upstream_shared *found[ACTORS_MAX];

static void
reset_upstreams(void)
{
	reset_all();
	for (uint32_t i = 0; i < UPSTREAMS_MAX; i++)
		table.providers[i].key = 0;
	memset(found, 0, sizeof(found));
}

static void
find_upstream(int me)
{
	found[me] = upstreams_provider(no_shm(), me == 2 ? STR("other") : STR("same"));
}

static void
each_has_its_own(void)
{
	if (found[0] != NULL && found[1] != NULL)
		assert_ptr_equal(found[0], found[1]);
	if (found[2] != NULL)
		assert_true(found[2] != found[0] && found[2] != found[1]);
	assert_ptr_equal(upstreams_provider(no_shm(), STR("same")),
	    found[0] != NULL ? found[0] : upstreams_provider(no_shm(), STR("same")));
}

static void
test_upstreams(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = 4,
	    .kills_max = 1,
	    .reset = reset_upstreams,
	    .run = find_upstream,
	    .on_kill = reap,
	    .finish = each_has_its_own};

	(void)state;
	assert_true(interleave_all(&what) > 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_places),
	    cmocka_unit_test(test_one_probe),
	    cmocka_unit_test(test_opens_once),
	    cmocka_unit_test(test_counts),
	    cmocka_unit_test(test_late_counts),
	    cmocka_unit_test(test_upstreams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
