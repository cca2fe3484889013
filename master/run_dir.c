/*
 * run_dir - mkdir, lock, and what is removed at the end.
 */
#include "master/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"

struct run_dir {
	char *lock, *control, *addresses;
	int lock_fd;
};

/* mkdir -p; what is made is 0700. */
static int
make_path(const char *path)
{
	char part[PATH_MAX];
	size_t len = strlen(path);

	if (len == 0 || len >= sizeof(part))
		return len == 0 ? -EINVAL : -ENAMETOOLONG;
	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (part[i] != '/' && part[i] != '\0')
			continue;
		char cut = part[i];
		part[i] = '\0';
		if (mkdir(part, 0700) != 0 && errno != EEXIST)
			return -errno;
		part[i] = cut;
	}
	return 0;
}

/* For people; the lock is what counts. */
static void
write_pid(int fd, const char *path)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)len, 0) < 0)
		log_warn("lock file not written file=%s", path);
}

/* -EWOULDBLOCK: another master has it. */
static int
take_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	write_pid(fd, path);
	return fd;
}

char *
run_dir_path(const struct conf *conf, const char *name)
{
	return xasprintf("%s/%s", conf->run_dir, name);
}

struct run_dir *
run_dir_open(const struct conf *conf)
{
	int err = make_path(conf->run_dir);

	if (err != 0) {
		log_error(
		    "run_dir not made run_dir=%s error=\"%s\"", conf->run_dir, strerror(-err));
		return NULL;
	}
	char *lock = run_dir_path(conf, "lock");
	int fd = take_lock(lock);
	if (fd < 0) {
		log_error("run_dir not locked run_dir=%s error=\"%s\"", conf->run_dir,
		    fd == -EWOULDBLOCK ? "another server uses it" : strerror(-fd));
		free(lock);
		return NULL;
	}
	free(lock);
	return run_dir_inherit(conf, fd);
}

struct run_dir *
run_dir_inherit(const struct conf *conf, int lock_fd)
{
	struct run_dir *d = xcalloc(1, sizeof(*d));

	d->lock = run_dir_path(conf, "lock");
	d->control = run_dir_path(conf, "control");
	d->addresses = run_dir_path(conf, "addresses");
	d->lock_fd = lock_fd;
	return d;
}

int
run_dir_lock_fd(const struct run_dir *d)
{
	return d->lock_fd;
}

void
run_dir_claim(const struct run_dir *d)
{
	write_pid(d->lock_fd, d->lock);
}

void
run_dir_close(struct run_dir **d)
{
	if (*d == NULL)
		return;
	/* The lock file stays: removing it would let two masters lock two files of one name. */
	unlink((*d)->control);
	unlink((*d)->addresses);
	run_dir_leave(d);
}

void
run_dir_leave(struct run_dir **d)
{
	if (*d == NULL)
		return;
	close((*d)->lock_fd);
	free((*d)->lock);
	free((*d)->control);
	free((*d)->addresses);
	free(*d);
	*d = NULL;
}
