/* proto - one message is one packet; a packet of another size is no message of ours. */
#include "common/proto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union rights {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(sizeof(int))];
};

int
proto_send_fd(int fd, const struct proto_message *m, int passed)
{
	union rights rights = {.bytes = {0}};
	struct iovec iov = {(void *)(uintptr_t)m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (passed >= 0) {
		msg.msg_control = &rights;
		msg.msg_controllen = sizeof(rights);
		rights.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
		    .cmsg_level = SOL_SOCKET,
		    .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&rights.head), &passed, sizeof(passed));
	}
	do
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(*m))
		return 0;
	return n < 0 ? (errno == ECONNRESET ? -EPIPE : -errno) : -EIO;
}

int
proto_send(int fd, const struct proto_message *m)
{
	return proto_send_fd(fd, m, -1);
}

static int
taken_fd(struct msghdr *msg)
{
	struct cmsghdr *head = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}

int
proto_recv_fd(int fd, struct proto_message *ret, int *ret_fd)
{
	struct proto_message m;
	union rights rights;
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = &rights,
	    .msg_controllen = sizeof(rights)};
	ssize_t n;

	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return 0;
	if (n < 0)
		return -errno;
	int passed = taken_fd(&msg);
	if (n != (ssize_t)sizeof(m)) {
		if (passed >= 0)
			close(passed);
		return -EBADMSG;
	}
	*ret = m;
	*ret_fd = passed;
	return 1;
}

int
proto_recv(int fd, struct proto_message *ret)
{
	int passed, got = proto_recv_fd(fd, ret, &passed);

	if (got == 1 && passed >= 0)
		close(passed);
	return got;
}
