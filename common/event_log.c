/*
 * event_log - see event_log.h.
 *
 * A slot's stamp says everything: number (40 bits), the writer's row (12) and the low bits of its
 * incarnation (10), state (2). Who reads looks at the stamp, copies, and looks again.
 */
#include "common/event_log.h"

#include "common/check.h"

enum { STATE_FREE, STATE_WRITING, STATE_DONE, STATE_VOID };
enum { NUMBER_SHIFT = 24, ROW_SHIFT = 12, LIFE_SHIFT = 2, LIFE_MASK = 0x3ff, TRIES = 16 };
enum { SUM_SHIFT = 32, WANT_BITS = 4096, PARTS_MAX = EVENT_LOG_MAX / EVENT_LOG_SLOT_BYTES };

struct slot {
	_Atomic uint64_t stamp;
	_Atomic uint64_t keys[EVENT_LOG_KEYS]; /* 0 in the later pieces of an event */
	_Atomic uint64_t len; /* of the whole event, and above it its sum; 0 in the later pieces */
};

struct row {
	_Atomic uint64_t is_woken;
	_Atomic uint64_t wants[WANT_BITS / 64];
};

struct event_log {
	_Atomic uint64_t last; /* number */
	_Atomic uint64_t forwarded;
	uint64_t pad[6];
	struct slot slots[EVENT_LOG_SLOTS];
	char bytes[EVENT_LOG_SLOTS][EVENT_LOG_SLOT_BYTES];
	struct row rows[];
};

static struct event_log *
log_of(const struct shm *shm)
{
	return shm_event_log(shm);
}

size_t
event_log_shm_bytes(uint32_t rows)
{
	return sizeof(struct event_log) + rows * sizeof(struct row);
}

uint64_t
event_log_key(struct str text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.p[i]) * UINT64_C(0x100000001b3);
	hash ^= hash >> 32;
	return hash != 0 ? hash : 1;
}

/*
 * A writer that stood still for a whole lap, was given up meanwhile and goes on writes over the
 * bytes of another: stamps do not show that, the sum does.
 */
static uint64_t
len_and_sum(struct str bytes)
{
	return event_log_key(bytes) << SUM_SHIFT | bytes.len;
}

/* ---- stamps ---- */

static uint64_t
stamp_of(uint64_t number, struct shm_who who, unsigned state)
{
	return number << NUMBER_SHIFT | (uint64_t)who.row << ROW_SHIFT |
	       (uint64_t)(who.number & LIFE_MASK) << LIFE_SHIFT | state;
}

static uint64_t
stamp_number(uint64_t stamp)
{
	return stamp >> NUMBER_SHIFT;
}

static unsigned
stamp_state(uint64_t stamp)
{
	return stamp & 3;
}

static bool
is_writer_alive(const struct shm *shm, uint64_t stamp)
{
	struct shm_row_info info;
	uint32_t row = (uint32_t)(stamp >> ROW_SHIFT & 0xfff);

	return row < shm_rows(shm) && shm_row_get(shm, row, &info) && info.state != SHM_DEAD &&
	       (info.who.number & LIFE_MASK) == (stamp >> LIFE_SHIFT & LIFE_MASK);
}

static struct slot *
slot_of(struct event_log *log, uint64_t number)
{
	return &log->slots[number % EVENT_LOG_SLOTS];
}

/* ---- writing ---- */

static bool
claim(struct shm *shm, struct shm_who me, uint64_t number)
{
	struct slot *slot = slot_of(log_of(shm), number);
	uint64_t was = atomic_load(&slot->stamp);

	do {
		if (stamp_number(was) >= number)
			return false;
		if (stamp_state(was) == STATE_WRITING && is_writer_alive(shm, was))
			return false;
	} while (
	    !atomic_compare_exchange_weak(&slot->stamp, &was, stamp_of(number, me, STATE_WRITING)));
	return true;
}

/* False: somebody has voided it. */
static bool
settle(struct shm *shm, struct shm_who me, uint64_t number, unsigned state)
{
	uint64_t was = stamp_of(number, me, STATE_WRITING);

	return atomic_compare_exchange_strong(
	    &slot_of(log_of(shm), number)->stamp, &was, stamp_of(number, me, state));
}

static bool
claim_all(struct shm *shm, struct shm_who me, uint64_t first, size_t parts)
{
	bool is_ours = true;
	size_t n = 0;

	while (n < parts && (is_ours = claim(shm, me, first + n)))
		n++;
	for (size_t i = 0; !is_ours && i < n; i++)
		settle(shm, me, first + i, STATE_VOID);
	return is_ours;
}

static bool
write_all(struct shm *shm, struct shm_who me, uint64_t first, size_t parts,
    const uint64_t keys[EVENT_LOG_KEYS], struct str bytes)
{
	struct event_log *log = log_of(shm);
	bool is_whole = true;

	for (size_t i = parts; i-- > 0;) { /* the first piece last: it is what readers look at */
		struct slot *slot = slot_of(log, first + i);
		size_t at = i * EVENT_LOG_SLOT_BYTES;
		size_t n = bytes.len - at;

		memcpy(log->bytes[(first + i) % EVENT_LOG_SLOTS], bytes.p + at,
		    n < EVENT_LOG_SLOT_BYTES ? n : EVENT_LOG_SLOT_BYTES);
		for (int k = 0; k < EVENT_LOG_KEYS; k++)
			atomic_store_explicit(
			    &slot->keys[k], i == 0 ? keys[k] : 0, memory_order_relaxed);
		atomic_store_explicit(
		    &slot->len, i == 0 ? len_and_sum(bytes) : 0, memory_order_relaxed);
		is_whole =
		    settle(shm, me, first + i, is_whole ? STATE_DONE : STATE_VOID) && is_whole;
	}
	return is_whole;
}

uint64_t
event_log_add(
    struct shm *shm, struct shm_who me, const uint64_t keys[EVENT_LOG_KEYS], struct str bytes)
{
	struct event_log *log = log_of(shm);
	size_t parts = (bytes.len + EVENT_LOG_SLOT_BYTES - 1) / EVENT_LOG_SLOT_BYTES;

	check(bytes.len > 0 && bytes.len <= EVENT_LOG_MAX);
	for (int i = 0; i < TRIES; i++) {
		uint64_t first = atomic_fetch_add(&log->last, parts) + 1;

		if (claim_all(shm, me, first, parts) &&
		    write_all(shm, me, first, parts, keys, bytes))
			return first;
	}
	return 0;
}

/* ---- reading ---- */

uint64_t
event_log_next(const struct shm *shm)
{
	return atomic_load(&log_of(shm)->last) + 1;
}

uint64_t
event_log_oldest(const struct shm *shm)
{
	uint64_t next = event_log_next(shm);

	return next > EVENT_LOG_SLOTS ? next - EVENT_LOG_SLOTS : 1;
}

void
event_log_give_up(struct shm *shm, uint64_t number)
{
	struct slot *slot = slot_of(log_of(shm), number);
	uint64_t was = atomic_load(&slot->stamp);
	const struct shm_who nobody = {0, 0};

	if (stamp_number(was) < number ||
	    (stamp_number(was) == number && stamp_state(was) == STATE_WRITING))
		atomic_compare_exchange_strong(
		    &slot->stamp, &was, stamp_of(number, nobody, STATE_VOID));
}

static enum event_log_at
look_at_unfinished(struct shm *shm, uint64_t number, uint64_t stamp)
{
	if (stamp_state(stamp) != STATE_WRITING)
		return EVENT_LOG_NOTHING;
	if (is_writer_alive(shm, stamp))
		return EVENT_LOG_SOON;
	event_log_give_up(shm, number);
	return EVENT_LOG_NOTHING;
}

enum event_log_at
event_log_look(struct shm *shm, uint64_t number, uint64_t ret_keys[EVENT_LOG_KEYS])
{
	struct slot *slot = slot_of(log_of(shm), number);
	uint64_t stamp, len;

	if (number >= event_log_next(shm))
		return EVENT_LOG_END;
	stamp = atomic_load(&slot->stamp);
	if (stamp_number(stamp) > number)
		return EVENT_LOG_LOST;
	if (stamp_number(stamp) < number)
		return EVENT_LOG_SOON;
	if (stamp_state(stamp) != STATE_DONE)
		return look_at_unfinished(shm, number, stamp);
	for (int k = 0; k < EVENT_LOG_KEYS; k++)
		ret_keys[k] = atomic_load_explicit(&slot->keys[k], memory_order_relaxed);
	len = atomic_load_explicit(&slot->len, memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load(&slot->stamp) != stamp)
		return EVENT_LOG_LOST;
	return len > 0 ? EVENT_LOG_EVENT : EVENT_LOG_NOTHING;
}

static bool
is_still(struct event_log *log, uint64_t number)
{
	uint64_t stamp = atomic_load(&slot_of(log, number)->stamp);

	return stamp_number(stamp) == number && stamp_state(stamp) == STATE_DONE;
}

bool
event_log_read(const struct shm *shm, uint64_t number, struct buf *out)
{
	struct event_log *log = log_of(shm);
	uint64_t sum = atomic_load(&slot_of(log, number)->len), len = (uint32_t)sum;
	size_t was = out->len;

	if (!is_still(log, number) || len == 0 || len > EVENT_LOG_MAX)
		return false;
	for (size_t at = 0; at < len; at += EVENT_LOG_SLOT_BYTES) {
		uint64_t piece = number + at / EVENT_LOG_SLOT_BYTES;
		size_t n = len - at < EVENT_LOG_SLOT_BYTES ? len - at : EVENT_LOG_SLOT_BYTES;

		buf_add(out, log->bytes[piece % EVENT_LOG_SLOTS], n);
		atomic_thread_fence(memory_order_acquire);
		if (!is_still(log, piece) || !is_still(log, number)) {
			out->len = was;
			return false;
		}
	}
	if (len_and_sum(str_sub(out->data + was, len)) != sum) {
		out->len = was;
		return false;
	}
	return true;
}

/* ---- who wants what ---- */

void
event_log_want(struct shm *shm, struct shm_who me, uint64_t key, bool is_wanted)
{
	_Atomic uint64_t *word = &log_of(shm)->rows[me.row].wants[key % WANT_BITS / 64];
	uint64_t bit = UINT64_C(1) << key % 64;

	if (is_wanted)
		atomic_fetch_or(word, bit);
	else
		atomic_fetch_and(word, ~bit);
}

bool
event_log_wants(const struct shm *shm, uint32_t row, uint64_t key)
{
	uint64_t word = atomic_load(&log_of(shm)->rows[row].wants[key % WANT_BITS / 64]);

	return key != 0 && (word >> key % 64 & 1) != 0;
}

bool
event_log_wake(struct shm *shm, uint32_t row)
{
	return atomic_exchange(&log_of(shm)->rows[row].is_woken, 1) == 0;
}

void
event_log_awake(struct shm *shm, struct shm_who me)
{
	atomic_exchange(&log_of(shm)->rows[me.row].is_woken, 0);
}

uint64_t
event_log_forwarded(const struct shm *shm)
{
	return atomic_load(&log_of(shm)->forwarded);
}

void
event_log_set_forwarded(struct shm *shm, uint64_t number)
{
	_Atomic uint64_t *at = &log_of(shm)->forwarded;
	uint64_t was = atomic_load(at);

	while (was < number && !atomic_compare_exchange_weak(at, &was, number))
		;
}

void
event_log_row_clear(struct shm *shm, uint32_t row)
{
	struct row *r = &log_of(shm)->rows[row];

	for (size_t i = 0; i < WANT_BITS / 64; i++)
		atomic_store(&r->wants[i], 0);
	atomic_store(&r->is_woken, 0);
}
