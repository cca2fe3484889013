/* bequest - lines of words. */
#include "master/bequest.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"

static const char *const names[BEQUEST_FDS] = {"talk", "shm", "lock", "control"};

void
bequest_init(struct bequest *b)
{
	*b = (struct bequest){.run_dir = NULL};
	for (int i = 0; i < BEQUEST_FDS; i++)
		b->fds[i] = -1;
}

void
bequest_fini(struct bequest *b)
{
	for (size_t i = 0; i < b->listener_count; i++)
		free(b->listeners[i].address);
	free(b->listeners);
	free(b->run_dir);
	bequest_init(b);
}

void
bequest_add_listener(struct bequest *b, int fd, unsigned kind, bool is_foreign, const char *address)
{
	b->listeners = xrealloc(b->listeners, (b->listener_count + 1) * sizeof(*b->listeners));
	b->listeners[b->listener_count++] =
	    (struct bequest_listener){fd, kind, is_foreign, xstrdup(address)};
}

void
bequest_write(const struct bequest *b, struct buf *out)
{
	for (int i = 0; i < BEQUEST_FDS; i++)
		buf_printf(out, "%s %d\n", names[i], b->fds[i]);
	buf_printf(out, "run_dir %s\n", b->run_dir);
	for (size_t i = 0; i < b->listener_count; i++) {
		const struct bequest_listener *l = &b->listeners[i];

		buf_printf(out, "listen %d %u %d %s\n", l->fd, l->kind, l->is_foreign, l->address);
	}
}

size_t
bequest_fds(const struct bequest *b, int *ret_fds)
{
	size_t n = 0;

	for (int i = 0; i < BEQUEST_FDS; i++)
		ret_fds[n++] = b->fds[i];
	for (size_t i = 0; i < b->listener_count; i++)
		ret_fds[n++] = b->listeners[i].fd;
	return n;
}

static uint64_t
take_number(struct str *line)
{
	uint64_t n;

	check(str_to_u64(str_split(line, ' '), &n) && n <= INT32_MAX);
	return n;
}

/* It outlived one exec: it must not outlive another by accident. */
static int
take_fd(struct str *line)
{
	int fd = (int)take_number(line);

	check(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
	return fd;
}

static char *
take_rest(struct str line)
{
	return xasprintf("%.*s", (int)line.len, line.p);
}

static void
take_listener(struct bequest *b, struct str line)
{
	int fd = take_fd(&line);
	unsigned kind = (unsigned)take_number(&line);
	bool is_foreign = take_number(&line) != 0;
	char *address = take_rest(line);

	bequest_add_listener(b, fd, kind, is_foreign, address);
	free(address);
}

static void
take_line(struct bequest *b, struct str line)
{
	struct str name = str_split(&line, ' ');

	for (int i = 0; i < BEQUEST_FDS; i++) {
		if (str_eq(name, str_of(names[i])))
			b->fds[i] = take_fd(&line);
	}
	if (str_eq(name, STR("run_dir")))
		b->run_dir = take_rest(line);
	if (str_eq(name, STR("listen")))
		take_listener(b, line);
}

bool
bequest_take(struct bequest *b)
{
	const char *text = getenv(BEQUEST_VARIABLE);

	bequest_init(b);
	if (text == NULL)
		return false;
	for (struct str rest = str_of(text); rest.len > 0;)
		take_line(b, str_split(&rest, '\n'));
	for (int i = 0; i < BEQUEST_FDS; i++)
		check(b->fds[i] >= 0);
	check(b->run_dir != NULL);
	unsetenv(BEQUEST_VARIABLE);
	return true;
}
