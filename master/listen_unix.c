/*
 * listen_unix - stale socket files, modes, bind.
 */
#include "master/listen_unix.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int
connect_errno(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	int err = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 ? 0 : errno;
	close(fd);
	return err;
}

/* 0: nothing is at the path any more. */
static int
remove_stale(const struct sockaddr_un *un)
{
	struct stat st;

	if (lstat(un->sun_path, &st) != 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (connect_errno(un) != ECONNREFUSED)
		return -EADDRINUSE; /* EAGAIN: its queue is full, so someone is there */
	return unlink(un->sun_path) == 0 ? 0 : -errno;
}

int
listen_unix(const char *path, mode_t mode, int backlog)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, path, strlen(path) + 1);
	if ((err = remove_stale(&un)) != 0)
		return err;
	if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
		return -errno;
	/* The mode of the descriptor becomes the file's: no moment with a wider one. */
	if (fchmod(fd, mode) != 0 || bind(fd, (const struct sockaddr *)&un, sizeof(un)) != 0 ||
	    chmod(path, mode) != 0 || listen(fd, backlog) != 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}
