/*
 * store_kill_test - four workers write under load while the elected writer is
 * killed again and again: what was acknowledged is there, once.
 */
#include "t/unit/worker/store/world.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "common/log.h"
#include "common/metric.h"
#include "common/shm.h"
#include "common/strmap.h"
#include "worker/backplane/backplane.h"

enum {
	WORKERS = 4,
	CHAINS = 8, /* conversations of a worker at the same time */
	SHARED = 10,
	KILLS = 12,
	ACKS_BETWEEN_KILLS = 300,
};

/* What a worker tells: one write each, shorter than PIPE_BUF. */
struct record {
	char what; /* O shared device opened, B turn begun, E turn ended, U unavailable, ? wrong */
	int number;
	char id[ID_MAX];
	uint32_t waited_ms;
};

static struct world w;
static struct shm *shm;
static int acks[2], stop[2];

/* ---- a worker ---- */

struct chain {
	struct worker *worker;
	char device[32];
	struct id session, turn, message, answer;
	uint64_t since_ms;
	bool is_shared;
	int number;
};

struct worker {
	struct loop *loop;
	struct backplane *backplane;
	struct store *store;
	char owner[48];
	struct chain chains[CHAINS], shared[SHARED];
	struct loop_watch stop;
	bool is_stopping;
	int busy;
};

static void chain_open(struct chain *c);

static void
tell(struct chain *c, char what, const char *id, int number)
{
	struct record r = {
	    .what = what, .number = number, .waited_ms = (uint32_t)(clock_mono_ms() - c->since_ms)};

	snprintf(r.id, sizeof(r.id), "%s", id);
	if (write(acks[1], &r, sizeof(r)) != sizeof(r))
		_exit(2);
}

static void
chain_rest(struct chain *c)
{
	if (--c->worker->busy == 0 && c->worker->is_stopping)
		loop_stop(c->worker->loop);
}

static void chain_begin(struct chain *c);

static void
on_ended(void *arg, int err)
{
	struct chain *c = arg;

	if (err == 0)
		tell(c, 'E', c->turn.s, 0);
	else
		tell(c, err == E_STORE_UNAVAILABLE ? 'U' : '?', "end", err);
	if (c->worker->is_stopping)
		chain_rest(c);
	else
		chain_open(c);
}

static void
chain_end(struct chain *c)
{
	char usage_id[64];
	struct store_message answer = {.id = c->answer.s,
	    .session_id = c->session.s,
	    .turn_id = c->turn.s,
	    .role = "assistant",
	    .body_json = "{\"role\":\"assistant\",\"content\":\"an answer of some length\"}"};
	struct store_usage usage = {
	    .id = usage_id, .app_id = "demo", .model = "m", .turn_id = c->turn.s, .created_at = 1};
	struct store_turn_end end = {.turn_id = c->turn.s,
	    .session_id = c->session.s,
	    .fence = 1,
	    .state = "completed",
	    .finish_reason = "stop",
	    .text = "an answer of some length",
	    .result_json = "{}",
	    .messages = &answer,
	    .message_count = 1,
	    .usage = &usage,
	    .usage_count = 1,
	    .now = clock_wall_ms()};

	snprintf(usage_id, sizeof(usage_id), "%s.0", c->turn.s);
	c->since_ms = clock_mono_ms();
	store_turn_end(c->worker->store, &end, on_ended, c);
}

static void
on_lost(void *arg, int err)
{
	struct chain *c = arg;

	if (err != 0 && err != E_FENCED)
		tell(c, '?', "lose", err);
	chain_begin(c);
}

static void
on_begun(void *arg, int err, const struct store_turn *existing)
{
	struct chain *c = arg;

	if (err == 0) {
		tell(c, 'B', c->turn.s, 0);
		chain_end(c);
	} else if (err == E_TURN_IN_PROGRESS) {
		/* The live turn of the one that was killed in this slot. */
		store_turn_lose(
		    c->worker->store, existing->id, existing->owner, clock_wall_ms(), on_lost, c);
	} else {
		tell(c, err == E_STORE_UNAVAILABLE ? 'U' : '?', "begin", err);
		chain_rest(c);
	}
}

static void
chain_begin(struct chain *c)
{
	struct store_turn_begin begin = {
	    .turn = {.id = c->turn.s,
		.session_id = c->session.s,
		.app_id = "demo",
		.input_hash = "h",
		.owner = c->worker->owner,
		.fence = 1},
	    .message = {.id = c->message.s,
		.session_id = c->session.s,
		.role = "user",
		.body_json = "{\"role\":\"user\",\"content\":\"a question\"}"},
	    .now = clock_wall_ms(),
	};

	c->turn = id_new("turn");
	c->message = id_new("msg");
	c->answer = id_new("msg");
	begin.turn.id = c->turn.s;
	begin.message.id = c->message.s;
	c->since_ms = clock_mono_ms();
	store_turn_begin(c->worker->store, &begin, on_begun, c);
}

static void
on_opened(void *arg, int err, const struct store_session *session, bool is_reused)
{
	struct chain *c = arg;

	if (err != 0) {
		tell(c, err == E_STORE_UNAVAILABLE ? 'U' : '?', "open", err);
		chain_rest(c);
		return;
	}
	snprintf(c->session.s, sizeof(c->session.s), "%s", session->id);
	if (c->is_shared) {
		tell(c, 'O', c->session.s, c->number);
		chain_rest(c);
	} else {
		chain_begin(c);
	}
}

static void
chain_open(struct chain *c)
{
	struct id id = id_new("sess");
	struct store_session_open open = {
	    .session = {.id = id.s, .app_id = "demo", .device_id = c->device},
	    .reuse = true,
	    .now = clock_wall_ms()};

	c->since_ms = clock_mono_ms();
	store_session_open(c->worker->store, &open, on_opened, c);
}

static void
on_stop(struct loop_watch *watch, uint32_t events)
{
	struct worker *me = container_of(watch, struct worker, stop);

	loop_watch_stop(me->loop, watch);
	me->is_stopping = true;
	if (me->busy == 0)
		loop_stop(me->loop);
}

static void
worker_start(struct worker *me, struct shm_who who, int slot)
{
	snprintf(me->owner, sizeof(me->owner), "h.%x.%x", who.row, who.number);
	me->busy = CHAINS + SHARED;
	for (int i = 0; i < SHARED; i++) {
		me->shared[i] = (struct chain){.worker = me, .is_shared = true, .number = i};
		snprintf(me->shared[i].device, sizeof(me->shared[i].device), "shared-%d", i);
		chain_open(&me->shared[i]);
	}
	for (int i = 0; i < CHAINS; i++) {
		me->chains[i] = (struct chain){.worker = me};
		snprintf(me->chains[i].device, sizeof(me->chains[i].device), "dev-%d-%d", slot, i);
		chain_open(&me->chains[i]);
	}
}

_Noreturn static void
worker_main_of_test(struct shm_who who, int slot)
{
	struct worker me = {.busy = 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(acks[0]);
	close(stop[1]);
	log_set_identity(slot);
	metric_init(shm, who);
	me.loop = loop_new();
	me.backplane = backplane_new(me.loop, shm, who);
	shm_row_set_state(shm, who, SHM_READY);
	me.store = store_new(me.loop, &w.conf, shm, me.backplane);
	if (me.store == NULL)
		_exit(3);
	me.stop.on_ready = on_stop;
	loop_watch_start(me.loop, &me.stop, stop[0], EPOLLIN);
	worker_start(&me, who, slot);
	loop_run(me.loop);
	store_free(&me.store);
	backplane_free(&me.backplane);
	loop_free(&me.loop);
	_exit(0);
}

/* ---- the master ---- */

struct child {
	pid_t pid;
	struct shm_who who;
};

static struct child children[WORKERS];
static struct strmap *begun, *ended;
static char shared_ids[SHARED][ID_MAX];
static unsigned ack_count, unavailable_count, wrong_count;
static uint32_t longest_ms;

static void
spawn(int slot)
{
	struct child *c = &children[slot];

	assert_true(shm_row_claim(shm, (uint32_t)slot, 1, &c->who));
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0)
		worker_main_of_test(c->who, slot);
	shm_row_set_pid(shm, c->who, c->pid);
}

static void
take_record(const struct record *r)
{
	struct str id = str_of(r->id);

	ack_count++;
	if (r->waited_ms > longest_ms)
		longest_ms = r->waited_ms;
	if (r->what == 'B')
		assert_null(strmap_set(begun, id, begun));
	else if (r->what == 'E')
		assert_null(strmap_set(ended, id, ended));
	else if (r->what == 'U')
		unavailable_count++;
	else if (r->what == '?') {
		print_message("wrong: %s %d\n", r->id, r->number);
		wrong_count++;
	} else if (shared_ids[r->number][0] == '\0')
		strcpy(shared_ids[r->number], r->id);
	else
		assert_string_equal(shared_ids[r->number], r->id);
}

/* False: all writers of the pipe are gone. */
static bool
read_record(void)
{
	struct pollfd p = {.fd = acks[0], .events = POLLIN};
	struct record r;
	ssize_t len;

	assert_int_equal(poll(&p, 1, WORLD_PATIENCE_MS), 1);
	len = read(acks[0], &r, sizeof(r));
	if (len == 0)
		return false;
	assert_int_equal(len, sizeof(r));
	take_record(&r);
	return true;
}

static int
slot_of_writer(void)
{
	uint64_t word = atomic_load(shm_word(shm, SHM_WORD_STORE_WRITER));

	for (int i = 0; i < WORKERS; i++)
		if (word == ((uint64_t)children[i].who.row << 32 | children[i].who.number))
			return i;
	return -1;
}

static void
kill_and_replace(int slot)
{
	assert_int_equal(kill(children[slot].pid, SIGKILL), 0);
	assert_int_equal(waitpid(children[slot].pid, NULL, 0), children[slot].pid);
	shm_row_reap(shm, children[slot].who);
	spawn(slot);
}

/* ---- what must be true in the end ---- */

static int64_t
number_of(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt = NULL;
	int64_t number;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	number = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return number;
}

static void
assert_all_there(sqlite3 *db, struct strmap *turns, const char *sql)
{
	sqlite3_stmt *stmt = NULL;
	size_t cursor = 0;
	struct str id;
	void *value;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	while (strmap_next(turns, &cursor, &id, &value)) {
		sqlite3_bind_text(stmt, 1, id.p, (int)id.len, SQLITE_STATIC);
		if (sqlite3_step(stmt) != SQLITE_ROW)
			fail_msg("lost: %.*s", (int)id.len, id.p);
		sqlite3_reset(stmt);
	}
	sqlite3_finalize(stmt);
}

static void
check_record(void)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(w.path, &db), SQLITE_OK);
	assert_all_there(db, begun, "SELECT 1 FROM turns WHERE id = ?");
	assert_all_there(db, ended, "SELECT 1 FROM turns WHERE id = ? AND state = 'completed'");
	/* Each turn has its question once, each ended one its answer and its usage once. */
	assert_int_equal(number_of(db, "SELECT count(*) FROM messages WHERE role = 'user'"),
	    number_of(db, "SELECT count(*) FROM turns"));
	assert_int_equal(number_of(db, "SELECT count(*) FROM messages WHERE role = 'assistant'"),
	    number_of(db, "SELECT count(*) FROM turns WHERE state = 'completed'"));
	assert_int_equal(number_of(db, "SELECT count(*) FROM usage"),
	    number_of(db, "SELECT count(*) FROM turns WHERE state = 'completed'"));
	assert_int_equal(number_of(db, "SELECT count(*) FROM (SELECT 1 FROM messages"
				       " GROUP BY turn_id, role HAVING count(*) > 1)"),
	    0);
	assert_int_equal(number_of(db, "SELECT count(*) FROM turns WHERE state = 'live'"), 0);
	/* One session per device, however many opened it at once. */
	assert_int_equal(
	    number_of(db, "SELECT count(*) FROM chat_sessions"), WORKERS * CHAINS + SHARED);
	assert_int_equal(number_of(db, "SELECT count(*) FROM pragma_integrity_check"
				       " WHERE integrity_check <> 'ok'"),
	    0);
	sqlite3_close(db);
}

static void
nothing_acknowledged_is_lost_or_doubled(void **state)
{
	int kills = 0;
	unsigned next_kill_at = ACKS_BETWEEN_KILLS;

	for (int i = 0; i < WORKERS; i++)
		spawn(i);
	while (kills < KILLS && read_record()) {
		int slot = ack_count >= next_kill_at ? slot_of_writer() : -1;

		if (slot < 0)
			continue;
		kill_and_replace(slot);
		kills++;
		next_kill_at = ack_count + ACKS_BETWEEN_KILLS;
	}
	while (ack_count < next_kill_at)
		assert_true(read_record());
	close(stop[1]);
	close(acks[1]); /* the end of the pipe is the end of the last child */
	while (read_record())
		;
	for (int i = 0; i < WORKERS; i++) {
		int status;

		assert_int_equal(waitpid(children[i].pid, &status, 0), children[i].pid);
		assert_int_equal(status, 0);
	}
	print_message("turns ended=%zu begun=%zu kills=%d longest wait for an answer=%u ms\n",
	    strmap_count(ended), strmap_count(begun), kills, longest_ms);
	assert_int_equal(wrong_count, 0);
	assert_int_equal(unavailable_count, 0);
	check_record();
}

static int
setup(void **state)
{
	world_init(&w);
	assert_int_equal(store_migrate(&w.conf), 0);
	shm = shm_create(WORKERS);
	assert_non_null(shm);
	assert_int_equal(pipe2(acks, O_CLOEXEC), 0);
	assert_int_equal(pipe2(stop, O_CLOEXEC), 0);
	begun = strmap_new();
	ended = strmap_new();
	return 0;
}

static int
teardown(void **state)
{
	strmap_free(&begun);
	strmap_free(&ended);
	shm_free(&shm);
	world_fini(&w);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(
		nothing_acknowledged_is_lost_or_doubled, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
