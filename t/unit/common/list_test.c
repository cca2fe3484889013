/* list: order, removal, and walking while removing. */
#include "t/unit/unit.h"

#include "common/list.h"

struct item {
	int n;
	struct list in;
};

static void
expect(const struct list *head, const int *want, size_t count)
{
	size_t i = 0;

	list_for (node, head) {
		assert_true(i < count);
		assert_int_equal(list_entry(node, struct item, in)->n, want[i++]);
		assert_ptr_equal(node->next->prev, node);
	}
	assert_int_equal(i, count);
}

static void
test_order(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};

	assert_true(list_empty(&head));
	assert_null(list_first(&head, struct item, in));
	list_add_tail(&head, &items[1].in);
	list_add_tail(&head, &items[2].in);
	list_add_head(&head, &items[0].in);
	list_add_tail(&head, &items[3].in);
	expect(&head, (const int[]){0, 1, 2, 3}, 4);
	assert_int_equal(list_first(&head, struct item, in)->n, 0);
}

static void
test_removal(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[3] = {{.n = 0}, {.n = 1}, {.n = 2}};

	for (size_t i = 0; i < 3; i++)
		list_add_tail(&head, &items[i].in);
	list_del(&items[1].in);
	assert_false(list_linked(&items[1].in));
	list_del(&items[1].in); /* in none: left alone */
	expect(&head, (const int[]){0, 2}, 2);
	list_for_safe (node, &head)
		list_del(node);
	assert_true(list_empty(&head));
	list_add_head(&head, &items[1].in);
	expect(&head, (const int[]){1}, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_removal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
