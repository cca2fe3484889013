/*
 * pg_pool - which connection an operation gets; when one is opened, checked, closed.
 *
 *   add -> CONNECTING -opened-> IDLE <--give--> SHARED, ALONE
 *                                ^ |
 *                                | +-check-> CHECKING -checked-+
 *                                +-----------------------------+
 *   and from anywhere out: remove, broken
 */
#include "worker/store/pg_pool.h"

#include "common/check.h"

static void
move(struct pg_pool *pool, struct pg_slot *slot, enum pg_state state)
{
	if (list_linked(&slot->node))
		pool->counts[slot->state]--;
	list_del(&slot->node);
	slot->state = state;
	list_add_tail(&pool->lists[state], &slot->node);
	pool->counts[state]++;
}

static unsigned
count_all(const struct pg_pool *pool)
{
	unsigned count = 0;

	for (int i = 0; i < PG_STATES; i++)
		count += pool->counts[i];
	return count;
}

static bool
is_old(const struct pg_pool *pool, const struct pg_slot *slot, uint64_t now_ms)
{
	return pool->recycle_ms > 0 && now_ms - slot->born_ms >= pool->recycle_ms;
}

void
pg_pool_init(struct pg_pool *pool, unsigned size, unsigned overflow)
{
	*pool = (struct pg_pool){.size = size, .overflow = overflow};
	for (int i = 0; i < PG_STATES; i++)
		list_init(&pool->lists[i]);
}

static bool
has_idled_long(const struct pg_pool *pool, const struct pg_slot *slot, uint64_t now_ms)
{
	return now_ms >= slot->since_ms && now_ms - slot->since_ms >= pool->check_after_ms;
}

bool
pg_pool_trusts(const struct pg_pool *pool, const struct pg_slot *slot)
{
	return slot->asked_at == pool->breaks;
}

/* The one with the fewest operations. One that is old is left to come to its end. */
static struct pg_slot *
shared_with_room(const struct pg_pool *pool, uint64_t now_ms)
{
	struct pg_slot *best = NULL;

	list_for (node, &pool->lists[PG_SHARED]) {
		struct pg_slot *slot = list_entry(node, struct pg_slot, node);

		if (slot->depth < PG_DEPTH_MAX && !is_old(pool, slot, now_ms) &&
		    pg_pool_trusts(pool, slot) && (best == NULL || slot->depth < best->depth))
			best = slot;
	}
	return best;
}

static bool
may_open(const struct pg_pool *pool, uint64_t now_ms)
{
	unsigned opening_max = pool->is_careful ? 1 : PG_OPENING_MAX;

	return count_all(pool) < pool->size + pool->overflow && now_ms >= pool->open_at_ms &&
	       pool->counts[PG_CONNECTING] < opening_max;
}

/* Those on their way will do for all who wait. */
static bool
is_enough(const struct pg_pool *pool, unsigned waiting)
{
	return pool->counts[PG_CONNECTING] + pool->counts[PG_CHECKING] >= waiting;
}

enum pg_move
pg_pool_next(
    struct pg_pool *pool, bool is_alone, unsigned waiting, uint64_t now_ms, struct pg_slot **ret)
{
	if (pg_pool_in_use(pool) >= pool->size)
		pool->crowd_until_ms = now_ms + PG_CROWD_MS;
	if (!list_empty(&pool->lists[PG_IDLE])) {
		/* The last that came back: those that idle long are closed in the end. */
		*ret = list_entry(pool->lists[PG_IDLE].prev, struct pg_slot, node);
		if (is_old(pool, *ret, now_ms))
			return PG_CLOSE;
		if (pg_pool_trusts(pool, *ret) && !has_idled_long(pool, *ret, now_ms))
			return PG_TAKE;
		/* One that is being opened may hang for longer than anybody waits. */
		return pool->counts[PG_CHECKING] >= waiting ? PG_WAIT : PG_CHECK;
	}
	if (!is_alone && (*ret = shared_with_room(pool, now_ms)) != NULL)
		return PG_TAKE;
	if (is_enough(pool, waiting))
		return PG_WAIT;
	return may_open(pool, now_ms) ? PG_OPEN : PG_WAIT;
}

uint64_t
pg_pool_wait_ms(const struct pg_pool *pool, uint64_t now_ms)
{
	if (count_all(pool) >= pool->size + pool->overflow)
		return 0;
	return pool->open_at_ms > now_ms ? pool->open_at_ms - now_ms : 0;
}

void
pg_pool_add(struct pg_pool *pool, struct pg_slot *slot)
{
	slot->asked_at = pool->breaks;
	move(pool, slot, PG_CONNECTING);
}

void
pg_pool_opened(struct pg_pool *pool, struct pg_slot *slot, uint64_t now_ms)
{
	check(slot->state == PG_CONNECTING);
	pool->failures = 0;
	pool->is_careful = false;
	slot->born_ms = slot->since_ms = now_ms;
	move(pool, slot, PG_IDLE);
}

void
pg_pool_check(struct pg_pool *pool, struct pg_slot *slot)
{
	check(slot->state == PG_IDLE);
	slot->asked_at = pool->breaks;
	move(pool, slot, PG_CHECKING);
}

/* With check_after_ms 0 it would be checked for ever: it counts as heard of a moment later. */
void
pg_pool_checked(struct pg_pool *pool, struct pg_slot *slot, uint64_t now_ms)
{
	check(slot->state == PG_CHECKING);
	slot->since_ms = now_ms + 1;
	move(pool, slot, PG_IDLE);
}

void
pg_pool_take(struct pg_pool *pool, struct pg_slot *slot, bool is_alone)
{
	check(slot->state == PG_IDLE || (slot->state == PG_SHARED && !is_alone));
	slot->depth++;
	move(pool, slot, is_alone ? PG_ALONE : PG_SHARED);
}

bool
pg_pool_give(struct pg_pool *pool, struct pg_slot *slot, unsigned waiting, uint64_t now_ms)
{
	check(slot->depth > 0);
	slot->since_ms = now_ms;
	if (--slot->depth > 0)
		return true;
	move(pool, slot, PG_IDLE);
	if (is_old(pool, slot, now_ms))
		return false;
	return waiting > 0 || count_all(pool) <= pool->size || now_ms < pool->crowd_until_ms;
}

void
pg_pool_remove(struct pg_pool *pool, struct pg_slot *slot)
{
	check(pool->counts[slot->state] > 0);
	pool->counts[slot->state]--;
	list_del(&slot->node);
}

void
pg_pool_broken(struct pg_pool *pool, struct pg_slot *slot, uint64_t now_ms, uint64_t random)
{
	bool was_open = slot->state != PG_CONNECTING;
	uint64_t wait_ms = PG_BACKOFF_FIRST_MS;

	pg_pool_remove(pool, slot);
	pool->is_careful = true;
	if (was_open)
		pool->breaks++;
	/* Many break at once: only the first of them counts. */
	if (was_open && pool->open_at_ms > now_ms)
		return;
	for (unsigned i = 0; i < pool->failures && wait_ms < PG_BACKOFF_MAX_MS; i++)
		wait_ms *= 2;
	if (wait_ms > PG_BACKOFF_MAX_MS)
		wait_ms = PG_BACKOFF_MAX_MS;
	if (!was_open)
		pool->failures++;
	/* Half of it, and at random up to all of it; what was just open is tried sooner. */
	pool->open_at_ms = now_ms + (was_open ? 0 : wait_ms / 2) + random % (wait_ms / 2 + 1);
}

unsigned
pg_pool_ready(const struct pg_pool *pool)
{
	return count_all(pool) - pool->counts[PG_CONNECTING];
}

unsigned
pg_pool_in_use(const struct pg_pool *pool)
{
	return pool->counts[PG_SHARED] + pool->counts[PG_ALONE];
}
