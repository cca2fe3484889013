/* idmap - an array of slots with a free list through it. */
#include "common/idmap.h"

#include <stdlib.h>

#include "common/check.h"

struct slot {
	void *object; /* NULL: free */
	uint32_t generation;
	uint32_t next_free; /* index + 1, 0: none */
};

struct idmap {
	struct slot *slots;
	uint32_t cap, first_free; /* index + 1, 0: none */
	size_t count;
};

struct idmap *
idmap_new(void)
{
	return xcalloc(1, sizeof(struct idmap));
}

void
idmap_free(struct idmap **map)
{
	if (*map == NULL)
		return;
	free((*map)->slots);
	free(*map);
	*map = NULL;
}

static void
idmap_grow(struct idmap *m)
{
	uint32_t cap = m->cap ? m->cap * 2 : 16;

	check(cap > m->cap);
	m->slots = xrealloc(m->slots, cap * sizeof(*m->slots));
	for (uint32_t i = cap; i-- > m->cap;) {
		m->slots[i] = (struct slot){NULL, 1, m->first_free};
		m->first_free = i + 1;
	}
	m->cap = cap;
}

uint64_t
idmap_add(struct idmap *m, void *object)
{
	check(object != NULL);
	if (m->first_free == 0)
		idmap_grow(m);
	uint32_t i = m->first_free - 1;
	struct slot *s = &m->slots[i];
	m->first_free = s->next_free;
	s->object = object;
	m->count++;
	return (uint64_t)s->generation << 32 | i;
}

static struct slot *
idmap_slot(const struct idmap *m, uint64_t handle)
{
	uint32_t i = (uint32_t)handle;

	if (i >= m->cap || m->slots[i].object == NULL ||
	    m->slots[i].generation != (uint32_t)(handle >> 32))
		return NULL;
	return &m->slots[i];
}

void *
idmap_get(const struct idmap *m, uint64_t handle)
{
	struct slot *s = idmap_slot(m, handle);

	return s != NULL ? s->object : NULL;
}

void
idmap_remove(struct idmap *m, uint64_t handle)
{
	struct slot *s = idmap_slot(m, handle);

	if (s == NULL)
		return;
	s->object = NULL;
	if (++s->generation == 0)
		s->generation = 1;
	s->next_free = m->first_free;
	m->first_free = (uint32_t)(s - m->slots) + 1;
	m->count--;
}

size_t
idmap_count(const struct idmap *m)
{
	return m->count;
}

void *
idmap_next(const struct idmap *m, uint32_t *cursor)
{
	while (*cursor < m->cap) {
		void *object = m->slots[(*cursor)++].object;

		if (object != NULL)
			return object;
	}
	return NULL;
}
