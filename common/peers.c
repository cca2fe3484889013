/*
 * peers - an entry is one word, written by its row's worker alone: 48 bits of the address's
 * hash, 16 of its connections. Whoever enters writes first and adds up then, so that of two at
 * the same time at least one sees the other.
 */
#include "common/peers.h"

#include "common/check.h"

enum { BUCKETS = 512, WAYS = 16, PLACES = BUCKETS * WAYS };

#define COUNT_MASK UINT64_C(0xffff)

struct table {
	_Atomic uint64_t entries[PLACES];
};

_Static_assert(PLACES < UINT16_MAX, "a place and 0 fit into 16 bits");

size_t
peers_shm_bytes(void)
{
	return sizeof(struct table);
}

void
peers_row_clear(struct shm *shm, uint32_t row)
{
	size_t len;
	void *at = shm_peers(shm, row, &len);

	shm_punch(shm, at, len);
}

static _Atomic uint64_t *
bucket_of(const struct shm *shm, uint32_t row, uint64_t hash)
{
	struct table *t = shm_peers(shm, row, NULL);

	return &t->entries[hash % BUCKETS * WAYS];
}

static uint64_t
key_of(uint64_t hash)
{
	return hash & ~COUNT_MASK;
}

/* The address's way, or a free one; -1: all are taken by others. */
static int
way_of(_Atomic uint64_t *bucket, uint64_t hash)
{
	int free_way = -1;

	for (int i = WAYS; i-- > 0;) {
		uint64_t entry = atomic_load_explicit(&bucket[i], memory_order_relaxed);

		if ((entry & COUNT_MASK) == 0)
			free_way = i;
		else if ((entry & ~COUNT_MASK) == key_of(hash))
			return i;
	}
	return free_way;
}

static uint64_t
sum_of(const struct shm *shm, uint64_t hash)
{
	uint64_t sum = 0;

	for (uint32_t row = 0; row < shm_rows_used(shm); row++) {
		_Atomic uint64_t *bucket;

		if (!shm_row_was_used(shm, row))
			continue;
		bucket = bucket_of(shm, row, hash);
		for (int i = 0; i < WAYS; i++) {
			uint64_t entry = atomic_load(&bucket[i]);

			if ((entry & ~COUNT_MASK) == key_of(hash))
				sum += entry & COUNT_MASK;
		}
	}
	return sum;
}

bool
peers_enter(struct shm *shm, struct shm_who me, uint64_t hash, uint32_t limit, uint16_t *ret_place)
{
	_Atomic uint64_t *bucket = bucket_of(shm, me.row, hash);
	int way = way_of(bucket, hash);
	uint64_t count;

	check(limit >= 1 && limit <= PEERS_LIMIT_MAX);
	if (way < 0) {
		*ret_place = 0;
		return true;
	}
	count = atomic_load_explicit(&bucket[way], memory_order_relaxed) & COUNT_MASK;
	if (count >= limit)
		return false;
	atomic_store(&bucket[way], key_of(hash) | (count + 1));
	if (sum_of(shm, hash) > limit) {
		atomic_store(&bucket[way], key_of(hash) | count);
		return false;
	}
	*ret_place = (uint16_t)(hash % BUCKETS * WAYS + (unsigned)way + 1);
	return true;
}

void
peers_leave(struct shm *shm, struct shm_who me, uint16_t place)
{
	struct table *t = shm_peers(shm, me.row, NULL);
	uint64_t entry;

	if (place == 0)
		return;
	check(place <= PLACES);
	entry = atomic_load_explicit(&t->entries[place - 1], memory_order_relaxed);
	check((entry & COUNT_MASK) > 0);
	atomic_store(&t->entries[place - 1], entry - 1);
}
