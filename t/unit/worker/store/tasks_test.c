/*
 * tasks_test - tasks in the record: claimed once and fairly, in order within a partition, changed
 * by their owner only, released, cancelled, retried, timed out, archived. PARLEY_TEST_STORE names a
 * PostgreSQL database to run over.
 */
#include "t/unit/worker/store/world.h"

#include "worker/store/tasks.h"

#define ME    "aaaaaaaaaaaaaaaa.0.1"
#define OTHER "bbbbbbbbbbbbbbbb.0.1"
enum { LONG_MS = 600000, GOT_MAX = 64 };

static struct world w;

struct kept {
	char id[40], app[16], state[16], code[24], input[64], result[64], owner[40], job[16];
	char partition[16];
	uint64_t fence;
	uint32_t losses, attempts, runs;
	int progress;
	bool is_retryable, has_ended;
	int64_t left_ms;
};

static struct {
	int err;
	bool has_task, has_changed;
	size_t count, ids;
	uint64_t n;
	uint32_t apps;
	struct kept tasks[GOT_MAX];
	char id[GOT_MAX][40];
	struct store_task_stats stats;
} got;

static int
setup(void **state)
{
	world_init(&w);
	world_start(&w);
	return 0;
}

static int
teardown(void **state)
{
	world_fini(&w);
	return 0;
}

static void
expect(void)
{
	memset(&got, 0, sizeof(got));
	world_expect(&w);
}

#define KEEP(to, from) snprintf(to, sizeof(to), "%s", (from) != NULL ? (from) : "-")
static void
keep(struct kept *k, const struct store_task *t)
{
	KEEP(k->id, t->id);
	KEEP(k->app, t->app_id);
	KEEP(k->state, t->state);
	KEEP(k->code, t->error_code);
	KEEP(k->input, t->input_json);
	KEEP(k->result, t->result_json);
	KEEP(k->owner, t->owner);
	KEEP(k->job, t->job_id);
	KEEP(k->partition, t->partition_key);
	k->fence = t->fence;
	k->losses = t->losses;
	k->attempts = t->attempts;
	k->runs = t->runs;
	k->progress = t->progress;
	k->is_retryable = t->is_retryable;
	k->has_ended = t->ended_at != 0;
	k->left_ms = t->left_ms;
}

static void
on_task(void *arg, int err, const struct store_task *t)
{
	got.err = err;
	got.has_task = t != NULL;
	if (t != NULL)
		keep(&got.tasks[0], t);
	world_came(&w);
}

static void
on_changed(void *arg, int err, bool has_changed, const struct store_task *t)
{
	got.has_changed = has_changed;
	on_task(arg, err, t);
}

static void
on_tasks(void *arg, int err, const struct store_task *t, size_t count)
{
	assert_int_equal(err, 0);
	got.count = count;
	for (size_t i = 0; i < count && i < GOT_MAX; i++)
		keep(&got.tasks[i], &t[i]);
	world_came(&w);
}

static void
on_claimed(void *arg, int err, const struct store_task *t, size_t count, uint32_t apps)
{
	got.apps = apps;
	on_tasks(arg, err, t, count);
}

static void
on_ids(void *arg, int err, const char *const *ids, size_t count)
{
	assert_int_equal(err, 0);
	got.ids = count;
	for (size_t i = 0; i < count && i < GOT_MAX; i++)
		KEEP(got.id[i], ids[i]);
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	assert_int_equal(err, 0);
	got.n = count;
	world_came(&w);
}

static void
on_stats(void *arg, int err, const struct store_task_stats *s)
{
	assert_int_equal(err, 0);
	got.stats = *s;
	world_came(&w);
}

static void
create_of(const char *id, const char *app, const char *partition, const char *request,
    uint64_t timeout_ms)
{
	struct store_task_new t = {.id = id,
	    .app_id = app,
	    .key_id = "key_1",
	    .type = "chat.completion",
	    .partition_key = partition,
	    .idempotency_key = request,
	    .model = "m",
	    .input_json = "{\"a\":1}",
	    .terms_json = "{}",
	    .stripe = 3,
	    .timeout_ms = timeout_ms};

	expect();
	store_task_create(w.store, &t, on_task, NULL);
	world_wait(&w);
}

static void
create(const char *id, const char *app, const char *partition)
{
	create_of(id, app, partition, NULL, LONG_MS);
	assert_int_equal(got.err, 0);
}

static size_t
claim_of(const char *owner, uint32_t limit, uint32_t from, uint32_t to, uint64_t lease_ms)
{
	struct store_task_claim c = {owner, limit, from, to, lease_ms};

	expect();
	store_task_claim(w.store, &c, on_claimed, NULL);
	world_wait(&w);
	return got.count;
}

static size_t
claim(const char *owner, uint32_t limit)
{
	return claim_of(owner, limit, 0, 30, LONG_MS);
}

static struct kept *
get(const char *id)
{
	expect();
	store_task_get(w.store, id, NULL, on_task, NULL);
	world_wait(&w);
	return &got.tasks[0];
}

static size_t
change(const struct store_task_change *c)
{
	expect();
	store_task_change(w.store, c, 1, on_ids, NULL);
	world_wait(&w);
	return got.ids;
}

static size_t
start(const char *id, uint64_t fence)
{
	return change(&(struct store_task_change){
	    .id = id, .app_id = "a", .fence = fence, .state = "running", .is_kept = true});
}

static size_t
end(const char *id, const char *partition, uint64_t fence)
{
	return change(&(struct store_task_change){.id = id,
	    .app_id = "a",
	    .partition_key = partition,
	    .fence = fence,
	    .state = "succeeded",
	    .progress = 100,
	    .result_json = "{\"b\":2}",
	    .is_ended = true});
}

/* As who takes it from its owner. */
static size_t
cancel(const char *id, const char *partition)
{
	uint64_t fence = get(id)->fence;

	return change(&(struct store_task_change){.id = id,
	    .app_id = "a",
	    .partition_key = partition,
	    .fence = fence,
	    .take_step = store_task_take_step(),
	    .state = "cancelled",
	    .is_ended = true});
}

static void
retry(const char *id, bool only_retryable)
{
	expect();
	store_task_retry(w.store, id, "a", only_retryable, on_changed, NULL);
	world_wait(&w);
}

/* What a dead owner had may be claimed again. */
static size_t
release(const char *owner)
{
	struct kept had[GOT_MAX];
	size_t count;

	expect();
	if (owner != NULL)
		store_task_owned(w.store, owner, on_tasks, NULL);
	else
		store_task_late(w.store, on_tasks, NULL);
	world_wait(&w);
	count = got.count;
	memcpy(had, got.tasks, sizeof(had));
	for (size_t i = 0; i < count; i++)
		assert_int_equal(change(&(struct store_task_change){.id = had[i].id,
				     .app_id = had[i].app,
				     .fence = had[i].fence,
				     .take_step = store_task_take_step(),
				     .losses = had[i].losses + 1,
				     .state = "queued"}),
		    1);
	return count;
}

/* As when the writer dies, or the connection breaks, between the commit and the answer. */
static void
who_takes_a_task_may_say_it_again(void **state)
{
	struct store_task_change take = {.id = "task_1",
	    .app_id = "a",
	    .take_step = store_task_take_step(),
	    .state = "cancelled",
	    .is_ended = true,
	    .webhook_id = "wh_1",
	    .webhook_endpoint = "e",
	    .webhook_event = "task.cancelled",
	    .webhook_body = "{}"};
	struct store_task_change other = take;

	create("task_1", "a", NULL);
	assert_int_equal(claim(ME, 5), 1);
	take.fence = other.fence = got.tasks[0].fence;
	other.take_step = take.take_step + 1;
	assert_int_equal(change(&take), 1);
	assert_int_equal(change(&take), 1);
	assert_int_equal(change(&other), 0); /* who was later */
	assert_int_equal(end("task_1", NULL, take.fence), 0);
	assert_string_equal(get("task_1")->state, "cancelled");
	assert_int_equal(got.tasks[0].fence, take.fence + take.take_step);
	other.state = "succeeded";
	other.take_step = take.take_step; /* the same number says something else */
	assert_int_equal(change(&other), 0);
	retry("task_1", false);
	assert_true(got.has_changed);
	assert_int_equal(change(&take), 0); /* it is another run by now */
	assert_string_equal(get("task_1")->state, "queued");
}

/* The same of what is given back, which another may have claimed meanwhile. */
static void
who_gives_a_task_back_may_say_it_again(void **state)
{
	struct store_task_change lost = {.id = "task_1",
	    .app_id = "a",
	    .take_step = store_task_take_step(),
	    .losses = 1,
	    .state = "queued"};

	create("task_1", "a", NULL);
	assert_int_equal(claim(OTHER, 5), 1);
	lost.fence = got.tasks[0].fence;
	assert_int_equal(change(&lost), 1);
	assert_int_equal(change(&lost), 1);
	assert_int_equal(claim(ME, 5), 1);
	assert_int_equal(change(&lost), 0);
	assert_string_equal(get("task_1")->owner, ME);
	assert_int_equal(got.tasks[0].losses, 1);
}

static void
a_task_goes_its_way(void **state)
{
	create("task_1", "a", NULL);
	assert_string_equal(get("task_1")->state, "queued");
	assert_string_equal(got.tasks[0].input, "{\"a\":1}");
	assert_true(got.tasks[0].left_ms > LONG_MS - 60000 && got.tasks[0].left_ms <= LONG_MS);
	assert_int_equal(claim(ME, 5), 1);
	assert_string_equal(got.tasks[0].state, "queued");
	assert_string_equal(got.tasks[0].owner, ME);
	assert_int_equal(got.apps, 1);
	uint64_t fence = got.tasks[0].fence;
	assert_int_equal(claim(OTHER, 5), 0);
	assert_int_equal(start("task_1", fence), 1);
	assert_string_equal(get("task_1")->state, "running");
	assert_int_equal(end("task_1", NULL, fence - 1), 0); /* who is no longer the owner */
	assert_int_equal(end("task_1", NULL, fence), 1);
	assert_int_equal(end("task_1", NULL, fence), 1); /* said twice */
	assert_string_equal(get("task_1")->state, "succeeded");
	assert_string_equal(got.tasks[0].result, "{\"b\":2}");
	assert_true(got.tasks[0].has_ended);
	assert_int_equal(claim(ME, 5), 0);
	expect();
	store_task_get(w.store, "task_1", "b", on_task, NULL); /* another app's */
	world_wait(&w);
	assert_int_equal(got.err, E_NOT_FOUND);
}

static void
a_request_is_made_once(void **state)
{
	create_of("task_1", "a", NULL, "r1", LONG_MS);
	assert_int_equal(got.err, 0);
	create_of("task_2", "a", NULL, "r1", LONG_MS);
	assert_int_equal(got.err, E_DUPLICATE);
	assert_string_equal(got.tasks[0].id, "task_1");
	create_of("task_1", "a", NULL, "r1", LONG_MS); /* the same write, repeated */
	assert_int_equal(got.err, 0);
	create_of("task_3", "b", NULL, "r1", LONG_MS); /* another app's */
	assert_int_equal(got.err, 0);
}

static void
apps_are_served_alike(void **state)
{
	char id[24];
	size_t of_b = 0;

	for (int i = 0; i < 20; i++) {
		snprintf(id, sizeof(id), "task_a%02d", i);
		create(id, "a", NULL);
	}
	for (int i = 0; i < 3; i++) {
		snprintf(id, sizeof(id), "task_b%02d", i);
		create(id, "b", NULL);
	}
	assert_int_equal(claim(ME, 6), 6);
	assert_int_equal(got.apps, 2);
	for (size_t i = 0; i < 6; i++)
		of_b += strcmp(got.tasks[i].app, "b") == 0;
	assert_int_equal(of_b, 3);
	for (size_t i = 0; i < 6; i++) /* the oldest of the other one */
		assert_true(got.tasks[i].app[0] == 'b' || strcmp(got.tasks[i].id, "task_a03") < 0);
	assert_int_equal(claim_of(ME, 6, 4, 30, LONG_MS), 0); /* stripes that hold none */
	assert_int_equal(claim_of(ME, 6, 3, 4, LONG_MS), 6);
	assert_int_equal(claim(ME, 60), 11);
}

static void
a_partition_is_in_order(void **state)
{
	create("task_1", "a", "p");
	create("task_2", "a", "p");
	create("task_3", "a", "p");
	create("task_4", "a", "q");
	create("task_5", "b", "p");
	assert_int_equal(claim(ME, 10), 3); /* 1, 4, 5 */
	assert_int_equal(claim(ME, 10), 0);
	assert_int_equal(start("task_1", 1), 1);
	assert_int_equal(end("task_1", "p", 1), 1);
	assert_int_equal(claim(ME, 10), 1);
	assert_string_equal(got.tasks[0].id, "task_2");
	/* Another attempt later: the one behind it waits. */
	assert_int_equal(change(&(struct store_task_change){.id = "task_2",
			     .app_id = "a",
			     .partition_key = "p",
			     .fence = 1,
			     .state = "queued",
			     .attempts = 1,
			     .due_in_ms = 0}),
	    1);
	assert_int_equal(claim(ME, 10), 1);
	assert_string_equal(got.tasks[0].id, "task_2");
	assert_int_equal(got.tasks[0].attempts, 1);
	assert_int_equal(cancel("task_2", "p"), 1);
	assert_int_equal(claim(ME, 10), 1);
	assert_string_equal(got.tasks[0].id, "task_3");
}

static void
whose_time_is_up_is_found(void **state)
{
	create_of("task_1", "a", "p", NULL, 0); /* as it begins */
	create("task_2", "a", "p");
	assert_int_equal(claim(ME, 10), 1);
	expect();
	store_task_overdue(w.store, on_tasks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 1);
	assert_string_equal(got.tasks[0].id, "task_1");
	assert_string_equal(got.tasks[0].owner, ME);
	assert_true(got.tasks[0].left_ms <= 0);
	assert_int_equal(cancel("task_1", NULL), 1); /* by somebody who forgets the partition */
	assert_int_equal(start("task_1", 1), 0);
	assert_int_equal(claim(ME, 10), 0);
	expect();
	store_task_unblock(w.store, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.n, 1);
	assert_int_equal(claim(ME, 10), 1);
	assert_string_equal(got.tasks[0].id, "task_2");
}

static void
the_dead_lose_their_tasks(void **state)
{
	create("task_1", "a", NULL);
	assert_int_equal(claim(OTHER, 5), 1);
	uint64_t fence = got.tasks[0].fence;
	assert_int_equal(start("task_1", fence), 1);
	assert_int_equal(release(ME), 0);
	assert_int_equal(release(OTHER), 1);
	assert_int_equal(release(OTHER), 0);
	assert_int_equal(end("task_1", NULL, fence), 0); /* not so dead: too late */
	assert_int_equal(claim(ME, 5), 1);
	assert_int_equal(got.tasks[0].losses, 1);
	assert_true(got.tasks[0].fence > fence);
	assert_string_equal(got.tasks[0].state, "queued");
}

/* A webhook is written if the change is, once. */
static void
on_webhooks(void *arg, int err, const struct store_webhook *rows, size_t count, bool has_more)
{
	assert_int_equal(err, 0);
	got.n = count;
	if (count > 0) {
		assert_string_equal(rows[0].order_key, "task_1");
		assert_string_equal(rows[0].app_id, "a");
		assert_string_equal(rows[0].body, "{}");
	}
	world_came(&w);
}

static void
who_wants_to_be_told_is(void **state)
{
	struct id id = id_new("wh");
	struct store_task_change c = {.id = "task_1",
	    .app_id = "a",
	    .fence = 7,
	    .take_step = store_task_take_step(),
	    .state = "failed",
	    .is_ended = true,
	    .webhook_id = id.s,
	    .webhook_endpoint = "whe_1",
	    .webhook_event = "task.failed",
	    .webhook_body = "{}"};
	struct store_webhook_filter f = {.limit = 10, .app_id = "a"};

	create("task_1", "a", NULL);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(change(&c), i > 0); /* the last time it is said again */
		expect();
		store_webhook_list(w.store, &f, on_webhooks, NULL);
		world_wait(&w);
		assert_int_equal(got.n, i > 0);
		c.fence = 0;
	}
}

/* Somebody else has taken it meanwhile, under the fence that this one would have raised it to. */
static void
who_comes_too_late_tells_nobody(void **state)
{
	struct id id = id_new("wh");
	struct store_task_change c = {.id = "task_1",
	    .app_id = "a",
	    .fence = 0,
	    .take_step = store_task_take_step(),
	    .state = "cancelled",
	    .is_ended = true,
	    .webhook_id = id.s,
	    .webhook_endpoint = "whe_1",
	    .webhook_event = "task.cancelled",
	    .webhook_body = "{}"};
	struct store_webhook_filter f = {.limit = 10, .app_id = "a"};

	create("task_1", "a", NULL);
	assert_int_equal(claim(ME, 1), 1);
	assert_int_equal(change(&c), 0);
	expect();
	store_webhook_list(w.store, &f, on_webhooks, NULL);
	world_wait(&w);
	assert_int_equal(got.n, 0);
}

static void
what_has_ended_stays_as_it_is(void **state)
{
	create("task_1", "a", NULL);
	assert_int_equal(claim(ME, 1), 1);
	uint64_t fence = got.tasks[0].fence;
	assert_int_equal(start("task_1", fence), 1);
	assert_int_equal(end("task_1", NULL, fence), 1);
	assert_int_equal(cancel("task_1", NULL), 0); /* who has read it while it was running */
	assert_int_equal(start("task_1", fence), 0);
	assert_string_equal(get("task_1")->state, "succeeded");
	assert_string_equal(got.tasks[0].result, "{\"b\":2}");
	assert_int_equal(end("task_1", NULL, fence), 1); /* said twice */
}

static void
a_lease_ends_unless_it_is_renewed(void **state)
{
	create("task_1", "a", NULL);
	create("task_2", "a", NULL);
	assert_int_equal(claim_of(ME, 1, 0, 30, 0), 1);
	assert_int_equal(claim(OTHER, 1), 1);
	expect();
	store_task_renew(w.store, OTHER, LONG_MS, on_ids, NULL);
	world_wait(&w);
	assert_int_equal(got.ids, 1);
	assert_string_equal(got.id[0], "task_2");
	assert_int_equal(release(NULL), 1);
	assert_string_equal(get("task_1")->owner, "-");
	expect();
	store_task_renew(w.store, ME, LONG_MS, on_ids, NULL);
	world_wait(&w);
	assert_int_equal(got.ids, 0);
	expect();
	store_task_former(w.store, "aaaaaaaaaaaaaaaa", on_tasks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 1);
	assert_string_equal(got.tasks[0].id, "task_2");
}

static void
who_cancels_decides(void **state)
{
	create("task_1", "a", NULL);
	assert_int_equal(claim(ME, 1), 1);
	uint64_t fence = got.tasks[0].fence;
	assert_int_equal(cancel("task_1", NULL), 1);
	assert_string_equal(get("task_1")->state, "cancelled");
	assert_string_equal(got.tasks[0].owner, ME); /* who must hear of it */
	assert_int_equal(end("task_1", NULL, fence), 0);
	assert_string_equal(get("task_1")->state, "cancelled");
}

static void
what_has_failed_can_be_begun_anew(void **state)
{
	create("task_1", "a", "p");
	create("task_2", "a", "p");
	retry("task_1", false);
	assert_false(got.has_changed); /* it has not ended */
	claim(ME, 1);
	assert_int_equal(change(&(struct store_task_change){.id = "task_1",
			     .app_id = "a",
			     .partition_key = "p",
			     .fence = 1,
			     .state = "failed",
			     .error_code = "provider_error",
			     .attempts = 3,
			     .is_ended = true}),
	    1);
	retry("task_1", true);
	assert_false(got.has_changed); /* it says that it will not help */
	retry("task_1", false);
	assert_true(got.has_changed);
	assert_string_equal(got.tasks[0].state, "queued");
	assert_string_equal(got.tasks[0].code, "-");
	assert_int_equal(got.tasks[0].runs, 1);
	assert_int_equal(got.tasks[0].attempts, 0);
	assert_false(got.tasks[0].has_ended);
	assert_int_equal(claim(ME, 5), 1); /* it is the last of its partition now */
	assert_string_equal(got.tasks[0].id, "task_2");
	assert_int_equal(end("task_2", "p", 1), 1);
	assert_int_equal(claim(ME, 5), 1);
	assert_string_equal(got.tasks[0].id, "task_1");
}

static size_t
ended(const char *owner, bool is_prefix, uint64_t settled_ms)
{
	struct store_task_ended q = {.owner = owner,
	    .is_prefix = is_prefix,
	    .lately_ms = 60000,
	    .settled_ms = settled_ms,
	    .limit = 10};

	expect();
	store_task_ended(w.store, &q, on_tasks, NULL);
	world_wait(&w);
	return got.count;
}

static size_t
take_end(const char *id, uint64_t fence)
{
	expect();
	store_task_take_end(w.store, id, fence, on_ids, NULL);
	world_wait(&w);
	return got.ids;
}

static void
ends_of_the_dead_are_found_and_taken_once(void **state)
{
	create("task_1", "a", NULL);
	create("task_2", "a", NULL);
	create("task_3", "a", NULL);
	assert_int_equal(claim(ME, 2), 2);
	assert_int_equal(ended(ME, false, 0), 0);
	assert_int_equal(take_end("task_1", 1), 0); /* it has not ended */
	assert_int_equal(end("task_1", NULL, 1), 1);
	assert_int_equal(ended(ME, false, 0), 1);
	assert_int_equal(ended("aaaaaaaaaaaaaaaa.", true, 0), 1);
	assert_int_equal(ended(OTHER, false, 0), 0);
	assert_int_equal(ended("bbbbbbbbbbbbbbbb.", true, 0), 0);
	assert_int_equal(cancel("task_3", NULL), 1); /* nobody's, so it may be of anybody */
	assert_int_equal(ended(OTHER, false, 60000), 0);
	assert_int_equal(ended(OTHER, false, 0), 1);
	assert_string_equal(got.tasks[0].id, "task_3");
	uint64_t fence = get("task_1")->fence;
	assert_int_equal(take_end("task_1", fence), 1);
	assert_int_equal(take_end("task_1", fence), 0);
	assert_string_equal(get("task_1")->state, "succeeded");
}

static void
lists_are_newest_first_and_without_the_old(void **state)
{
	struct store_task_filter f = {.app_id = "a", .limit = 10};

	create("task_1", "a", NULL);
	create("task_2", "a", NULL);
	create("task_3", "b", NULL);
	assert_int_equal(claim(ME, 1) + claim(ME, 1), 2);
	assert_int_equal(end("task_1", NULL, 1), 1);
	expect();
	store_task_list(w.store, &f, on_tasks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 2);
	assert_string_equal(got.tasks[0].id, "task_2");
	f.state = "succeeded";
	expect();
	store_task_list(w.store, &f, on_tasks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 1);
	expect();
	store_task_archive(w.store, 60000, 100, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.n, 0);
	expect();
	store_task_archive(w.store, 0, 100, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.n, 1);
	assert_string_equal(get("task_1")->input, "-");
	assert_string_equal(got.tasks[0].result, "{\"b\":2}");
	retry("task_1", false);
	assert_false(got.has_changed);
	expect();
	store_task_list(w.store, &f, on_tasks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 0);
	expect();
	store_task_purge(w.store, 0, 100, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.n, 1);
	expect();
	store_task_get(w.store, "task_1", NULL, on_task, NULL);
	world_wait(&w);
	assert_int_equal(got.err, E_NOT_FOUND);
	expect();
	store_task_stats(w.store, on_stats, NULL);
	world_wait(&w);
	assert_int_equal(got.stats.queued, 2);
}

static uint64_t
waiting(const char *app, uint32_t limit)
{
	expect();
	store_task_waiting(w.store, app, limit, on_count, NULL);
	world_wait(&w);
	return got.n;
}

static void
those_who_wait_are_counted(void **state)
{
	static const char *const ids[] = {"task_1", "task_2", "task_3", "task_4", "task_5"};

	assert_int_equal(waiting("a", 100), 0);
	for (int i = 0; i < 5; i++)
		create(ids[i], "a", i < 2 ? NULL : "p");
	create("task_6", "b", NULL);
	assert_int_equal(waiting("a", 100), 5);
	assert_int_equal(waiting("b", 100), 1);
	assert_true(waiting("a", 2) >= 2);
	assert_int_equal(claim(ME, 5), 4); /* of the partition one */
	assert_int_equal(waiting("a", 100), 2);
	assert_int_equal(waiting("b", 100), 0);
	assert_int_equal(cancel("task_5", "p"), 1);
	assert_int_equal(waiting("a", 100), 1);
	assert_int_equal(end("task_3", "p", get("task_3")->fence), 1); /* the next may be claimed */
	assert_int_equal(waiting("a", 100), 1);
	assert_int_equal(release(ME), 3);
	assert_int_equal(waiting("a", 100), 3);
}

static void
what_a_request_was_used_for(void **state)
{
	create_of("task_1", "a", NULL, "once", LONG_MS);
	for (int i = 0; i < 2; i++) {
		expect();
		store_task_of_request(w.store, i == 0 ? "a" : "b", "once", on_task, NULL);
		world_wait(&w);
		assert_int_equal(got.err, i == 0 ? 0 : E_NOT_FOUND);
		assert_int_equal(got.has_task, i == 0);
	}
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(a_task_goes_its_way),
	    T(a_request_is_made_once),
	    T(apps_are_served_alike),
	    T(a_partition_is_in_order),
	    T(whose_time_is_up_is_found),
	    T(the_dead_lose_their_tasks),
	    T(who_comes_too_late_tells_nobody),
	    T(what_has_ended_stays_as_it_is),
	    T(who_takes_a_task_may_say_it_again),
	    T(who_gives_a_task_back_may_say_it_again),
	    T(a_lease_ends_unless_it_is_renewed),
	    T(who_wants_to_be_told_is),
	    T(ends_of_the_dead_are_found_and_taken_once),
	    T(who_cancels_decides),
	    T(what_has_failed_can_be_begun_anew),
	    T(lists_are_newest_first_and_without_the_old),
	    T(those_who_wait_are_counted),
	    T(what_a_request_was_used_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
