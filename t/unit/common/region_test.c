/* region - a host's figure is the sum of its workers', the dead ones' included. */
#include "t/unit/unit.h"

#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/region.h"

static struct shm *shm;

static struct shm_who
begin_worker(uint32_t slot)
{
	struct shm_who who;

	assert_true(shm_row_claim(shm, slot, getpid(), &who));
	shm_row_set_state(shm, who, SHM_READY);
	metric_init(shm, who);
	return who;
}

static void
test_sum_of_workers(void **state)
{
	struct region_counts c;

	shm = shm_create(2);
	struct shm_who first = begin_worker(0);
	region_count(REGION_TOOLS, true, clock_mono_us() - 300);
	region_count(REGION_TOOLS, false, clock_mono_us() - 2000000);
	region_entries(REGION_TOOLS, 7);
	struct shm_who second = begin_worker(1);
	region_count(REGION_TOOLS, true, clock_mono_us());
	region_entries(REGION_TOOLS, 9);
	region_entries(REGION_TOOLS, 5);
	region_read(shm, REGION_TOOLS, &c);
	assert_int_equal(c.hits, 2);
	assert_int_equal(c.misses, 1);
	assert_int_equal(c.entries, 12);
	assert_true(c.us >= 2000300 && c.us < 3000000);
	uint64_t timed = 0;
	for (size_t i = 0; i < REGION_TIMES; i++)
		timed += c.times[i];
	assert_int_equal(timed, 3);
	/* What the dead one had is no more, what it has counted stays. */
	shm_row_reap(shm, first);
	region_read(shm, REGION_TOOLS, &c);
	assert_int_equal(c.entries, 5);
	assert_int_equal(c.hits, 2);
	assert_int_equal(c.misses, 1);
	region_read(shm, REGION_KEYS, &c);
	assert_int_equal(c.hits + c.misses + c.entries + c.us, 0);
	assert_string_equal(region_name(REGION_SESSIONS), "sessions");
	shm_row_reap(shm, second);
	metric_init(NULL, second);
	shm_free(&shm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sum_of_workers)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
