/*
 * idmap - handles that outlive their objects safely.
 *
 * A handle is slot index (low 32 bits) and generation (high 32 bits): once the
 * object is removed the handle finds nothing, also when the slot is used
 * again. Hold a handle, not a pointer, across an asynchronous gap. 0 is never
 * a handle. O(1) each.
 */
#ifndef COMMON_IDMAP_H
#define COMMON_IDMAP_H

#include <stddef.h>
#include <stdint.h>

struct idmap;

struct idmap *idmap_new(void);
void idmap_free(struct idmap **); /* what is in it is not freed */

uint64_t idmap_add(struct idmap *, void *object);       /* object is not NULL */
void *idmap_get(const struct idmap *, uint64_t handle); /* NULL: gone or never was */
void idmap_remove(struct idmap *, uint64_t handle);     /* unknown handle: nothing happens */
size_t idmap_count(const struct idmap *);

/* Walks in slot order: start with *cursor = 0; NULL at the end. Removal while walking is fine. */
void *idmap_next(const struct idmap *, uint32_t *cursor);

#endif
