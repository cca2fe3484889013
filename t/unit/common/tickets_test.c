/* tickets - random keys move on by one period, those of a secret are the same for everybody. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/tickets.h"

static struct ticket_key
get(const struct tickets *t, enum ticket_period at)
{
	struct ticket_key key;

	assert_true(tickets_get(t, at, &key));
	return key;
}

static bool
is_same(struct ticket_key a, struct ticket_key b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static void
test_random_keys_move_on(void **state)
{
	struct tickets t = {0};
	struct ticket_key key;

	(void)state;
	assert_false(tickets_get(&t, TICKET_PRESENT, &key));
	tickets_turn(&t, STR(""), 0);
	struct ticket_key present = get(&t, TICKET_PRESENT), next = get(&t, TICKET_NEXT);
	assert_false(is_same(present, next));
	tickets_turn(&t, STR(""), 0);
	assert_true(is_same(get(&t, TICKET_LAST), present));
	assert_true(is_same(get(&t, TICKET_PRESENT), next));
	assert_false(is_same(get(&t, TICKET_NEXT), next));
}

static void
test_keys_of_a_secret(void **state)
{
	struct tickets a = {0}, b = {0};

	(void)state;
	tickets_turn(&a, STR("one secret"), 7);
	tickets_turn(&b, STR("one secret"), 8);
	assert_true(is_same(get(&a, TICKET_PRESENT), get(&b, TICKET_LAST)));
	assert_true(is_same(get(&a, TICKET_NEXT), get(&b, TICKET_PRESENT)));
	tickets_turn(&b, STR("another"), 7);
	assert_false(is_same(get(&a, TICKET_PRESENT), get(&b, TICKET_PRESENT)));
	struct ticket_key key = get(&a, TICKET_PRESENT);
	assert_memory_not_equal(key.aes, key.hmac, sizeof(key.aes));
}

static void
test_a_writer_that_died(void **state)
{
	struct tickets t = {0};
	struct ticket_key key;

	(void)state;
	tickets_turn(&t, STR("a secret"), 1);
	key = get(&t, TICKET_PRESENT);
	atomic_fetch_add(&t.sequence, 1);
	assert_false(tickets_get(&t, TICKET_PRESENT, &key));
	tickets_turn(&t, STR("a secret"), 1);
	assert_true(is_same(get(&t, TICKET_PRESENT), key));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random_keys_move_on),
	    cmocka_unit_test(test_keys_of_a_secret),
	    cmocka_unit_test(test_a_writer_that_died),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
