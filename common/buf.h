/*
 * buf - a growing run of bytes.
 *
 *      data                  data+len        data+cap
 *      |  bytes appended so far  |   room        |
 *
 * The bytes are always followed by a NUL that is not counted, once anything
 * was appended. Who appends what came from outside bounds it first.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "common/str.h"

struct buf {
	char *data;
	size_t len;
	size_t cap;
};

#define BUF_INIT ((struct buf){NULL, 0, 0})

void buf_fini(struct buf *);  /* frees the bytes; empty and usable afterwards */
void buf_clear(struct buf *); /* len = 0, keeps the room */

char *buf_reserve(struct buf *, size_t room); /* at least `room` bytes at data+len */
void buf_add(struct buf *, const void *bytes, size_t len);
void buf_add_str(struct buf *, struct str);
void buf_add_cstr(struct buf *, const char *);
void buf_add_char(struct buf *, char);
void buf_printf(struct buf *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *, const char *fmt, va_list) __attribute__((format(printf, 2, 0)));
void buf_consume(struct buf *, size_t len); /* drops bytes at the front (moves the rest) */

/* The bytes as the inside of a JSON string: quotes, backslash and controls escaped, no quotes
 * added. */
void buf_add_json_escaped(struct buf *, struct str);

/* Takes the bytes out, NUL-terminated; the caller frees them. Never NULL. */
char *buf_take(struct buf *, size_t *ret_len);

static inline struct str
buf_str(const struct buf *b)
{
	return (struct str){b->data, b->len};
}

#endif
