/* follower_index: thousands come and go, each is found as long as it is there. */
#include "worker/turn/follower_index.h"

#include <stdlib.h>

#include "t/unit/unit.h"
#include "worker/turn/turn_impl.h"

enum { FOLLOWERS = 5000 };

static struct backplane_addr
addr(uint16_t row)
{
	return (struct backplane_addr){.host = 7, .who = {.row = row, .number = 1}};
}

/* By turns a listener of this worker and two of others, with the same handles. */
static struct follower *
follower(unsigned i)
{
	struct follower *f = xcalloc(1, sizeof(*f));

	f->listener = (uint64_t)1 << 32 | i / 3;
	f->is_far = i % 3 != 0;
	f->addr = addr((uint16_t)(i % 3));
	return f;
}

static struct follower *
find(const struct follower_index *x, unsigned i)
{
	struct backplane_addr a = addr((uint16_t)(i % 3));

	return follower_index_find(x, i % 3 != 0 ? &a : NULL, (uint64_t)1 << 32 | i / 3);
}

static void
test_each_is_found_until_it_goes(void **state)
{
	struct follower_index x = {0};
	struct follower *all[FOLLOWERS];

	(void)state;
	assert_null(find(&x, 0));
	for (unsigned i = 0; i < FOLLOWERS; i++) {
		all[i] = follower(i);
		assert_null(find(&x, i));
		follower_index_add(&x, all[i]);
	}
	for (unsigned i = 0; i < FOLLOWERS; i++)
		assert_ptr_equal(find(&x, i), all[i]);
	for (unsigned k = 0; k < FOLLOWERS; k++) {
		unsigned i = k * 7 % FOLLOWERS;

		follower_index_del(&x, all[i]);
		assert_null(find(&x, i));
		free(all[i]);
		if (k + 1 < FOLLOWERS)
			assert_non_null(find(&x, (k + 1) * 7 % FOLLOWERS));
	}
	assert_true(x.bucket_count <= 64);
	follower_index_fini(&x);
	assert_null(x.buckets);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_each_is_found_until_it_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
