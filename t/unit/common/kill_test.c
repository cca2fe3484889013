/*
 * kill - workers that use everything in the shared memory all the time, killed at random
 * instructions and replaced, as the master would. Each writes down, in memory of its own, what it
 * begins and what it has done; nothing may be locked, lost or counted twice. At most the one
 * operation that a worker was in when it was killed may be missing from its notes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/clock.h"
#include "common/limiter.h"
#include "common/metric.h"
#include "common/owners.h"

enum {
	SLOTS = 4,
	LIVES_MAX = 20000,
	RECORDS_MAX = 1 << 20,
	RUN_MS = 5000,
	IDS = 8,       /* owned at a time by one worker */
	CHURN = 20,    /* keys of one root at a time, others after every PERIOD */
	PERIOD = 3000, /* of the virtual clock */
	KEY_FEW = 0,
	KEY_MANY = 1,
	KEY_CHURN = 2,
};

static const struct limiter_rule rules[] = {{5, 1000}, {60, 1000}, {3, 1000}};

struct life { /* the notes of one incarnation */
	_Atomic uint64_t begun, done, sent, heard;
	_Atomic uint64_t asking_ms; /* virtual: a decision is under way since; 0: none */
	uint32_t asking_key;
	uint64_t killed_ms;
	struct id ids[IDS]; /* owned, when is_owned */
	_Atomic bool is_owned[IDS];
};

struct record {
	uint64_t before_ms, after_ms; /* virtual; after 0: never finished */
	uint32_t key;
};

static struct notes {
	_Atomic uint64_t clock_ms; /* virtual, for the limiter */
	_Atomic bool is_over;
	_Atomic uint32_t failures;
	_Atomic uint32_t record_count;
	uint32_t kill_count;
	struct record records[RECORDS_MAX];
	struct life lives[LIVES_MAX];
} * notes;

static struct shm *shm;

/* In a worker. */
struct worker {
	struct shm_who me;
	struct bus *bus;
	struct life *life;
	uint64_t seed;
	unsigned turn;
	uint32_t sent_to[SLOTS * 2 + 4][2];    /* by row: the peer's number, messages sent to it */
	uint32_t heard_from[SLOTS * 2 + 4][2]; /* by row: the peer's number, the last message */
	uint32_t gone[SLOTS * 2 + 4];          /* by row: the last number said to be gone */
};

static void
expect(bool is_true, const char *what)
{
	if (is_true)
		return;
	atomic_fetch_add(&notes->failures, 1);
	fprintf(stderr, "worker %d: not true: %s\n", (int)getpid(), what);
	_exit(1);
}

static uint64_t
random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	return *seed ^= *seed << 17;
}

/* Notes have one writer: no read-modify-write that could be torn is needed. */
static void
note(_Atomic uint64_t *n)
{
	atomic_store(n, atomic_load(n) + 1);
}

/* payload: number of the message among those from this sender to this receiver, some padding. */
static void
on_message(void *arg, struct shm_who from, uint16_t type, struct str payload)
{
	struct worker *w = arg;
	uint32_t n, *heard = w->heard_from[from.row];

	(void)type;
	expect(payload.len >= sizeof(n), "a message is whole");
	memcpy(&n, payload.p, sizeof(n));
	expect(w->gone[from.row] < from.number, "no message of one who was said to be gone");
	if (heard[0] != from.number) {
		expect(heard[0] < from.number, "incarnations follow one another");
		heard[0] = from.number;
		heard[1] = 0;
	}
	expect(n == heard[1] + 1, "messages are in order, none missing, none twice");
	heard[1] = n;
	for (size_t i = sizeof(n); i < payload.len; i += 4096)
		expect(payload.p[i] == (char)n, "a message is not mixed with another");
	note(&w->life->heard);
}

static void
on_peer_gone(void *arg, struct shm_who peer)
{
	struct worker *w = arg;

	expect(w->gone[peer.row] < peer.number, "said to be gone once");
	w->gone[peer.row] = peer.number;
}

static void
use_bus(struct worker *w)
{
	static char bytes[100000];
	uint32_t row = (uint32_t)(random_next(&w->seed) % shm_rows(shm));
	struct shm_row_info info;

	bus_step(w->bus);
	if (row == w->me.row || !shm_row_get(shm, row, &info) || info.state != SHM_READY)
		return;
	uint32_t *sent = w->sent_to[row], n;
	if (sent[0] != info.who.number) {
		sent[0] = info.who.number;
		sent[1] = 0;
	}
	size_t len =
	    random_next(&w->seed) % 50 == 0 ? sizeof(bytes) : 4 + random_next(&w->seed) % 200;
	n = sent[1] + 1;
	memset(bytes, (char)n, len);
	memcpy(bytes, &n, sizeof(n));
	if (bus_send(w->bus, info.who, 1, str_sub(bytes, len)) == 0) {
		sent[1] = n;
		note(&w->life->sent);
	}
}

static void
use_metrics(struct worker *w)
{
	note(&w->life->begun);
	metric_add(METRIC_TURNS, TURN_OUTCOME_COMPLETED, 0, 1);
	metric_observe_us(METRIC_TURN_FIRST_EVENT_SECONDS, 0, random_next(&w->seed) % 1000000);
	note(&w->life->done);
}

static void
use_owners(struct worker *w)
{
	unsigned i = (unsigned)(random_next(&w->seed) % IDS);
	struct shm_who found;

	if (atomic_load(&w->life->is_owned[i])) {
		expect(owners_find(shm, &w->life->ids[i], &found) && found.number == w->me.number,
		    "what I own is found to be mine");
		atomic_store(&w->life->is_owned[i], false);
		owners_remove(shm, w->me, &w->life->ids[i]);
	} else {
		w->life->ids[i] = id_new("turn");
		expect(owners_add(shm, w->me, &w->life->ids[i]), "there is room");
		atomic_store(&w->life->is_owned[i], true);
	}
}

static struct limiter_key
limiter_key(uint32_t key)
{
	struct limiter_key k = {{0}};
	uint64_t low = ((uint64_t)key + 1) << 20;

	memcpy(k.bytes, &low, sizeof(low)); /* one high half: one root for those of a rule */
	return k;
}

static void
use_limiter(struct worker *w)
{
	uint64_t before_ms = atomic_load(&notes->clock_ms);
	unsigned kind = (unsigned)(random_next(&w->seed) % 3);
	uint32_t key = kind;

	if (kind == KEY_CHURN)
		key += (uint32_t)(before_ms / PERIOD * CHURN + random_next(&w->seed) % CHURN);
	w->life->asking_key = key;
	atomic_store(&w->life->asking_ms, before_ms);
	if (limiter_take(shm, limiter_key(key), rules[kind], 1, before_ms).is_allowed) {
		uint32_t i = atomic_fetch_add(&notes->record_count, 1);

		expect(i < RECORDS_MAX, "there is room for notes");
		notes->records[i].key = key;
		notes->records[i].before_ms = before_ms;
		notes->records[i].after_ms = atomic_load(&notes->clock_ms);
	}
	atomic_store(&w->life->asking_ms, 0);
	if (random_next(&w->seed) % 16 == 0)
		atomic_fetch_add(&notes->clock_ms, 1);
}

static _Noreturn void
work(struct shm_who me)
{
	const struct bus_handlers handlers = {on_message, on_peer_gone};
	struct worker w = {
	    .me = me, .life = &notes->lives[me.number], .seed = me.number * 7919ULL + 1};

	metric_init(shm, me);
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, 1);
	w.bus = bus_new(shm, me, &handlers, &w);
	expect(w.bus != NULL, "a bus");
	shm_row_set_state(shm, me, SHM_READY);
	while (!atomic_load(&notes->is_over)) {
		use_metrics(&w);
		use_owners(&w);
		use_limiter(&w);
		if (w.turn++ % 4 == 0)
			use_bus(&w);
	}
	bus_free(&w.bus);
	_exit(0);
}

/* In the master. */
struct child {
	pid_t pid;
	struct shm_who who;
};

static void
spawn(struct child *c, uint32_t slot)
{
	assert_true(shm_row_claim(shm, slot, 0, &c->who));
	assert_true(c->who.number < LIVES_MAX);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0)
		work(c->who);
	shm_row_set_pid(shm, c->who, c->pid);
}

static void
reap(struct child *c, int expected_status)
{
	struct life *life = &notes->lives[c->who.number];
	struct shm_who found;
	int status;

	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	assert_int_equal(status, expected_status);
	shm_row_reap(shm, c->who);
	assert_false(shm_is_alive(shm, c->who));
	for (int i = 0; i < IDS; i++) {
		if (life->is_owned[i])
			assert_false(owners_find(shm, &life->ids[i], &found));
	}
}

/* Up to 6 ms, and longer on a machine that is busy: until it got somewhere. */
static void
let_work(const struct child *c, uint64_t *seed)
{
	const struct life *life = &notes->lives[c->who.number];
	struct timespec moment = {0, (long)(random_next(seed) % 6000000)};
	uint64_t until_ms = clock_mono_ms() + 1000, enough = random_next(seed) % 200;

	do
		nanosleep(&moment, NULL);
	while (life->begun < enough && notes->failures == 0 && clock_mono_ms() < until_ms);
}

static void
check_counters(void)
{
	uint64_t begun = 0, done = 0, turns, observed;

	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		assert_true(notes->lives[i].begun - notes->lives[i].done <= 1);
		begun += notes->lives[i].begun;
		done += notes->lives[i].done;
	}
	turns = (uint64_t)metric_total(shm, METRIC_TURNS, TURN_OUTCOME_COMPLETED, 0);
	observed = (uint64_t)metric_total(shm, METRIC_TURN_FIRST_EVENT_SECONDS, 0, 0);
	assert_true(turns >= done && turns <= begun);
	assert_true(observed >= done && observed <= turns);
	assert_true(done > 1000);
	assert_int_equal(metric_total(shm, METRIC_TURNS_LIVE, 0, 0), 0);
	assert_int_equal(metric_total(shm, METRIC_LIMITER_OVERFLOW, 0, 0), 0);
	print_message(
	    "counted %llu, noted %llu\n", (unsigned long long)turns, (unsigned long long)done);
}

static int
by_key_and_time(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->before_ms < y->before_ms ? -1 : x->before_ms > y->before_ms;
}

/* What lies wholly within a window, by anybody's clock, is never more than the limit. */
static void
check_never_too_much(void)
{
	struct record *r = notes->records;
	uint32_t n = notes->record_count;

	qsort(r, n, sizeof(*r), by_key_and_time);
	for (uint32_t i = 0; i < n; i++) {
		const struct limiter_rule *rule =
		    &rules[r[i].key < KEY_CHURN ? r[i].key : KEY_CHURN];
		uint64_t end_ms = r[i].before_ms + rule->window_ms;
		uint32_t sum = 0;

		for (uint32_t j = i; j < n && r[j].key == r[i].key && r[j].before_ms < end_ms; j++)
			sum += r[j].after_ms != 0 && r[j].after_ms < end_ms;
		assert_true(sum <= rule->limit);
	}
	print_message("%u decisions allowed in %llu windows\n", n,
	    (unsigned long long)(notes->clock_ms - 1000000) / 1000);
}

/* Demand never ceases: in every window all is used, but for one decision of each that was killed.
 */
static void
check_never_too_little(uint32_t key)
{
	const struct limiter_rule *rule = &rules[key];
	uint64_t slack_ms = 100, end_ms = notes->clock_ms;

	for (uint64_t at = 1000000; at + rule->window_ms + slack_ms < end_ms; at += 50) {
		uint64_t to_ms = at + rule->window_ms + slack_ms;
		uint32_t sum = 0;

		for (uint32_t i = 0; i < notes->record_count; i++) {
			const struct record *r = &notes->records[i];

			sum += r->key == key && r->before_ms <= to_ms && r->after_ms >= at;
		}
		for (uint32_t i = 0; i < LIVES_MAX; i++) {
			const struct life *l = &notes->lives[i];

			sum += l->asking_ms != 0 && l->asking_key == key && l->asking_ms <= to_ms &&
			       l->killed_ms >= at;
		}
		assert_true(sum >= rule->limit);
	}
}

static void
test_killed_workers(void **state)
{
	struct child children[SLOTS];
	uint64_t seed = 12345, until_ms = clock_mono_ms() + RUN_MS, sent = 0, heard = 0;

	(void)state;
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		spawn(&children[slot], slot);
	while (clock_mono_ms() < until_ms && notes->failures == 0) {
		uint32_t slot = (uint32_t)(random_next(&seed) % SLOTS);

		let_work(&children[slot], &seed);
		kill(children[slot].pid, SIGKILL);
		reap(&children[slot], SIGKILL);
		notes->lives[children[slot].who.number].killed_ms = notes->clock_ms;
		notes->kill_count++;
		spawn(&children[slot], slot);
	}
	atomic_store(&notes->is_over, true);
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		reap(&children[slot], 0);
	assert_int_equal(notes->failures, 0);
	for (uint32_t i = 0; i < LIVES_MAX; i++) {
		sent += notes->lives[i].sent;
		heard += notes->lives[i].heard;
	}
	print_message("%u killed; %llu messages sent, %llu heard\n", notes->kill_count,
	    (unsigned long long)sent, (unsigned long long)heard);
	assert_true(notes->kill_count >= 10 && heard > 100 && heard <= sent + notes->kill_count);
	check_counters();
	check_never_too_much();
	check_never_too_little(KEY_FEW);
	check_never_too_little(KEY_MANY);
}

/* A master killed while it claims and reaps keeps nobody from doing so, and no row is lost. */
static void
test_killed_master(void **state)
{
	uint64_t seed = 777;
	struct shm_who who[SLOTS * 2 + 4];
	struct shm_row_info info;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct timespec moment = {0, (long)(random_next(&seed) % 1000000)};
		pid_t pid = fork();

		assert_true(pid >= 0);
		while (pid == 0) {
			struct shm_who mine;

			if (shm_row_claim(shm, 0, 1, &mine))
				shm_row_reap(shm, mine);
		}
		nanosleep(&moment, NULL);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		for (uint32_t row = 0; row < shm_rows(shm); row++) {
			if (shm_row_get(shm, row, &info) && info.state != SHM_DEAD)
				shm_row_reap(shm, info.who);
		}
	}
	for (uint32_t row = 0; row < shm_rows(shm); row++)
		assert_true(shm_row_claim(shm, 0, 1, &who[row]));
}

static int
setup(void **state)
{
	(void)state;
	alarm(120); /* locked after all */
	shm = shm_create(SLOTS);
	notes = mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	notes->clock_ms = 1000000;
	return shm == NULL || notes == MAP_FAILED;
}

static int
teardown(void **state)
{
	(void)state;
	munmap(notes, sizeof(*notes));
	shm_free(&shm);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_killed_workers), TEST(test_killed_master)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
