/*
 * write_test - changes of tasks on their way into the record: who changes one of them at the same
 * moment as another is told of what became of his own change.
 */
#include "t/unit/worker/store/world.h"

#include <sys/mman.h>

#include "worker/store/tasks.h"
#include "worker/task/task_impl.h"

static struct world w;
static struct tasks ts;

static int
setup(void **state)
{
	world_init(&w);
	world_start(&w);
	ts = (struct tasks){.of = {.loop = w.loop, .store = w.store, .conf = &w.conf}};
	list_init(&ts.writes);
	ts.write_again.on_fire = writes_on_again;
	return 0;
}

static int
teardown(void **state)
{
	writes_free(&ts);
	world_fini(&w);
	return 0;
}

static void
on_task(void *arg, int err, const struct store_task *t)
{
	assert_int_equal(err, 0);
	if (arg != NULL)
		snprintf(arg, 16, "%s", t->state);
	world_came(&w);
}

static void
create(const char *id)
{
	const struct store_task_new t = {.id = id,
	    .app_id = "a",
	    .type = "chat.completion",
	    .input_json = "{}",
	    .terms_json = "{}",
	    .timeout_ms = 600000};

	world_expect(&w);
	store_task_create(w.store, &t, on_task, NULL);
	world_wait(&w);
}

struct outcome {
	int err;
	bool is_done;
};

static void
on_written(void *arg, int err, bool is_done)
{
	*(struct outcome *)arg = (struct outcome){err, is_done};
	world_came(&w);
}

static void
each_is_told_of_its_own(void **state)
{
	const struct store_task one = {
	    .id = "task_1", .app_id = "a", .type = "chat.completion", .state = "running"};
	const struct store_task other = {
	    .id = "task_2", .app_id = "a", .type = "chat.completion", .state = "queued"};
	struct said cancelled = {.state = "cancelled", .is_taken = true, .is_ended = true};
	struct said succeeded = {.state = "succeeded", .is_ended = true};
	struct outcome first, cancel, success;
	char is[16];

	create("task_1");
	create("task_2");
	world_expect(&w);
	world_expect(&w);
	world_expect(&w);
	task_change(&ts, &other, &cancelled, on_written, &first); /* the others wait for that */
	task_change(&ts, &one, &cancelled, on_written, &cancel);
	task_change(&ts, &one, &succeeded, on_written, &success);
	world_wait(&w);
	assert_int_equal(first.err | cancel.err | success.err, 0);
	assert_true(first.is_done && cancel.is_done);
	assert_false(success.is_done);
	world_expect(&w);
	store_task_get(w.store, "task_1", "a", on_task, is);
	world_wait(&w);
	assert_string_equal(is, "cancelled");
}

/* Who runs it may have dropped it, and all its texts, before the record has answered. */
static void
what_is_told_is_kept(void **state)
{
	struct said started = {.state = "running", .is_kept = true};
	struct store_task t = {.id = "task_1", .app_id = "a", .type = "chat.completion"};
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct outcome outcome;

	create("task_1");
	assert_ptr_not_equal(page, MAP_FAILED);
	strcpy(page, "queued");
	t.state = t.key_id = t.owner = t.message = page;
	world_expect(&w);
	task_change(&ts, &t, &started, on_written, &outcome);
	assert_int_equal(munmap(page, 4096), 0);
	world_wait(&w);
	assert_int_equal(outcome.err, 0);
	assert_true(outcome.is_done);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_is_told_of_its_own, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_is_told_is_kept, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
