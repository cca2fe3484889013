/*
 * limiter_log - reading a log as it is at one moment, and adding to it.
 *
 *   entry   | lap 1 | closed 1 | sealed 1 | time 28 | sum 31 |
 *
 * Times are milliseconds modulo 2^28 (74 hours) and compared with a log that has been used
 * within its window, which is 24 hours at most: nothing that counts is older than two.
 */
#include "common/limiter_log.h"

#define SUM_BITS  31
#define SUM_MASK  ((UINT64_C(1) << SUM_BITS) - 1)
#define TIME_MASK ((UINT64_C(1) << 28) - 1)
#define SEALED    (UINT64_C(1) << 59)
#define CLOSED    (UINT64_C(1) << 60)
#define LAP_SHIFT 61
#define SPARE_MS  1000
#define AHEAD_MAX (UINT64_C(1) << 20) /* ms that an entry's time may be before ours */

/* A log at one moment, as seen by one process. */
struct view {
	uint64_t now_ms;
	uint64_t end;   /* where the next entry goes */
	uint64_t free;  /* the word that is there now */
	uint64_t last;  /* the entry before; 0 when end is 0 */
	uint64_t first; /* the oldest that counts; end: none */
	uint32_t spent;
};

static uint64_t
entry_of(uint64_t index, unsigned shift, uint64_t time, uint64_t sum)
{
	return (((index >> shift) + 1) & 1) << LAP_SHIFT | (time & TIME_MASK) << SUM_BITS |
	       (sum & SUM_MASK);
}

static uint64_t
sum_of(uint64_t entry)
{
	return entry & SUM_MASK;
}

static uint64_t
time_of(uint64_t entry)
{
	return entry >> SUM_BITS & TIME_MASK;
}

static _Atomic uint64_t *
place_of(struct limiter_log *log, unsigned shift, uint64_t index)
{
	return &log->ring[index & ((UINT64_C(1) << shift) - 1)];
}

static uint64_t
entry_at(struct limiter_log *log, unsigned shift, uint64_t index)
{
	return atomic_load_explicit(place_of(log, shift, index), memory_order_acquire);
}

/* Is this word the entry number `index`, and not the one a lap before? */
static bool
is_entry(uint64_t word, unsigned shift, uint64_t index)
{
	return (word >> LAP_SHIFT & 1) == (((index >> shift) + 1) & 1);
}

/* ms since the entry; an entry may be a little ahead: 0. */
static uint64_t
age_of(uint64_t entry, uint64_t now_ms)
{
	uint64_t age = (now_ms - time_of(entry)) & TIME_MASK;

	return age > TIME_MASK - AHEAD_MAX ? 0 : age;
}

static bool
is_ahead(uint64_t entry, uint64_t now_ms)
{
	return ((now_ms - time_of(entry)) & TIME_MASK) > TIME_MASK - AHEAD_MAX;
}

static uint64_t
raise_to(_Atomic uint64_t *word, uint64_t value)
{
	uint64_t was = atomic_load(word);

	while (was < value && !atomic_compare_exchange_weak(word, &was, value))
		;
	return was < value ? value : was;
}

/* The end of the log and the word that is there, moving the hint on where it is behind. */
static uint64_t
find_end(struct limiter_log *log, unsigned shift, uint64_t *ret_free)
{
	uint64_t end = atomic_load(&log->head);

	for (;;) {
		uint64_t word = entry_at(log, shift, end), head = atomic_load(&log->head);

		if (head == end && !is_entry(word, shift, end)) {
			*ret_free = word;
			return end;
		}
		if (head == end && atomic_compare_exchange_strong(&log->head, &head, end + 1))
			end++;
		else
			end = head;
	}
}

static bool
ends_closed(struct limiter_log *log, uint64_t end, uint64_t last)
{
	return end > 0 && (last & CLOSED) != 0 && atomic_load(&log->tail) < end;
}

/*
 * Nothing that was spent by then counts any more: said before the clock is moved, so that nobody
 * compares with times of long ago.
 */
static void
forget_if_idle(struct limiter_log *log, const struct limiter_log_rule *rule, uint64_t now_ms)
{
	uint64_t free, until = (uint64_t)rule->window_ms + rule->quantum_ms;

	if (now_ms <= atomic_load(&log->clock_ms) + until)
		return;
	uint64_t end = find_end(log, rule->shift, &free);
	if (end == 0 || (entry_at(log, rule->shift, end - 1) & CLOSED) != 0)
		return;
	/* Its entries were read before the clock: they are not younger than it. */
	if (now_ms > atomic_load(&log->clock_ms) + until) {
		raise_to(&log->tail, end);
		atomic_store(&log->mark, 0);
	}
}

/* The oldest entry that counts and the sum before it; false: the log has moved on. */
static bool
find_first(struct limiter_log *log, const struct limiter_log_rule *rule, struct view *v,
    uint64_t tail, uint64_t *ret_base)
{
	uint64_t size = UINT64_C(1) << rule->shift, i = tail, word;

	/* Whoever put an entry where another was has seen the one after that expired. */
	if (v->end >= size && i < v->end - size + 1)
		i = v->end - size + 1;
	*ret_base = 0;
	if (i > 0) {
		word = entry_at(log, rule->shift, i - 1);
		if (!is_entry(word, rule->shift, i - 1))
			return false;
		*ret_base = sum_of(word);
	}
	for (; i < v->end; i++) {
		word = entry_at(log, rule->shift, i);
		if (!is_entry(word, rule->shift, i))
			return false;
		if (age_of(word, v->now_ms) < rule->window_ms)
			break;
		*ret_base = sum_of(word);
	}
	v->first = i;
	return true;
}

/* What was given back shortens what was spent. */
static void
apply_mark(struct limiter_log *log, const struct limiter_log_rule *rule, struct view *v)
{
	uint64_t mark = atomic_load(&log->mark);

	if (mark == 0)
		return;
	uint32_t since = (uint32_t)((sum_of(v->last) - sum_of(mark)) & SUM_MASK);
	if (age_of(mark, v->now_ms) >= rule->window_ms)
		atomic_compare_exchange_strong(&log->mark, &mark, 0);
	else if (since < v->spent)
		v->spent = since;
}

enum reading { READ_WHOLE, READ_AGAIN, READ_LOST };

static enum reading
view_read(struct limiter_log *log, const struct limiter_log_rule *rule,
    struct limiter_log_owner owner, uint64_t now_ms, struct view *v)
{
	uint64_t base;

	v->end = find_end(log, rule->shift, &v->free);
	v->last = v->end > 0 ? entry_at(log, rule->shift, v->end - 1) : 0;
	if (ends_closed(log, v->end, v->last))
		return READ_LOST;
	uint64_t tail = atomic_load(&log->tail);
	/* After the tail: the time at which that was found expired is seen too. */
	uint64_t clock_ms = atomic_load(&log->clock_ms);
	v->now_ms = now_ms > clock_ms ? now_ms : clock_ms;
	if (!find_first(log, rule, v, tail, &base))
		return READ_AGAIN;
	v->spent = v->first < v->end ? (uint32_t)((sum_of(v->last) - base) & SUM_MASK) : 0;
	if (v->spent > 0)
		apply_mark(log, rule, v);
	/* Nothing was read that is older than a ring's length, and it was this key's. */
	if (atomic_load(&log->head) != v->end)
		return READ_AGAIN;
	if (atomic_load(owner.id) != owner.expected)
		return READ_LOST;
	if (v->first > tail)
		raise_to(&log->tail, v->first);
	return READ_WHOLE;
}

/* One attempt to put cost behind what was seen; false: somebody else came first. */
static bool
view_add(struct limiter_log *log, const struct limiter_log_rule *rule, const struct view *v,
    uint32_t cost)
{
	uint64_t q = rule->quantum_ms, size = UINT64_C(1) << rule->shift;
	uint64_t time = ((v->now_ms + q - 1) / q * q) & TIME_MASK, last = v->last;
	bool is_live = v->first < v->end;

	if (is_live && is_ahead(last, time))
		time = time_of(last);
	if (is_live && (last & SEALED) == 0) {
		/* Full only when what was given back had taken the room: then it stays longer. */
		bool is_full = v->end + 1 - v->first >= size;

		if (time == time_of(last) || is_full)
			return atomic_compare_exchange_strong(
			    place_of(log, rule->shift, v->end - 1), &last,
			    entry_of(v->end - 1, rule->shift, time, sum_of(last) + cost));
	}
	if (v->end > 0 && (last & SEALED) == 0 &&
	    !atomic_compare_exchange_strong(
		place_of(log, rule->shift, v->end - 1), &last, last | SEALED))
		return false;
	uint64_t free = v->free, end = v->end;
	if (!atomic_compare_exchange_strong(place_of(log, rule->shift, end), &free,
		entry_of(end, rule->shift, time, sum_of(last) + cost)))
		return false;
	atomic_compare_exchange_strong(&log->head, &end, end + 1);
	return true;
}

/* Until enough has expired for cost: the first entry whose sum is that far. 0: seen wrong. */
static uint32_t
retry_after(struct limiter_log *log, const struct limiter_log_rule *rule, const struct view *v,
    uint32_t cost)
{
	uint64_t low = v->first, high = v->end - 1;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		uint64_t word = entry_at(log, rule->shift, middle);
		uint64_t left = (sum_of(v->last) - sum_of(word)) & SUM_MASK;

		if (left + cost <= rule->limit)
			high = middle;
		else
			low = middle + 1;
	}
	uint64_t word = entry_at(log, rule->shift, low);
	uint64_t age = age_of(word, v->now_ms);
	uint64_t ahead = is_ahead(word, v->now_ms) ? (time_of(word) - v->now_ms) & TIME_MASK : 0;
	return age < rule->window_ms ? (uint32_t)(rule->window_ms - age + ahead) : 1;
}

static void
prepare(struct limiter_log *log, const struct limiter_log_rule *rule, uint64_t now_ms)
{
	forget_if_idle(log, rule, now_ms);
	raise_to(&log->busy_until_ms, now_ms + rule->window_ms + rule->quantum_ms + SPARE_MS);
	raise_to(&log->clock_ms, now_ms);
}

static void
fill_verdict(const struct limiter_log_rule *rule, const struct view *v, uint64_t spent,
    struct limiter_verdict *ret)
{
	uint64_t age = v->end > v->first ? age_of(v->last, v->now_ms) : rule->window_ms;

	ret->limit = rule->limit;
	ret->remaining = spent < rule->limit ? (uint32_t)(rule->limit - spent) : 0;
	ret->reset_ms = age < rule->window_ms ? (uint32_t)(rule->window_ms - age) : 0;
	ret->retry_after_ms = 0;
	ret->is_allowed = true;
}

enum limiter_log_result
limiter_log_take(struct limiter_log *log, const struct limiter_log_rule *rule,
    struct limiter_log_owner owner, uint32_t cost, uint64_t now_ms, struct limiter_verdict *ret)
{
	struct view v;

	prepare(log, rule, now_ms);
	for (;;) {
		enum reading reading = view_read(log, rule, owner, now_ms, &v);

		if (reading == READ_LOST)
			return LIMITER_LOG_LOST;
		if (reading == READ_AGAIN)
			continue;
		uint64_t spent = (uint64_t)v.spent + cost;
		if (spent > rule->limit && cost > 0) {
			fill_verdict(rule, &v, v.spent, ret);
			ret->is_allowed = false;
			ret->retry_after_ms =
			    cost > rule->limit ? rule->window_ms : retry_after(log, rule, &v, cost);
			if (atomic_load(&log->head) == v.end)
				return LIMITER_LOG_DONE;
		} else if (cost == 0 || view_add(log, rule, &v, cost)) {
			fill_verdict(rule, &v, spent, ret);
			if (cost > 0)
				ret->reset_ms = rule->window_ms;
			return LIMITER_LOG_DONE;
		}
	}
}

enum limiter_log_result
limiter_log_give(struct limiter_log *log, const struct limiter_log_rule *rule,
    struct limiter_log_owner owner, uint32_t cost, uint64_t now_ms)
{
	struct view v;

	prepare(log, rule, now_ms);
	for (;;) {
		uint64_t mark = atomic_load(&log->mark);
		enum reading reading = view_read(log, rule, owner, now_ms, &v);

		if (reading == READ_LOST)
			return LIMITER_LOG_LOST;
		if (reading == READ_AGAIN)
			continue;
		if (v.spent == 0)
			return LIMITER_LOG_DONE;
		uint64_t given = cost < v.spent ? cost : v.spent;
		/* Not 0, which is no mark: sealed. */
		uint64_t next = SEALED | time_of(v.last) << SUM_BITS |
				((sum_of(v.last) - v.spent + given) & SUM_MASK);
		if (atomic_compare_exchange_strong(&log->mark, &mark, next))
			return LIMITER_LOG_DONE;
	}
}

uint64_t
limiter_log_beginning(struct limiter_log *log, unsigned shift)
{
	uint64_t free, end = find_end(log, shift, &free);
	uint64_t last = end > 0 ? entry_at(log, shift, end - 1) : 0;

	return ends_closed(log, end, last) ? end : 0;
}

bool
limiter_log_is_closed(struct limiter_log *log, unsigned shift)
{
	return limiter_log_beginning(log, shift) != 0;
}

bool
limiter_log_close(struct limiter_log *log, unsigned shift, uint64_t now_ms)
{
	uint64_t free, end = find_end(log, shift, &free);
	uint64_t last = end > 0 ? entry_at(log, shift, end - 1) : 0;

	if (ends_closed(log, end, last))
		return true;
	/* Read after the entries: whoever added them had moved it before. */
	if (now_ms <= atomic_load(&log->busy_until_ms))
		return false;
	raise_to(&log->clock_ms, now_ms);
	if (end > 0 && (last & SEALED) == 0 &&
	    !atomic_compare_exchange_strong(place_of(log, shift, end - 1), &last, last | SEALED))
		return false;
	if (!atomic_compare_exchange_strong(place_of(log, shift, end), &free,
		SEALED | CLOSED | entry_of(end, shift, now_ms, sum_of(last))))
		return false;
	atomic_compare_exchange_strong(&log->head, &end, end + 1);
	return true;
}

void
limiter_log_open(struct limiter_log *log, uint64_t beginning)
{
	raise_to(&log->tail, beginning);
}
