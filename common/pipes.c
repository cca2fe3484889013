/* pipes - see pipes.h. */
#include "common/pipes.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/crypto.h"

enum { NAME_LEN = 5, BACKLOG = 128 }; /* what the kernel chooses: five hexadecimal digits */

/* ---- which program ---- */

static void
add_text(struct buf *b, const char *s)
{
	buf_printf(b, "%zu:%s", strlen(s), s);
}

uint64_t
pipes_program(const struct conf_mcp_server *s)
{
	uint8_t hash[SHA256_LEN];
	struct buf b = BUF_INIT;
	uint64_t program;

	add_text(&b, s->name);
	add_text(&b, s->command);
	add_text(&b, s->per);
	buf_printf(
	    &b, "%llu:%lld:", (unsigned long long)s->max_memory_bytes, (long long)s->max_restarts);
	for (size_t i = 0; i < s->args.n; i++)
		add_text(&b, s->args.v[i]);
	buf_add_char(&b, ';');
	for (size_t i = 0; i < s->env.n; i++) {
		add_text(&b, s->env.v[i].name);
		add_text(&b, s->env.v[i].value);
	}
	crypto_sha256(buf_str(&b), hash);
	memcpy(&program, hash, sizeof(program));
	buf_fini(&b);
	return program;
}

/* ---- the socket ---- */

static int
seqpacket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd >= 0 ? fd : -errno;
}

void
pipes_publish(int fd, struct shm *shm)
{
	struct sockaddr_un at;
	socklen_t len = sizeof(at);
	uint64_t name = 0;

	check(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
	check(len == offsetof(struct sockaddr_un, sun_path) + 1 + NAME_LEN);
	memcpy(&name, at.sun_path + 1, NAME_LEN);
	atomic_store(shm_word(shm, SHM_WORD_PIPES), name);
}

int
pipes_listen(struct shm *shm)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	int fd = seqpacket();

	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)) != 0 ||
	    listen(fd, BACKLOG) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	pipes_publish(fd, shm);
	return fd;
}

int
pipes_accept(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (got < 0)
		return -errno;
	if (getsockopt(got, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid())
		return got;
	close(got);
	return -EACCES;
}

int
pipes_connect(struct shm *shm)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	uint64_t name = atomic_load(shm_word(shm, SHM_WORD_PIPES));
	int fd;

	if (name == 0)
		return -ENOENT;
	fd = seqpacket();
	if (fd < 0)
		return fd;
	memcpy(at.sun_path + 1, &name, NAME_LEN);
	if (connect(fd, (struct sockaddr *)&at,
		offsetof(struct sockaddr_un, sun_path) + 1 + NAME_LEN) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

/* ---- messages ---- */

union control { /* aligned as the kernel wants it */
	struct cmsghdr head;
	char room[CMSG_SPACE(2 * sizeof(int))];
};

int
pipes_send(int fd, const struct pipes_message *m, const int *fds)
{
	struct iovec part = {(void *)m, sizeof(*m)};
	struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1};
	union control control;
	ssize_t n;

	if (fds != NULL) {
		memset(&control, 0, sizeof(control));
		h.msg_control = control.room;
		h.msg_controllen = sizeof(control.room);
		struct cmsghdr *c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(2 * sizeof(int));
		memcpy(CMSG_DATA(c), fds, 2 * sizeof(int));
	}
	do
		n = sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(*m))
		return 0;
	return n < 0 ? -errno : -EIO;
}

static void
take_fds(struct msghdr *h, int fds[2])
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    c->cmsg_len == CMSG_LEN(2 * sizeof(int)))
			memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
	}
}

int
pipes_recv(int fd, struct pipes_message *ret, int fds[2])
{
	struct pipes_message m;
	struct iovec part = {&m, sizeof(m)};
	union control control;
	struct msghdr h = {.msg_iov = &part,
	    .msg_iovlen = 1,
	    .msg_control = control.room,
	    .msg_controllen = sizeof(control.room)};
	ssize_t n;

	fds[0] = fds[1] = -1;
	do
		n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return 0;
	if (n < 0)
		return -errno;
	take_fds(&h, fds);
	if (n == (ssize_t)sizeof(m)) {
		*ret = m;
		return 1;
	}
	if (fds[0] >= 0) {
		close(fds[0]);
		close(fds[1]);
	}
	return -EBADMSG;
}
