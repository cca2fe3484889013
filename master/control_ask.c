/*
 * control_ask - the other end of the control socket: blocking, for the command line.
 */
#include "master/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/check.h"
#include "common/str.h"
#include "master/run_dir.h"

/* A new configuration is proven by a worker that becomes ready, which has a limit of its own. */
enum { ANSWER_MAX = 1 << 20, ANSWER_TIMEOUT_S = 10, READ_SIZE = 4096 };

/* -errno, or a connected socket. */
static int
connect_to(const char *path, uint64_t patience_ms)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval timeout = {ANSWER_TIMEOUT_S + (time_t)(patience_ms / 1000), 0};

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (const struct sockaddr *)&un, sizeof(un)) != 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

/* 0 at the end of the answer, or -errno. */
static int
exchange(int fd, const char *verb, struct buf *answer)
{
	char *line = xasprintf("%s\n", verb);
	ssize_t n = send(fd, line, strlen(line), MSG_NOSIGNAL);

	free(line);
	while (n > 0 && answer->len < ANSWER_MAX) {
		n = recv(fd, buf_reserve(answer, READ_SIZE), READ_SIZE, 0);
		if (n > 0)
			answer->len += (size_t)n;
	}
	buf_add(answer, "", 0); /* the NUL */
	return n < 0 ? -errno : 0;
}

/* Cuts "ok\n" or "error " off; what is left is for people. */
static bool
take_verdict(struct buf *answer)
{
	if (str_starts(buf_str(answer), STR("ok\n"))) {
		buf_consume(answer, strlen("ok\n"));
		return true;
	}
	if (str_starts(buf_str(answer), STR("error ")))
		buf_consume(answer, strlen("error "));
	else
		buf_add_cstr(answer, "the server did not answer\n");
	return false;
}

bool
control_ask(const struct conf *conf, const char *verb, struct buf *answer, bool *ret_is_running)
{
	char *path = run_dir_path(conf, "control");
	uint64_t start_ms = conf->watchdog.start_timeout_ms;
	uint64_t upgrade_ms = conf->watchdog.upgrade_timeout_ms;
	int fd = connect_to(path, start_ms > upgrade_ms ? start_ms : upgrade_ms);
	bool is_ok = false;

	*ret_is_running = fd >= 0;
	if (fd == -ENOENT || fd == -ECONNREFUSED) {
		buf_printf(answer, "no server is running with run_dir %s\n", conf->run_dir);
	} else if (fd < 0) {
		buf_printf(answer, "%s: %s\n", path, strerror(-fd));
	} else {
		int err = exchange(fd, verb, answer);

		if (err != 0)
			buf_printf(answer, "%s: %s\n", path, strerror(-err));
		else
			is_ok = take_verdict(answer);
		close(fd);
	}
	free(path);
	return is_ok;
}
