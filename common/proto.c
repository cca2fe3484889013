/* proto - one message is one packet; a packet of another size is no message of ours. */
#include "common/proto.h"

#include <errno.h>
#include <sys/socket.h>

int
proto_send(int fd, const struct proto_message *m)
{
	ssize_t n;

	do
		n = send(fd, m, sizeof(*m), MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(*m))
		return 0;
	return n < 0 ? (errno == ECONNRESET ? -EPIPE : -errno) : -EIO;
}

int
proto_recv(int fd, struct proto_message *ret)
{
	struct proto_message m;
	ssize_t n;

	do
		n = recv(fd, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return 0;
	if (n < 0)
		return -errno;
	if (n != (ssize_t)sizeof(m))
		return -EBADMSG;
	*ret = m;
	return 1;
}
