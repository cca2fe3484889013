/*
 * khash - what h2o's private header needs of klib's hash map, whose header Debian does
 * not install with it: the layout, to walk over the entries. Nothing is put or found by key.
 */
#ifndef WORKER_HTTP_KLIB_KHASH_H
#define WORKER_HTTP_KLIB_KHASH_H

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t khiter_t;

#define khash_t(name) struct khash_of_##name

/* Two bits of flags for each bucket: empty, deleted. */
static inline bool
khash_has(const uint32_t *flags, khiter_t i)
{
	return (flags[i >> 4] >> ((i & 15) << 1) & 3) == 0;
}

#define KHASH_MAP_INIT_INT64(name, value)                                                          \
	khash_t(name)                                                                              \
	{                                                                                          \
		uint32_t n_buckets, size, n_occupied, upper_bound;                                 \
		uint32_t *flags;                                                                   \
		uint64_t *keys;                                                                    \
		value *vals;                                                                       \
	};                                                                                         \
	static inline khiter_t khash_get_##name(khash_t(name) * h, uint64_t key)                   \
	{                                                                                          \
		for (khiter_t i = 0; i < h->n_buckets; i++) {                                      \
			if (khash_has(h->flags, i) && h->keys[i] == key)                           \
				return i;                                                          \
		}                                                                                  \
		return h->n_buckets;                                                               \
	}

#define kh_get(name, h, key) khash_get_##name(h, key)
#define kh_end(h)            ((h)->n_buckets)
#define kh_val(h, i)         ((h)->vals[i])

#endif
