/*
 * arena - memory that lives as long as one request or one turn.
 *
 * Allocations are never freed one by one; arena_fini() frees them all.
 * Blocks grow from 224 bytes by doubling up to 64 KiB; larger requests get a
 * block of their own. Memory is not zeroed unless the call says so.
 */
#ifndef COMMON_ARENA_H
#define COMMON_ARENA_H

#include <stddef.h>

#include "common/str.h"

struct arena_block;

struct arena {
	struct arena_block *head; /* the one being filled */
	size_t used_bytes;        /* handed out, all blocks together */
};

#define ARENA_INIT ((struct arena){NULL, 0})

void arena_fini(struct arena *); /* empty and usable afterwards */

void *arena_alloc(struct arena *, size_t size) __attribute__((returns_nonnull));
void *arena_calloc(struct arena *, size_t size) __attribute__((returns_nonnull));
char *arena_strdup(struct arena *, struct str); /* NUL-terminated copy */
char *arena_printf(struct arena *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
