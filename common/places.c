/* places - see places.h. */
#include "common/places.h"

#include "common/check.h"

/* Of a waiter: the low halves of the incarnation's number and of the time. */
static uint64_t
waiting_word(struct shm_who who, uint64_t since_ms)
{
	return (uint64_t)who.number << 32 | (uint32_t)since_ms;
}

static uint64_t
holder_word(struct shm_who who)
{
	return (uint64_t)who.row << 32 | who.number;
}

static bool
is_dead(uint64_t holder, const struct shm *shm)
{
	struct shm_who who = {.row = (uint32_t)(holder >> 32), .number = (uint32_t)holder};

	return shm != NULL && !shm_is_alive(shm, who);
}

/* is_dead_too: also what the dead hold. */
static int
take_one(struct places *p, uint32_t max, const struct shm *shm, struct shm_who me, uint32_t from,
    bool is_dead_too)
{
	for (uint32_t i = 0; i < max; i++) {
		uint32_t at = from + i < max ? from + i : from + i - max;
		uint64_t holder = atomic_load_explicit(&p->holders[at], memory_order_relaxed);

		if (holder != 0 && !(is_dead_too && is_dead(holder, shm)))
			continue;
		if (atomic_compare_exchange_strong(&p->holders[at], &holder, holder_word(me)))
			return (int)at;
	}
	return -1;
}

int
places_take(
    struct places *p, uint32_t max, const struct shm *shm, struct shm_who me, uint32_t *hint)
{
	check(max <= PLACES_MAX && holder_word(me) != 0);
	uint32_t from = max > 0 ? *hint % max : 0;
	int at = take_one(p, max, shm, me, from, false);

	if (at < 0)
		at = take_one(p, max, shm, me, from, true);
	if (at >= 0)
		*hint = (uint32_t)at + 1;
	return at;
}

void
places_give(struct places *p, int place, struct shm_who me)
{
	uint64_t mine = holder_word(me);

	check(place >= 0 && place < PLACES_MAX);
	/* Who was taken for dead has lost it already. */
	atomic_compare_exchange_strong(&p->holders[place], &mine, 0);
}

uint32_t
places_held(const struct places *p, uint32_t max, const struct shm *shm)
{
	uint32_t held = 0;

	check(max <= PLACES_MAX);
	for (uint32_t i = 0; i < max; i++) {
		uint64_t holder = atomic_load_explicit(&p->holders[i], memory_order_relaxed);

		held += holder != 0 && !is_dead(holder, shm);
	}
	return held;
}

void
places_wait(struct places *p, struct shm_who me, uint64_t since_ms, uint64_t now_ms)
{
	check(me.row < PLACES_ROWS_MAX);
	atomic_store(&p->seen[me.row], now_ms);
	atomic_store(&p->waiting[me.row], since_ms > 0 ? waiting_word(me, since_ms) : 0);
}

bool
places_has_older(const struct places *p, const struct shm *shm, struct shm_who me,
    uint64_t since_ms, uint64_t now_ms)
{
	uint32_t rows = shm != NULL ? shm_rows_used(shm) : 0;

	for (uint32_t row = 0; row < rows && row < PLACES_ROWS_MAX; row++) {
		uint64_t word = atomic_load_explicit(&p->waiting[row], memory_order_relaxed);
		struct shm_who who = {.row = row, .number = (uint32_t)(word >> 32)};

		if (word == 0 || row == me.row)
			continue;
		bool is_older = (int32_t)((uint32_t)word - (uint32_t)since_ms) < 0;
		if (is_older && atomic_load(&p->seen[row]) + PLACES_SEEN_MS >= now_ms &&
		    shm_is_alive(shm, who))
			return true;
	}
	return false;
}
