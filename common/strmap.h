/*
 * strmap - text to pointer, for maps that live in one process.
 *
 * Keys are copied and compared byte for byte. Open addressing with linear
 * probing, grown at 3/4 full; the hash is seeded per process so that keys
 * from outside cannot be chosen to collide.
 */
#ifndef COMMON_STRMAP_H
#define COMMON_STRMAP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/str.h"

struct strmap;

struct strmap *strmap_new(void);
void strmap_free(struct strmap **); /* the values are not freed */

void *strmap_get(const struct strmap *, struct str key);        /* NULL: none */
void *strmap_set(struct strmap *, struct str key, void *value); /* returns the old value or NULL */
void *strmap_del(struct strmap *, struct str key);              /* returns the value or NULL */
size_t strmap_count(const struct strmap *);

/* Walks in no order: start with *cursor = 0. False at the end. Do not change the map meanwhile. */
bool strmap_next(const struct strmap *, size_t *cursor, struct str *ret_key, void **ret_value);

#endif
