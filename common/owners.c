/*
 * owners - four open tables per row, each larger than the one before, so that a
 * row's memory follows the ids that it holds at the same time: an id goes into the
 * first table that has an empty place within reach of its hash. A reader looks
 * at the places within reach in every table that holds anything.
 *
 * An entry is two words. The low one is published last and withdrawn first, and
 * alone says whether the entry is there; it is random in our ids, so that two
 * ids whose halves are mixed up by a reader in the middle of a change match nothing.
 */
#include "common/owners.h"

#include "common/check.h"

enum { LEVELS = 4, REACH = 64, HEAD_BYTES = 4096 };

static const struct {
	uint32_t places, first;
} levels[LEVELS] = {{1024, 0}, {4096, 1024}, {16384, 5120}, {65536, 21504}};

enum { PLACES = 21504 + 65536 };

struct entry {
	_Atomic uint64_t low, high; /* low 0: empty */
};

struct table {
	_Atomic uint32_t used[LEVELS];
	char pad[HEAD_BYTES - LEVELS * sizeof(uint32_t)];
	struct entry entries[PLACES];
};

struct key {
	uint64_t low, high;
};

size_t
owners_shm_bytes(void)
{
	return sizeof(struct table);
}

void
owners_row_clear(struct shm *shm, uint32_t row)
{
	size_t len;
	void *at = shm_owners(shm, row, &len);

	shm_punch(shm, at, len);
}

static struct key
key_of(const struct id *id)
{
	uint8_t bits[16];
	struct key k;

	id_bits(id, bits);
	memcpy(&k.high, bits, 8);
	memcpy(&k.low, bits + 8, 8);
	if (k.low == 0)
		k.low = 1;
	return k;
}

static struct entry *
entry_at(struct table *t, unsigned level, struct key k, unsigned step)
{
	uint64_t hash = k.low * 0x9e3779b97f4a7c15ULL >> 32;

	return &t->entries[levels[level].first + ((hash + step) & (levels[level].places - 1))];
}

/* The entry of the key, or with the low word 0 an empty place for it; NULL: none. */
static struct entry *
entry_find(struct table *t, unsigned level, struct key k, uint64_t low)
{
	for (unsigned step = 0; step < REACH; step++) {
		struct entry *e = entry_at(t, level, k, step);

		if (atomic_load_explicit(&e->low, memory_order_acquire) != low)
			continue;
		if (low == 0 || atomic_load_explicit(&e->high, memory_order_relaxed) == k.high)
			return e;
	}
	return NULL;
}

static struct entry *
table_find(struct table *t, struct key k, unsigned *ret_level)
{
	for (unsigned level = 0; level < LEVELS; level++) {
		struct entry *e = NULL;

		if (atomic_load_explicit(&t->used[level], memory_order_acquire) > 0)
			e = entry_find(t, level, k, k.low);
		if (e != NULL) {
			*ret_level = level;
			return e;
		}
	}
	return NULL;
}

static void
used_add(struct table *t, unsigned level, int n)
{
	uint32_t used = atomic_load_explicit(&t->used[level], memory_order_relaxed);

	atomic_store_explicit(&t->used[level], used + (uint32_t)n, memory_order_release);
}

bool
owners_add(struct shm *shm, struct shm_who me, const struct id *id)
{
	struct table *t = shm_owners(shm, me.row, NULL);
	struct key k = key_of(id);
	uint32_t total = 0;
	unsigned level;

	if (table_find(t, k, &level) != NULL)
		return true;
	for (level = 0; level < LEVELS; level++)
		total += atomic_load_explicit(&t->used[level], memory_order_relaxed);
	if (total >= OWNERS_MAX)
		return false;
	for (level = 0; level < LEVELS; level++) {
		struct entry *e;

		/* A table that is half full is left for the next, as its places come to be far. */
		if (level < LEVELS - 1 && t->used[level] >= levels[level].places / 2)
			continue;
		if ((e = entry_find(t, level, k, 0)) == NULL)
			continue;
		used_add(t, level, 1);
		atomic_store_explicit(&e->high, k.high, memory_order_relaxed);
		atomic_store_explicit(&e->low, k.low, memory_order_release);
		return true;
	}
	return false;
}

void
owners_remove(struct shm *shm, struct shm_who me, const struct id *id)
{
	struct table *t = shm_owners(shm, me.row, NULL);
	unsigned level;
	struct entry *e = table_find(t, key_of(id), &level);

	if (e == NULL)
		return;
	atomic_store_explicit(&e->low, 0, memory_order_release);
	used_add(t, level, -1);
}

bool
owners_find(const struct shm *shm, const struct id *id, struct shm_who *ret)
{
	struct key k = key_of(id);
	struct shm_row_info info;
	unsigned level;

	for (uint32_t row = 0; row < shm_rows_used(shm); row++) {
		if (!shm_row_get(shm, row, &info) || info.state == SHM_DEAD)
			continue;
		if (table_find(shm_owners(shm, row, NULL), k, &level) == NULL)
			continue;
		/* The entry may be its successor's: then it is found when the row is looked at
		 * anew. */
		if (!shm_is_alive(shm, info.who)) {
			row--;
			continue;
		}
		*ret = info.who;
		return true;
	}
	return false;
}
