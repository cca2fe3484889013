/*
 * check - the end of a process that found itself wrong, and allocation that
 * never returns NULL.
 */
#include "common/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log_sink.h"

void
check_failed(const char *expr, const char *file, int line, const char *func)
{
	/* Not through the logger: it may be the one that is wrong. */
	int fd = log_sink_raw();

	if (fd >= 0)
		dprintf(fd, "panic check=\"%s\" at=%s:%d func=%s pid=%d\n", expr, file, line, func,
		    (int)getpid());
	abort();
}

void *
xmalloc(size_t size)
{
	void *p = malloc(size ? size : 1);

	check(p != NULL);
	return p;
}

void *
xcalloc(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size ? size : 1);

	check(p != NULL);
	return p;
}

void *
xrealloc(void *ptr, size_t size)
{
	void *p = realloc(ptr, size ? size : 1);

	check(p != NULL);
	return p;
}

char *
xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *
xstrndup(const char *s, size_t len)
{
	char *p = xmalloc(len + 1);

	memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

char *
xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	check(n >= 0 && s != NULL);
	return s;
}
