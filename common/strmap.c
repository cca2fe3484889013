/* strmap - open addressing, deletion by shifting back, a hash seeded per process. */
#include "common/strmap.h"

#include <stdlib.h>
#include <sys/random.h>

#include "common/check.h"

struct entry {
	char *key; /* NULL: empty */
	size_t key_len;
	uint64_t hash;
	void *value;
};

struct strmap {
	struct entry *entries;
	size_t cap, count; /* cap is a power of two or 0 */
};

static uint64_t seed[2];

static uint64_t
mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* The multiply-and-fold hash of wyhash (Wang Yi, public domain), eight bytes a step. */
static uint64_t
hash_of(struct str s)
{
	uint64_t h = seed[0] ^ s.len;
	size_t i = 0;

	for (; i + 8 <= s.len; i += 8) {
		uint64_t w;

		memcpy(&w, s.p + i, 8);
		h = mix(h ^ w, seed[1]);
	}
	if (i < s.len) {
		uint64_t w = 0;

		memcpy(&w, s.p + i, s.len - i);
		h = mix(h ^ w, seed[1]);
	}
	return mix(h, 0x9e3779b97f4a7c15ULL ^ seed[1]);
}

struct strmap *
strmap_new(void)
{
	if (seed[1] == 0) {
		check(getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed));
		seed[1] |= 1;
	}
	return xcalloc(1, sizeof(struct strmap));
}

void
strmap_free(struct strmap **map)
{
	if (*map == NULL)
		return;
	for (size_t i = 0; i < (*map)->cap; i++)
		free((*map)->entries[i].key);
	free((*map)->entries);
	free(*map);
	*map = NULL;
}

/* The entry of the key, or the empty one where it would go. The map has room. */
static struct entry *
find(const struct strmap *m, struct str key, uint64_t hash)
{
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct entry *e = &m->entries[i];

		if (e->key == NULL || (e->hash == hash && str_eq(str_sub(e->key, e->key_len), key)))
			return e;
	}
}

static void
grow(struct strmap *m)
{
	struct entry *old = m->entries;
	size_t old_cap = m->cap;

	m->cap = old_cap ? old_cap * 2 : 16;
	m->entries = xcalloc(m->cap, sizeof(*m->entries));
	for (size_t i = 0; i < old_cap; i++) {
		if (old[i].key != NULL)
			*find(m, str_sub(old[i].key, old[i].key_len), old[i].hash) = old[i];
	}
	free(old);
}

void *
strmap_get(const struct strmap *m, struct str key)
{
	return m->count > 0 ? find(m, key, hash_of(key))->value : NULL;
}

void *
strmap_set(struct strmap *m, struct str key, void *value)
{
	check(value != NULL);
	if ((m->count + 1) * 4 > m->cap * 3)
		grow(m);
	uint64_t hash = hash_of(key);
	struct entry *e = find(m, key, hash);
	void *old = e->value;
	if (e->key == NULL) {
		*e = (struct entry){xstrndup(key.len ? key.p : "", key.len), key.len, hash, NULL};
		m->count++;
	}
	e->value = value;
	return old;
}

void *
strmap_del(struct strmap *m, struct str key)
{
	if (m->count == 0)
		return NULL;
	struct entry *e = find(m, key, hash_of(key));
	if (e->key == NULL)
		return NULL;
	void *value = e->value;
	size_t mask = m->cap - 1, hole = (size_t)(e - m->entries);
	free(e->key);
	m->count--;
	/* Close the gap: whatever probed past the hole moves into it (Knuth 6.4, algorithm R). */
	for (size_t i = (hole + 1) & mask; m->entries[i].key != NULL; i = (i + 1) & mask) {
		size_t home = m->entries[i].hash & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->entries[hole] = m->entries[i];
			hole = i;
		}
	}
	m->entries[hole] = (struct entry){0};
	return value;
}

size_t
strmap_count(const struct strmap *m)
{
	return m->count;
}

bool
strmap_next(const struct strmap *m, size_t *cursor, struct str *ret_key, void **ret_value)
{
	while (*cursor < m->cap) {
		const struct entry *e = &m->entries[(*cursor)++];

		if (e->key != NULL) {
			*ret_key = str_sub(e->key, e->key_len);
			*ret_value = e->value;
			return true;
		}
	}
	return false;
}
