/*
 * limiter - finds or makes the log of a key, and asks it.
 *
 * Logs are in four classes by the size of the limit, so that a ring holds every unit
 * of its window. A class has a number of roots; a key's hash picks the root, and its log is in one
 * of the root's places. Place 0 of all roots lies together, then place 1 of all: few keys touch
 * little memory.
 *
 * Two processes must never make two logs of one key, so what is in the places of a
 * root changes only by way of its one word `intent`: who found no log for his key, and a place
 * that is empty or whose log he closed, writes key and place there by compare-and-swap, which
 * fails if anything was changed since he looked. Then the place is given to the key and the
 * log opened; whoever finds an intent pending does that for the other, who may be dead.
 *
 *   intent | key 44 | sequence 13 | place 6 | pending 1 |     id | key 44 | sequence 13 | 0 | 1 |
 *
 * With the root the key has 49 to 54 bits of its hash: two keys of one root whose 44 bits are equal
 * share a limit. The sequence makes each life of a key in a place an id of its own.
 */
#include "common/limiter.h"

#include <stdatomic.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/crypto.h"
#include "common/limiter_log.h"
#include "common/metric.h"

enum { PLACES = 63, CLASSES = 4, ATTEMPTS = 100, LIMIT_MAX = INT32_MAX };

#define KEY_SHIFT     20
#define SEQUENCE_ONE  (UINT64_C(1) << 7)
#define SEQUENCE_MASK (UINT64_C(0x1fff) << 7)
#define ID_MASK       (~UINT64_C(0x7f))
#define PENDING       UINT64_C(1)

struct root {
	_Atomic uint64_t intent;
	_Atomic uint64_t ids[PLACES]; /* 0: never used */
};

static const struct class
{
	unsigned shift; /* of the ring: limits up to its size less one */
	uint32_t roots;
} classes[CLASSES] = {{3, 1024}, {6, 1024}, {9, 256}, {12, 64}};

struct table {
	unsigned shift;
	uint32_t roots;
	struct root *root; /* the key's */
	char *logs;
	uint32_t root_index;
};

static size_t
log_bytes(unsigned shift)
{
	return LIMITER_LOG_HEAD_BYTES + (sizeof(uint64_t) << shift);
}

static size_t
class_bytes(const struct class *c)
{
	return c->roots * (sizeof(struct root) + PLACES * log_bytes(c->shift));
}

size_t
limiter_shm_bytes(void)
{
	size_t bytes = 0;

	_Static_assert(sizeof(struct limiter_log) == LIMITER_LOG_HEAD_BYTES, "head of a log");
	for (int i = 0; i < CLASSES; i++)
		bytes += class_bytes(&classes[i]);
	return bytes;
}

struct limiter_key
limiter_key_of(const char *kind, struct str name)
{
	struct buf text = BUF_INIT;
	struct limiter_key key;
	uint8_t hash[SHA256_LEN];

	buf_add(&text, kind, strlen(kind) + 1);
	buf_add_str(&text, name);
	crypto_sha256(buf_str(&text), hash);
	memcpy(key.bytes, hash, sizeof(key.bytes));
	buf_fini(&text);
	return key;
}

static struct limiter_log_rule
log_rule(struct limiter_rule rule)
{
	struct limiter_log_rule r = {
	    .limit = rule.limit, .window_ms = rule.window_ms, .quantum_ms = 1};
	int class = 0;

	if (r.limit > LIMIT_MAX)
		r.limit = LIMIT_MAX;
	while (class < CLASSES - 1 && r.limit >= 1u << classes[class].shift)
		class ++;
	r.shift = classes[class].shift;
	/* As many times fit into a window as the ring has room for. */
	uint32_t times = (1u << r.shift) - 2;
	if (r.limit >= 1u << r.shift)
		r.quantum_ms = (r.window_ms + times - 1) / times;
	return r;
}

static struct table
table_of(struct shm *shm, unsigned shift, uint64_t hash)
{
	char *at = shm_limiter(shm, NULL);

	for (const struct class *c = classes;; at += class_bytes(c), c++) {
		if (c->shift != shift)
			continue;
		struct root *roots = (struct root *)(void *)at;
		uint32_t i = (uint32_t)hash & (c->roots - 1);

		return (struct table){
		    shift, c->roots, &roots[i], at + c->roots * sizeof(*roots), i};
	}
}

static struct limiter_log *
log_at(const struct table *t, unsigned place)
{
	size_t index = (size_t)place * t->roots + t->root_index;

	return (struct limiter_log *)(void *)(t->logs + index * log_bytes(t->shift));
}

/* Does what the intent says, for whoever wrote it. Each step is done once, however many do it. */
static void
complete(const struct table *t, uint64_t intent)
{
	unsigned place = (unsigned)(intent >> 1 & 63);
	uint64_t id = (intent & ID_MASK) | 1, was = atomic_load(&t->root->ids[place]);
	struct limiter_log *log = log_at(t, place);

	if (was != id) {
		if (atomic_load(&t->root->intent) != intent)
			return;
		atomic_compare_exchange_strong(&t->root->ids[place], &was, id);
	}
	/* The beginning was read while the intent was pending: it is this life's. */
	uint64_t beginning = limiter_log_beginning(log, t->shift);
	if (atomic_load(&t->root->intent) != intent)
		return;
	limiter_log_open(log, beginning);
	atomic_compare_exchange_strong(&t->root->intent, &intent, intent & ~PENDING);
}

/* The place of the key's open log; -1: none. */
static int
find_place(const struct table *t, uint64_t key, uint64_t *ret_id)
{
	for (int place = 0; place < PLACES; place++) {
		uint64_t id = atomic_load(&t->root->ids[place]);

		if (id == 0)
			return -1;
		if (id >> KEY_SHIFT == key &&
		    !limiter_log_is_closed(log_at(t, (unsigned)place), t->shift)) {
			*ret_id = id;
			return place;
		}
	}
	return -1;
}

/* A place whose log is nobody's any more, or one that never was used; -1: all are busy. */
static int
free_place(const struct table *t, uint64_t now_ms)
{
	for (int place = 0; place < PLACES; place++) {
		if (atomic_load(&t->root->ids[place]) == 0 ||
		    limiter_log_close(log_at(t, (unsigned)place), t->shift, now_ms))
			return place;
	}
	return -1;
}

static uint64_t
settled_intent(const struct table *t)
{
	uint64_t intent;

	while ((intent = atomic_load(&t->root->intent)) & PENDING)
		complete(t, intent);
	return intent;
}

/* The key's place, made if it has none and is_wanted; -1: no room, or not wanted. */
static int
place_of(const struct table *t, uint64_t key, uint64_t now_ms, bool is_wanted, uint64_t *ret_id)
{
	for (;;) {
		uint64_t intent = settled_intent(t);
		int place = find_place(t, key, ret_id);

		if (place >= 0 || !is_wanted)
			return place;
		if ((place = free_place(t, now_ms)) < 0)
			return -1;
		uint64_t next = key << KEY_SHIFT | ((intent + SEQUENCE_ONE) & SEQUENCE_MASK) |
				(uint64_t)place << 1 | PENDING;
		if (atomic_compare_exchange_strong(&t->root->intent, &intent, next))
			complete(t, next);
	}
}

struct ask {
	struct table table;
	struct limiter_log_rule rule;
	uint64_t key;
};

static struct ask
ask_of(struct shm *shm, struct limiter_key key, struct limiter_rule rule)
{
	uint64_t low, high;
	struct ask a;

	memcpy(&low, key.bytes, 8);
	memcpy(&high, key.bytes + 8, 8);
	check(rule.window_ms >= 1 && rule.window_ms <= 24 * 3600 * 1000);
	a.rule = log_rule(rule);
	a.table = table_of(shm, a.rule.shift, high);
	a.key = low >> KEY_SHIFT;
	return a;
}

struct limiter_verdict
limiter_take(struct shm *shm, struct limiter_key key, struct limiter_rule rule, uint32_t cost,
    uint64_t now_ms)
{
	struct limiter_verdict verdict = {.is_allowed = true, .remaining = UINT32_MAX};
	uint64_t id;

	if (rule.limit == 0)
		return verdict;
	struct ask a = ask_of(shm, key, rule);
	verdict.limit = verdict.remaining = a.rule.limit;
	/* A log is lost to a reuse that came in between: rare, and hardly ever twice. */
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		int place = place_of(&a.table, a.key, now_ms, cost > 0, &id);

		if (place < 0)
			break;
		struct limiter_log_owner owner = {&a.table.root->ids[place], id};
		if (limiter_log_take(log_at(&a.table, (unsigned)place), &a.rule, owner, cost,
			now_ms, &verdict) == LIMITER_LOG_DONE)
			return verdict;
	}
	if (cost > 0)
		metric_add(METRIC_LIMITER_OVERFLOW, 0, 0, 1);
	return verdict;
}

void
limiter_give(struct shm *shm, struct limiter_key key, struct limiter_rule rule, uint32_t cost,
    uint64_t now_ms)
{
	uint64_t id;

	if (rule.limit == 0 || cost == 0)
		return;
	struct ask a = ask_of(shm, key, rule);
	int place = place_of(&a.table, a.key, now_ms, false, &id);
	if (place < 0)
		return;
	/* Lost: it was idle for its window, and there is nothing to give back to. */
	struct limiter_log_owner owner = {&a.table.root->ids[place], id};
	limiter_log_give(log_at(&a.table, (unsigned)place), &a.rule, owner, cost, now_ms);
}
