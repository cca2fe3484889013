/*
 * log_sink - write, send or ask first.
 */
#include "common/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Standard error, opened for us alone; or -1. */
static int own_stderr = -1;

static bool
takes_something(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct timespec none = {0, 0};

	return ppoll(&p, 1, &none, NULL) > 0 && (p.revents & POLLOUT) != 0;
}

/* Half of it: other processes write at the same moment, and each has asked. */
static bool
has_much_room(int fd)
{
	int used = 0, size = fcntl(fd, F_GETPIPE_SZ);

	if (!takes_something(fd))
		return false;
	return size <= 0 || ioctl(fd, FIONREAD, &used) != 0 || used < size / 2;
}

/* Of a file that would mean another place in it than the one that others have. */
static bool
may_block(const struct stat *st)
{
	return S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode);
}

struct log_sink
log_sink_stderr(void)
{
	struct log_sink sink = LOG_SINK_STDERR;
	struct stat st;

	if (fstat(STDERR_FILENO, &st) != 0)
		return sink;
	if (S_ISSOCK(st.st_mode))
		sink.how = LOG_SINK_SEND;
	if (!may_block(&st))
		return sink;
	if (own_stderr < 0)
		own_stderr = open(
		    "/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own_stderr >= 0)
		sink.fd = own_stderr;
	else
		sink.how = LOG_SINK_ASK;
	return sink;
}

/* Non-blocking: a pipe with a name that nobody reads is an error, and no wait. */
int
log_sink_open(struct log_sink *sink, const char *file)
{
	int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640);

	if (fd < 0)
		return -errno;
	*sink = (struct log_sink){.fd = fd, .is_ours = true};
	return 0;
}

void
log_sink_close(struct log_sink *sink)
{
	if (sink->is_ours)
		close(sink->fd);
	*sink = LOG_SINK_STDERR;
}

static ssize_t
put(const struct log_sink *sink, const char *p, size_t len)
{
	if (sink->how == LOG_SINK_SEND)
		return send(sink->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sink->how == LOG_SINK_ASK && !has_much_room(sink->fd))
		return -1;
	return write(sink->fd, p, len);
}

static bool
put_all(const struct log_sink *sink, const char *p, size_t len, size_t *ret_done)
{
	*ret_done = 0;
	while (*ret_done < len) {
		ssize_t n = put(sink, p + *ret_done, len - *ret_done);

		if (n < 0 && errno == EINTR && sink->how != LOG_SINK_ASK)
			continue;
		if (n <= 0)
			return false;
		*ret_done += (size_t)n;
	}
	return true;
}

bool
log_sink_write(struct log_sink *sink, const char *line, size_t len)
{
	size_t done;

	if (sink->is_cut && !put_all(sink, "\n", 1, &done))
		return false;
	sink->is_cut = false;
	if (put_all(sink, line, len, &done))
		return true;
	sink->is_cut = done > 0;
	return false;
}

int
log_sink_kept(void)
{
	return own_stderr;
}

int
log_sink_raw(void)
{
	int fd = own_stderr >= 0 ? own_stderr : STDERR_FILENO;

	return takes_something(fd) ? fd : -1;
}
