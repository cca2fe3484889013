/*
 * store_test - every verb against a real SQLite file, through the real writer; or, with
 * PARLEY_TEST_STORE=postgres://.., against a real PostgreSQL (t/wire/store.test.mjs does it).
 */
#include "t/unit/worker/store/world.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>

static struct world w;
static int64_t now = 1000000;

/* What callbacks brought, copied; "-" for an absent text. */
static struct {
	int err;
	bool is_reused, has_more, has_record, is_partial;
	uint64_t count, fence, last_seq;
	char id[64], status[16], model[64], text[256], error_code[64], owner[64], device_id[64];
	char request_id[64], tools[256], metadata[256], system[256], result[256];
	char ids[64][ID_MAX], bodies[64][64];
	int64_t last_activity_at, created_at, ended_at, expires_at;
	struct store_usage_sum sum;
} got;

#define COPY(field, from)                                                                          \
	snprintf(got.field, sizeof(got.field), "%s", (from) != NULL ? (from) : "-")

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

static int
err_of_wait(void)
{
	world_wait(&w);
	return got.err;
}

/* ---- callbacks ---- */

static void
on_done(void *arg, int err)
{
	got.err = err;
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	got.err = err;
	got.count = count;
	world_came(&w);
}

static void
keep_session(const struct store_session *s)
{
	got.has_record = s != NULL;
	if (s == NULL)
		return;
	COPY(id, s->id);
	COPY(device_id, s->device_id);
	COPY(status, s->status);
	COPY(model, s->model);
	COPY(system, s->system);
	COPY(tools, s->tools_json);
	COPY(metadata, s->metadata_json);
	got.last_activity_at = s->last_activity_at;
	got.created_at = s->created_at;
}

static void
on_opened(void *arg, int err, const struct store_session *s, bool is_reused)
{
	got.err = err;
	got.is_reused = is_reused;
	keep_session(s);
	world_came(&w);
}

static void
on_session(void *arg, int err, const struct store_session *s)
{
	got.err = err;
	keep_session(s);
	world_came(&w);
}

static void
on_sessions(void *arg, int err, const struct store_session *s, size_t count, bool has_more)
{
	got.err = err;
	got.count = count;
	got.has_more = has_more;
	for (size_t i = 0; i < count; i++)
		COPY(ids[i], s[i].id);
	world_came(&w);
}

static void
on_messages(void *arg, int err, const struct store_message *m, size_t count, bool has_more)
{
	got.err = err;
	got.count = count;
	got.has_more = has_more;
	for (size_t i = 0; i < count; i++) {
		COPY(ids[i], m[i].id);
		COPY(bodies[i], m[i].body_json);
		got.is_partial = m[i].is_partial;
		assert_true(i == 0 || m[i].position > m[i - 1].position);
	}
	world_came(&w);
}

static void
on_turn(void *arg, int err, const struct store_turn *t)
{
	got.err = err;
	got.has_record = t != NULL;
	if (t != NULL) {
		COPY(id, t->id);
		COPY(status, t->state);
		COPY(text, t->text);
		COPY(error_code, t->error_code);
		COPY(owner, t->owner);
		COPY(request_id, t->request_id);
		COPY(result, t->result_json);
		got.fence = t->fence;
		got.last_seq = t->last_seq;
		got.ended_at = t->ended_at;
	}
	world_came(&w);
}

static void
on_usage(void *arg, int err, const struct store_usage_sum *sums, size_t count)
{
	got.err = err;
	got.count = count;
	if (count > 0) {
		COPY(model, sums[0].model);
		got.sum = sums[0];
	}
	world_came(&w);
}

static void
on_key(void *arg, int err, const struct store_key *key)
{
	got.err = err;
	got.has_record = key != NULL;
	if (key != NULL) {
		COPY(id, key->id);
		COPY(status, key->kind);
		COPY(device_id, key->device_id);
		COPY(text, key->limits_json);
		got.created_at = key->created_at;
		got.ended_at = key->revoked_at;
		got.expires_at = key->expires_at;
		assert_int_equal(key->hash[31], 9);
	}
	world_came(&w);
}

static void
on_keys(void *arg, int err, const struct store_key *keys, size_t count, bool has_more)
{
	got.err = err;
	got.count = count;
	for (size_t i = 0; i < count; i++)
		COPY(ids[i], keys[i].id);
	world_came(&w);
}

/* ---- short forms of verbs: ask and wait ---- */

static struct id
open_session(const char *device, bool reuse, const char *model, int64_t reuse_after)
{
	struct id id = id_new("sess");
	struct store_session_open open = {
	    .session = {.id = id.s,
		.app_id = "demo",
		.device_id = device,
		.model = model,
		.system = "be brief",
		.tools_json = model != NULL ? "[]" : NULL},
	    .reuse = reuse,
	    .reuse_after = reuse_after,
	    .now = now,
	};

	expect();
	store_session_open(w.store, &open, on_opened, NULL);
	world_wait(&w);
	return id;
}

static int
get_session(const char *id)
{
	expect();
	store_session_get(w.store, id, on_session, NULL);
	return err_of_wait();
}

static int
close_session(const char *id)
{
	expect();
	store_session_close(w.store, id, now, on_done, NULL);
	return err_of_wait();
}

static int
begin(const char *turn, const char *session, const char *request, const char *hash, uint64_t fence)
{
	struct id message = id_new("msg");
	struct store_turn_begin begin = {
	    .turn = {.id = turn,
		.session_id = session,
		.app_id = "demo",
		.key_id = "key_1",
		.request_id = request,
		.input_hash = hash,
		.owner = "a.1.1",
		.fence = fence,
		.model = "default"},
	    .message = {.id = message.s,
		.session_id = session,
		.turn_id = turn,
		.role = "user",
		.body_json = "{\"role\":\"user\",\"content\":\"hi\"}"},
	    .now = now,
	};

	expect();
	store_turn_begin(w.store, &begin, on_turn, NULL);
	return err_of_wait();
}

static int
end(const char *turn, const char *session, uint64_t fence, const char *state, const char *code,
    const char *message_id)
{
	char usage_id[64];
	struct store_message message = {.id = message_id,
	    .session_id = session,
	    .turn_id = turn,
	    .role = "assistant",
	    .body_json = "{\"role\":\"assistant\",\"content\":\"hello\"}",
	    .is_partial = strcmp(state, "completed") != 0};
	struct store_usage usage = {.id = usage_id,
	    .app_id = "demo",
	    .model = "default",
	    .session_id = session,
	    .turn_id = turn,
	    .input_tokens = 10,
	    .output_tokens = 5,
	    .cached_tokens = 2,
	    .cost_micros = 70,
	    .created_at = now};
	struct store_turn_end e = {.turn_id = turn,
	    .session_id = session,
	    .fence = fence,
	    .state = state,
	    .error_code = code,
	    .text = "hello",
	    .result_json = "{\"a\":1}",
	    .last_seq = 9,
	    .messages = &message,
	    .message_count = message_id != NULL,
	    .usage = &usage,
	    .usage_count = 1,
	    .now = now};

	snprintf(usage_id, sizeof(usage_id), "%s.0", turn);
	expect();
	store_turn_end(w.store, &e, on_done, NULL);
	return err_of_wait();
}

static int
get_turn(const char *id)
{
	expect();
	store_turn_get(w.store, id, on_turn, NULL);
	return err_of_wait();
}

static int
list_messages(const char *session, const char *after, uint32_t limit)
{
	expect();
	store_message_list(w.store, session, after, limit, on_messages, NULL);
	return err_of_wait();
}

static int
list_sessions(struct store_session_filter filter)
{
	expect();
	store_session_list(w.store, &filter, on_sessions, NULL);
	return err_of_wait();
}

static uint64_t
generation(void)
{
	expect();
	store_key_generation(w.store, on_count, NULL);
	assert_int_equal(err_of_wait(), 0);
	return got.count;
}

/* ---- sessions ---- */

static void
session_is_made_and_found(void **state)
{
	struct id id = open_session("dev", false, "gpt", 0);

	assert_int_equal(got.err, 0);
	assert_false(got.is_reused);
	assert_string_equal(got.id, id.s);
	assert_string_equal(got.status, "active");
	assert_string_equal(got.metadata, "-");
	assert_int_equal(got.created_at, now);
	assert_int_equal(get_session(id.s), 0);
	assert_string_equal(got.id, id.s);
	assert_string_equal(got.model, "gpt");
	assert_string_equal(got.system, "be brief");
	assert_int_equal(get_session("sess_none"), E_NOT_FOUND);
	assert_false(got.has_record);
}

static void
session_open_repeated_is_one(void **state)
{
	struct id id = id_new("sess");
	struct store_session_open open = {
	    .session = {.id = id.s, .app_id = "demo", .device_id = "d"}, .now = now, .reuse = true};

	for (int i = 0; i < 2; i++) {
		expect();
		store_session_open(w.store, &open, on_opened, NULL);
		assert_int_equal(err_of_wait(), 0);
		assert_string_equal(got.id, id.s);
		assert_false(got.is_reused);
	}
}

static void
session_reuse_takes_the_newest_active(void **state)
{
	struct id first = open_session("dev", false, "one", 0), second;

	now += 10;
	second = open_session("dev", false, "two", 0);
	now += 10;
	open_session("other", false, "three", 0);
	now += 10;
	open_session("dev", true, NULL, now - 1000);
	assert_true(got.is_reused);
	assert_string_equal(got.id, second.s);
	assert_string_equal(got.model, "two"); /* not given: kept */
	assert_int_equal(got.last_activity_at, now);
	open_session("dev", true, "four", now - 1000);
	assert_string_equal(got.id, second.s);
	assert_string_equal(got.model, "four"); /* given: replaced */

	assert_int_equal(close_session(second.s), 0);
	open_session("dev", true, NULL, 0);
	assert_string_equal(got.id, first.s);
	/* Outside of the window, or without a device: a new one. */
	open_session("dev", true, NULL, now + 1);
	assert_false(got.is_reused);
	open_session(NULL, true, NULL, 0);
	assert_false(got.is_reused);
	assert_string_equal(got.device_id, "-");
}

static void
session_simultaneous_opens_are_one(void **state)
{
	enum { OPENS = 20 };
	struct id ids[OPENS];

	memset(&got, 0, sizeof(got));
	for (int i = 0; i < OPENS; i++) {
		struct store_session_open open = {
		    .session = {.app_id = "demo", .device_id = "same"}, .reuse = true, .now = now};

		ids[i] = id_new("sess");
		open.session.id = ids[i].s;
		world_expect(&w);
		store_session_open(w.store, &open, on_opened, NULL);
	}
	world_wait(&w);
	assert_true(got.is_reused || world_postgres() != NULL); /* there the order is open */
	list_sessions((struct store_session_filter){.app_id = "demo", .limit = OPENS});
	assert_int_equal(got.count, 1);
}

static void
on_expired(void *arg, int err, const struct store_expired *list, size_t count)
{
	on_count(arg, err, count);
	for (size_t i = 0; i < count; i++)
		assert_non_null(list[i].app_id);
}

static void
session_close_and_expire(void **state)
{
	struct id idle = open_session("a", false, NULL, 0),
		  busy = open_session("b", false, NULL, 0), fresh;

	assert_int_equal(begin("turn_live", busy.s, NULL, "h", 1), 0);
	now += 100000;
	fresh = open_session("c", false, NULL, 0);
	expect();
	store_session_expire(w.store, now - 1000, now, 100, on_expired, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 1);
	expect();
	store_session_count_active(w.store, on_count, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 2);
	get_session(idle.s);
	assert_string_equal(got.status, "expired");
	get_session(busy.s);
	assert_string_equal(got.status, "active");
	get_session(fresh.s);
	assert_string_equal(got.status, "active");
	assert_int_equal(begin("turn_x", idle.s, NULL, "h", 1), E_SESSION_CLOSED);
	assert_false(got.has_record);
	assert_int_equal(close_session(fresh.s), 0);
	assert_int_equal(close_session(fresh.s), 0);
	get_session(fresh.s);
	assert_string_equal(got.status, "closed");
	assert_int_equal(close_session("sess_none"), E_NOT_FOUND);
}

static void
session_list_pages_newest_first(void **state)
{
	struct id ids[5];

	for (int i = 0; i < 5; i++) {
		int64_t before = clock_wall_ms();

		ids[i] = open_session(i % 2 == 0 ? "even" : "odd", false, NULL, 0);
		while (clock_wall_ms() == before) /* ids of one millisecond have no order */
			;
	}
	list_sessions((struct store_session_filter){.app_id = "demo", .limit = 2});
	assert_int_equal(got.count, 2);
	assert_true(got.has_more);
	assert_string_equal(got.ids[0], ids[4].s);
	assert_string_equal(got.ids[1], ids[3].s);
	list_sessions(
	    (struct store_session_filter){.app_id = "demo", .limit = 2, .after = ids[1].s});
	assert_int_equal(got.count, 1);
	assert_false(got.has_more);
	list_sessions((struct store_session_filter){
	    .app_id = "demo", .device_id = "even", .status = "active", .limit = 3});
	assert_int_equal(got.count, 3);
	assert_false(got.has_more);
	assert_string_equal(got.ids[2], ids[0].s);
	list_sessions(
	    (struct store_session_filter){.app_id = "demo", .status = "closed", .limit = 3});
	assert_int_equal(got.count, 0);
	list_sessions((struct store_session_filter){.app_id = "other", .limit = 3});
	assert_int_equal(got.count, 0);
}

/* ---- turns ---- */

static void
turn_begins_once(void **state)
{
	struct id s = open_session("d", false, NULL, 0);

	now += 5;
	assert_int_equal(begin("turn_1", s.s, "r1", "h1", 7), 0);
	assert_false(got.has_record);
	assert_int_equal(begin("turn_1", s.s, "r1", "h1", 7), 0); /* repeated */
	assert_int_equal(get_turn("turn_1"), 0);
	assert_string_equal(got.status, "live");
	assert_string_equal(got.owner, "a.1.1");
	assert_int_equal(got.fence, 7);
	assert_string_equal(got.request_id, "r1");
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 1);
	get_session(s.s);
	assert_int_equal(got.last_activity_at, now);

	assert_int_equal(begin("turn_2", s.s, "r1", "h1", 1), E_DUPLICATE);
	assert_string_equal(got.id, "turn_1");
	assert_int_equal(begin("turn_2", s.s, "r1", "h2", 1), E_REQUEST_ID_REUSED);
	assert_string_equal(got.id, "turn_1");
	assert_int_equal(begin("turn_2", s.s, "r2", "h2", 1), E_TURN_IN_PROGRESS);
	assert_string_equal(got.id, "turn_1");
	assert_int_equal(begin("turn_2", s.s, NULL, "h2", 1), E_TURN_IN_PROGRESS);
	assert_int_equal(begin("turn_2", "sess_none", NULL, "h2", 1), E_NOT_FOUND);
	assert_false(got.has_record);
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 1);
	expect();
	store_turn_live(w.store, s.s, on_turn, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_string_equal(got.id, "turn_1");
}

static void
turn_ends_once(void **state)
{
	struct id s = open_session("d", false, NULL, 0);

	assert_int_equal(begin("turn_1", s.s, "r1", "h1", 7), 0);
	assert_int_equal(end("turn_1", s.s, 6, "completed", NULL, "msg_a"), E_FENCED);
	assert_int_equal(end("turn_1", s.s, 7, "completed", NULL, "msg_a"), 0);
	assert_int_equal(end("turn_1", s.s, 7, "completed", NULL, "msg_a"), 0); /* repeated */
	get_turn("turn_1");
	assert_string_equal(got.status, "completed");
	assert_string_equal(got.text, "hello");
	assert_string_equal(got.result, "{\"a\":1}");
	assert_int_equal(got.last_seq, 9);
	assert_int_equal(got.ended_at, now);
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 2);
	assert_false(got.is_partial);
	assert_string_equal(got.ids[1], "msg_a");
	expect();
	store_turn_live(w.store, s.s, on_turn, NULL);
	assert_int_equal(err_of_wait(), E_NOT_FOUND);
	/* Asked again it is replayed; another one may begin. */
	assert_int_equal(begin("turn_2", s.s, "r1", "h1", 1), E_DUPLICATE);
	assert_string_equal(got.text, "hello");
	assert_int_equal(begin("turn_2", s.s, "r2", "h1", 1), 0);
	assert_int_equal(end("turn_2", s.s, 1, "cancelled", NULL, "msg_b"), 0);
	list_messages(s.s, NULL, 10);
	assert_true(got.is_partial);
}

static void
turn_adds_and_progresses(void **state)
{
	struct id s = open_session("d", false, NULL, 0);
	struct store_message m[2] = {
	    {.id = "msg_1", .session_id = s.s, .role = "assistant", .body_json = "{\"n\":1}"},
	    {.id = "msg_2", .session_id = s.s, .role = "tool", .body_json = "{\"n\":2}"},
	};
	struct store_usage u = {.id = "turn_1.0",
	    .app_id = "demo",
	    .model = "m",
	    .cost_micros = -1,
	    .input_tokens = 3,
	    .created_at = now};

	assert_int_equal(begin("turn_1", s.s, NULL, "h", 3), 0);
	for (int i = 0; i < 2; i++) {
		expect();
		store_turn_add(w.store, "turn_1", 3, m, 2, &u, 1, on_done, NULL);
		assert_int_equal(err_of_wait(), 0);
	}
	expect();
	store_turn_add(w.store, "turn_1", 2, m, 2, NULL, 0, on_done, NULL);
	assert_int_equal(err_of_wait(), E_FENCED);
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 3);
	assert_string_equal(got.bodies[1], "{\"n\":1}");
	assert_string_equal(got.bodies[2], "{\"n\":2}");

	expect();
	store_turn_progress(w.store, "turn_1", 3, "so far", 12, on_done, NULL);
	assert_int_equal(err_of_wait(), 0);
	get_turn("turn_1");
	assert_string_equal(got.text, "so far");
	assert_int_equal(got.last_seq, 12);
	expect();
	store_turn_progress(w.store, "turn_1", 4, "so far", 12, on_done, NULL);
	assert_int_equal(err_of_wait(), E_FENCED);
	expect();
	store_usage_by_model(w.store, "demo", now, now + 1, on_usage, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.sum.calls, 1);
	assert_int_equal(got.sum.cost_micros, 0);
}

static void
turn_of_the_dead_is_lost_and_runs_anew(void **state)
{
	struct id s = open_session("d", false, NULL, 0);

	assert_int_equal(begin("turn_1", s.s, "r1", "h1", 5), 0);
	expect();
	store_turn_lose(w.store, "turn_1", "b.1.1", now, on_done, NULL);
	assert_int_equal(err_of_wait(), E_FENCED);
	for (int i = 0; i < 2; i++) {
		expect();
		store_turn_lose(w.store, "turn_1", "a.1.1", now, on_done, NULL);
		assert_int_equal(err_of_wait(), 0);
	}
	get_turn("turn_1");
	assert_string_equal(got.status, "failed");
	assert_string_equal(got.error_code, "worker_lost");
	assert_int_equal(got.fence, 6);
	/* The dead one's late write. */
	assert_int_equal(end("turn_1", s.s, 5, "completed", NULL, "msg_a"), E_FENCED);

	assert_int_equal(begin("turn_2", s.s, "r1", "h2", 1), E_REQUEST_ID_REUSED);
	assert_int_equal(begin("turn_2", s.s, "r1", "h1", 1), 0);
	get_turn("turn_1");
	assert_string_equal(got.request_id, "-");
	get_turn("turn_2");
	assert_string_equal(got.status, "live");
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 1); /* the input is there once */
	assert_int_equal(end("turn_2", s.s, 1, "failed", "draining", NULL), 0);
	assert_int_equal(begin("turn_3", s.s, "r1", "h1", 1), 0);
	assert_int_equal(end("turn_3", s.s, 1, "failed", "provider_error", NULL), 0);
	assert_int_equal(begin("turn_4", s.s, "r1", "h1", 1), E_DUPLICATE);
}

static void
turns_of_the_dead_are_lost_together(void **state)
{
	struct id s1 = open_session("1", false, NULL, 0), s2 = open_session("2", false, NULL, 0);

	assert_int_equal(begin("turn_1", s1.s, NULL, "h", 1), 0);
	assert_int_equal(begin("turn_2", s2.s, NULL, "h", 1), 0);
	for (int i = 0; i < 2; i++) {
		expect();
		store_turn_lose_all(w.store, "a.1.1", now, on_count, NULL);
		assert_int_equal(err_of_wait(), 0);
		assert_int_equal(got.count, i == 0 ? 2 : 0);
	}
}

static void
turns_of_former_lives_are_lost(void **state)
{
	struct id s = open_session("1", false, NULL, 0);

	assert_int_equal(begin("turn_1", s.s, NULL, "h", 1), 0);
	for (int is_former = 0; is_former < 2; is_former++) {
		expect();
		store_turn_lose_former(w.store, is_former ? "b." : "a.", now, on_count, NULL);
		assert_int_equal(err_of_wait(), 0);
		assert_int_equal(got.count, is_former);
	}
	get_turn("turn_1");
	assert_string_equal(got.error_code, "worker_lost");
}

/* ---- messages and usage ---- */

static void
messages_by_page_and_by_budget(void **state)
{
	struct id s = open_session("d", false, NULL, 0);
	struct store_message m[10];
	char ids[10][32], bodies[10][64];

	assert_int_equal(begin("turn_1", s.s, NULL, "h", 1), 0);
	for (int i = 0; i < 10; i++) {
		snprintf(ids[i], sizeof(ids[i]), "msg_%d", i);
		snprintf(bodies[i], sizeof(bodies[i]), "{\"n\":%d,\"x\":\"12345678\"}", i);
		assert_int_equal(strlen(bodies[i]), 22);
		m[i] = (struct store_message){
		    .id = ids[i], .session_id = s.s, .role = "assistant", .body_json = bodies[i]};
	}
	expect();
	store_turn_add(w.store, "turn_1", 1, m, 10, NULL, 0, on_done, NULL);
	assert_int_equal(err_of_wait(), 0);

	list_messages(s.s, NULL, 4);
	assert_int_equal(got.count, 4);
	assert_true(got.has_more);
	assert_string_equal(got.ids[3], "msg_2");
	list_messages(s.s, "msg_2", 7);
	assert_int_equal(got.count, 7);
	assert_false(got.has_more);
	assert_string_equal(got.ids[0], "msg_3");
	assert_int_equal(list_messages(s.s, "msg_none", 7), E_NOT_FOUND);
	assert_int_equal(list_messages(s.s, "msg_9", 7), 0);
	assert_int_equal(got.count, 0);

	expect();
	store_message_history(w.store, s.s, 67, on_messages, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 3); /* 66 bytes */
	assert_true(got.has_more);
	assert_string_equal(got.ids[0], "msg_7");
	assert_string_equal(got.ids[2], "msg_9");
	expect();
	store_message_history(w.store, s.s, 1, on_messages, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 1);
	expect();
	store_message_history(w.store, s.s, UINT64_MAX, on_messages, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 11);
	assert_false(got.has_more);
}

static uint64_t
empty_some(const char *session, uint32_t limit)
{
	expect();
	store_session_empty(w.store, session, limit, on_count, NULL);
	assert_int_equal(err_of_wait(), 0);
	return got.count;
}

static void
content_goes_after_its_time(void **state)
{
	struct id old = open_session("1", false, NULL, 0),
		  young = open_session("2", false, NULL, 0),
		  active = open_session("3", false, NULL, 0);
	struct id ids[] = {old, young, active};
	char turn[32];

	for (int i = 0; i < 3; i++) {
		snprintf(turn, sizeof(turn), "turn_%d", i);
		assert_int_equal(begin(turn, ids[i].s, "r", "h", 1), 0);
		snprintf(turn, sizeof(turn), "turn_%d", i);
		assert_int_equal(end(turn, ids[i].s, 1, "completed", NULL, NULL), 0);
	}
	for (int i = 0; i < 2; i++) {
		expect();
		store_session_close(w.store, ids[i].s, now + i, on_done, NULL);
		assert_int_equal(err_of_wait(), 0);
	}
	for (int i = 0; i < 2; i++) {
		expect();
		store_session_retire(w.store, now + 1, now + 5, 10, on_count, NULL);
		assert_int_equal(err_of_wait(), 0);
		assert_int_equal(got.count, i == 0);
	}
	assert_int_equal(empty_some(NULL, 10), 0);
	for (int i = 0; i < 3; i++) {
		list_messages(ids[i].s, NULL, 10);
		assert_int_equal(got.count, i > 0);
	}
	get_turn("turn_0");
	assert_string_equal(got.text, "-");
	assert_string_equal(got.status, "completed");
	get_turn("turn_1");
	assert_string_not_equal(got.text, "-");
	expect();
	store_usage_by_model(w.store, "demo", 0, now + 1, on_usage, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.sum.calls, 3);
}

static void
erased_content_stays_erased(void **state)
{
	struct id s = open_session("d", false, "m", 0);

	assert_int_equal(begin("turn_1", s.s, "r1", "h", 1), 0);
	assert_int_equal(end("turn_1", s.s, 1, "completed", NULL, "msg_a"), 0);
	assert_int_equal(begin("turn_2", s.s, "r2", "h", 1), 0);
	for (int i = 0; i < 2; i++) {
		expect();
		store_session_erase(w.store, s.s, now, on_done, NULL);
		assert_int_equal(err_of_wait(), 0);
	}
	/* Three messages and two turns, in three batches. */
	for (uint64_t left = 3; left-- > 0;)
		assert_int_equal(empty_some(s.s, 1), left > 0);
	get_session(s.s);
	assert_string_equal(got.status, "closed");
	assert_string_equal(got.system, "-");
	assert_string_equal(got.tools, "-");
	get_turn("turn_1");
	assert_string_equal(got.text, "-");
	assert_string_equal(got.result, "-");
	/* The live one goes on, and says nothing that stays; what it used counts. */
	expect();
	store_turn_progress(w.store, "turn_2", 1, "secret", 3, on_done, NULL);
	assert_int_equal(err_of_wait(), 0);
	get_turn("turn_2");
	assert_string_equal(got.text, "-");
	assert_int_equal(end("turn_2", s.s, 1, "completed", NULL, "msg_b"), 0);
	get_turn("turn_2");
	assert_string_equal(got.status, "completed");
	assert_string_equal(got.text, "-");
	assert_string_equal(got.result, "-");
	list_messages(s.s, NULL, 10);
	assert_int_equal(got.count, 0);
	assert_int_equal(begin("turn_3", s.s, "r1", "h", 1), E_SESSION_CLOSED);
	expect();
	store_usage_by_model(w.store, "demo", 0, now + 1, on_usage, NULL);
	world_wait(&w);
	assert_int_equal(got.sum.calls, 2);
}

static void
usage_is_summed_by_model(void **state)
{
	struct id s = open_session("d", false, NULL, 0);
	char turn[32];

	for (int i = 0; i < 3; i++) {
		snprintf(turn, sizeof(turn), "turn_%d", i);
		assert_int_equal(begin(turn, s.s, NULL, "h", 1), 0);
		assert_int_equal(end(turn, s.s, 1, "completed", NULL, NULL), 0);
	}
	expect();
	store_usage_by_model(w.store, "demo", now, now + 1, on_usage, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 1);
	assert_string_equal(got.model, "default");
	assert_int_equal(got.sum.calls, 3);
	assert_int_equal(got.sum.input_tokens, 30);
	assert_int_equal(got.sum.output_tokens, 15);
	assert_int_equal(got.sum.cached_tokens, 6);
	assert_int_equal(got.sum.cost_micros, 210);
	expect();
	store_usage_by_model(w.store, "demo", now + 1, now + 2, on_usage, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 0);
}

/* ---- keys ---- */

static int
create_key(struct store *store, const struct store_key *key)
{
	expect();
	store_key_create(store, key, on_done, NULL);
	return err_of_wait();
}

static int
revoke_key(const char *id)
{
	expect();
	store_key_revoke(w.store, id, now + 1, on_done, NULL);
	return err_of_wait();
}

static int
get_key(const uint8_t hash[32])
{
	expect();
	store_key_by_hash(w.store, hash, on_key, NULL);
	return err_of_wait();
}

static void
keys_are_made_found_and_revoked(void **state)
{
	struct store_key key = {.id = "key_1",
	    .kind = "client",
	    .app_id = "demo",
	    .device_id = "dev",
	    .hash = {[31] = 9},
	    .limits_json = "{\"rpm\":1}",
	    .created_at = now,
	    .expires_at = now + 5};
	struct store_key twin = {.id = "key_2", .kind = "admin", .hash = {[31] = 9}};
	uint64_t before = generation();

	assert_int_equal(create_key(w.store, &key), 0);
	assert_int_equal(create_key(w.store, &key), 0); /* repeated */
	assert_int_equal(generation(), before);         /* nobody can have cached it */
	assert_int_equal(create_key(w.store, &twin), E_DUPLICATE);
	assert_int_equal(get_key(key.hash), 0);
	assert_string_equal(got.id, "key_1");
	assert_string_equal(got.status, "client");
	assert_string_equal(got.device_id, "dev");
	assert_string_equal(got.text, world_postgres() != NULL ? "{\"rpm\": 1}" : "{\"rpm\":1}");
	assert_int_equal(got.expires_at, now + 5);
	assert_int_equal(got.ended_at, 0);
	assert_int_equal(get_key((const uint8_t[32]){1}), E_NOT_FOUND);
	assert_false(got.has_record);
	assert_int_equal(revoke_key("key_1"), 0);
	assert_int_equal(revoke_key("key_x"), E_NOT_FOUND);
	assert_int_equal(generation(), before + 1);
	assert_int_equal(get_key(key.hash), 0);
	assert_int_equal(got.ended_at, now + 1);
	expect();
	store_key_list(w.store, NULL, NULL, 100, on_keys, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 1);
	expect();
	store_key_list(w.store, "other", NULL, 100, on_keys, NULL);
	assert_int_equal(err_of_wait(), 0);
	assert_int_equal(got.count, 0);
}

/* ---- when things go wrong ---- */

static void
locked_database_fails_in_time_and_recovers(void **state)
{
	sqlite3 *other = NULL;
	PGconn *pq = NULL;

	open_session("x", false, NULL, 0);
	if (world_postgres() != NULL) {
		pq = world_connect();
		world_sql(pq, "BEGIN; LOCK TABLE chat_sessions; LOCK TABLE generations");
	} else {
		assert_int_equal(sqlite3_open(w.path, &other), SQLITE_OK);
		assert_int_equal(
		    sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	}
	w.conf.store.acquire_timeout_ms = 100;
	open_session("d", false, NULL, 0);
	assert_int_equal(got.err, E_STORE_UNAVAILABLE);
	assert_false(store_is_available(w.store));
	assert_true(store_unavailable_since_ms(w.store) > 0);
	sqlite3_close(other);
	PQfinish(pq);
	/* By itself: no write of ours is needed. */
	w.conf.store.acquire_timeout_ms = 10000;
	for (uint64_t end_ms = clock_mono_ms() + 10000; !store_is_available(w.store);) {
		assert_true(clock_mono_ms() < end_ms);
		world_turn(&w);
	}
	open_session("d", false, NULL, 0);
	assert_int_equal(got.err, 0);
}

static void
too_many_waiting_are_refused(void **state)
{
	w.conf.store.max_queue = 3;
	expect();
	world_expect(&w);
	world_expect(&w);
	world_expect(&w);
	for (int i = 0; i < 3; i++)
		store_turn_get(w.store, "turn_none", on_turn, NULL);
	store_session_close(w.store, "sess_none", now, on_done, NULL);
	assert_int_equal(w.pending, 4); /* never from inside */
	world_wait(&w);
	w.conf.store.max_queue = 0;
	assert_int_equal(get_turn("turn_none"), E_STORE_UNAVAILABLE);
	w.conf.store.max_queue = 3;
	assert_int_equal(get_turn("turn_none"), E_NOT_FOUND);
	assert_true(store_is_available(w.store));
}

static void
what_was_queued_is_committed_by_free(void **state)
{
	struct id id = id_new("sess");
	struct store_session_open open = {
	    .session = {.id = id.s, .app_id = "demo", .device_id = "d"}, .now = now};

	open_session("x", false, NULL, 0); /* by now it is the writer, or is connected */
	for (int i = 0; i < 20; i++) {     /* more than there are connections */
		struct id more = id_new("sess");

		open.session.id = i == 19 ? id.s : more.s;
		expect();
		store_session_open(w.store, &open, on_opened, NULL);
	}
	store_free(&w.store);
	assert_int_equal(w.pending, 20); /* nobody is called at the end */
	w.store = store_new(w.loop, &w.conf, NULL, NULL);
	assert_non_null(w.store);
	w.pending = 0;
	assert_int_equal(get_session(id.s), 0);
}

static void
direct_store_answers_at_once(void **state)
{
	struct store *direct = store_new_direct(&w.conf);
	uint64_t before = generation();

	assert_non_null(direct);
	assert_int_equal(
	    create_key(direct,
		&(struct store_key){
		    .id = "key_9", .kind = "admin", .hash = {[31] = 9}, .created_at = 1}),
	    0);
	expect();
	store_key_list(direct, NULL, NULL, 100, on_keys, NULL);
	assert_int_equal(w.pending, 0);
	assert_int_equal(got.count, 1);
	expect();
	store_key_revoke(direct, "key_9", 2, on_done, NULL);
	store_free(&direct);
	assert_int_equal(generation(), before + 1);
}

/* No file, or not a database: told at once, and nothing is made. */
static void
what_is_no_database_is_not_opened(void **state)
{
	struct world bare;
	FILE *f;

	if (world_postgres() != NULL)
		skip();

	world_init(&bare);
	bare.loop = loop_new();
	assert_null(store_new(bare.loop, &bare.conf, NULL, NULL));
	assert_int_not_equal(access(bare.path, F_OK), 0);
	f = fopen(bare.path, "w");
	for (int i = 0; i < 1000; i++)
		fputs("this is not a database\n", f);
	fclose(f);
	assert_null(store_new(bare.loop, &bare.conf, NULL, NULL));
	assert_null(store_new_direct(&bare.conf));
	assert_int_equal(store_migrate(&bare.conf), E_STORE_UNAVAILABLE);
	bare.conf.store.url = "mysql://never";
	assert_null(store_new(bare.loop, &bare.conf, NULL, NULL));
	assert_int_not_equal(store_migrate(&bare.conf), 0);
	world_fini(&bare);
}

/* A file that may not grow is as good as a full disk. */
static void
full_disk_fails_clearly_and_recovers(void **state)
{
	struct rlimit before, now_full;
	struct id id;
	uint64_t end_ms;
	int failures = 0;

	if (world_postgres() != NULL)
		skip();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	now_full = (struct rlimit){.rlim_cur = 256 << 10, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now_full), 0);
	w.conf.store.acquire_timeout_ms = 100;
	for (int i = 0; i < 1000 && failures == 0; i++) {
		open_session("d", false, "m", 0);
		failures += got.err != 0;
	}
	assert_int_equal(got.err, E_STORE_UNAVAILABLE);
	assert_false(store_is_available(w.store));
	/* What was acknowledged can be read all the while. */
	list_sessions((struct store_session_filter){.app_id = "demo", .limit = 10});
	assert_int_equal(got.err, 0);
	assert_int_equal(got.count, 10);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	w.conf.store.acquire_timeout_ms = 10000;
	for (end_ms = clock_mono_ms() + 10000; !store_is_available(w.store);) {
		assert_true(clock_mono_ms() < end_ms);
		world_turn(&w);
	}
	id = open_session("d", false, "m", 0);
	assert_int_equal(got.err, 0);
	assert_int_equal(get_session(id.s), 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(session_is_made_and_found),
	    T(session_open_repeated_is_one),
	    T(session_reuse_takes_the_newest_active),
	    T(session_simultaneous_opens_are_one),
	    T(session_close_and_expire),
	    T(session_list_pages_newest_first),
	    T(turn_begins_once),
	    T(turn_ends_once),
	    T(turn_adds_and_progresses),
	    T(turn_of_the_dead_is_lost_and_runs_anew),
	    T(turns_of_the_dead_are_lost_together),
	    T(turns_of_former_lives_are_lost),
	    T(messages_by_page_and_by_budget),
	    T(content_goes_after_its_time),
	    T(erased_content_stays_erased),
	    T(usage_is_summed_by_model),
	    T(keys_are_made_found_and_revoked),
	    T(locked_database_fails_in_time_and_recovers),
	    T(too_many_waiting_are_refused),
	    T(what_was_queued_is_committed_by_free),
	    T(direct_store_answers_at_once),
	    T(what_is_no_database_is_not_opened),
	    T(full_disk_fails_clearly_and_recovers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
