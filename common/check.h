/*
 * check - what must be true, or this process ends.
 *
 * check() is for our own mistakes and stays on in production; what comes from
 * outside is allowed to be wrong and is answered with an error (err.h). A
 * failed check writes one line and aborts: the master starts another worker.
 */
#ifndef COMMON_CHECK_H
#define COMMON_CHECK_H

#include <stddef.h>

#define check(expr) ((expr) ? (void)0 : check_failed(#expr, __FILE__, __LINE__, __func__))

_Noreturn void check_failed(const char *expr, const char *file, int line, const char *func);

/* Allocation failure is fatal: every size from outside is bounded before. */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *ptr, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t len) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc));

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
