/* arena - a chain of blocks, the newest being filled from its start. */
#include "common/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

/* The first block is small because what is idle holds one: a stream of events. */
enum { BLOCK_MIN = 224, BLOCK_MAX = 65536 };

struct arena_block {
	struct arena_block *older;
	size_t used, cap;
	alignas(max_align_t) char bytes[];
};

void
arena_fini(struct arena *a)
{
	struct arena_block *older;

	for (struct arena_block *b = a->head; b != NULL; b = older) {
		older = b->older;
		free(b);
	}
	*a = ARENA_INIT;
}

static struct arena_block *
block_new(size_t cap, struct arena_block *older)
{
	struct arena_block *b = xmalloc(sizeof(*b) + cap);

	b->older = older;
	b->used = 0;
	b->cap = cap;
	return b;
}

/* A block with room for `size`: the one being filled, a new one in its place, or one just for this
 * behind it. */
static struct arena_block *
block_with_room(struct arena *a, size_t size)
{
	struct arena_block *head = a->head;

	if (head != NULL && head->cap - head->used >= size)
		return head;
	if (head != NULL && size > BLOCK_MAX / 2)
		return head->older = block_new(size, head->older);
	size_t cap = head != NULL ? head->cap * 2 : BLOCK_MIN;
	if (cap > BLOCK_MAX)
		cap = BLOCK_MAX;
	return a->head = block_new(cap < size ? size : cap, head);
}

void *
arena_alloc(struct arena *a, size_t size)
{
	check(size < SIZE_MAX / 2);
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	struct arena_block *b = block_with_room(a, size);
	void *p = b->bytes + b->used;
	b->used += size;
	a->used_bytes += size;
	return p;
}

void *
arena_calloc(struct arena *a, size_t size)
{
	return memset(arena_alloc(a, size), 0, size);
}

char *
arena_strdup(struct arena *a, struct str s)
{
	char *p = arena_alloc(a, s.len + 1);

	if (s.len > 0)
		memcpy(p, s.p, s.len);
	p[s.len] = '\0';
	return p;
}

char *
arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	check(n >= 0);
	char *p = arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return p;
}
