/*
 * listen_refuse - two ways to shut the door for a SYN, and for nothing else.
 *
 * A classic BPF program on the socket: accepted sockets inherit it, and never see a SYN without an
 * ACK. Newer kernels want CAP_NET_ADMIN for it on TCP.
 *
 * A device that does not exist, for anybody since Linux 5.7: the socket is not found by a SYN. A
 * handshake that has begun has the device of its own request, and ends in the queue.
 */
#include "master/listen_refuse.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>

#include "common/check.h"
#include "common/log.h"

enum { FLAGS_AT = 13, FLAG_SYN = 0x02, FLAG_ACK = 0x10 }; /* RFC 9293, 3.1 */

enum { NO_DEVICE = INT_MAX };

static bool
filter(int fd)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT), /* from the TCP header on */
	    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FLAG_SYN | FLAG_ACK),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FLAG_SYN, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	    BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = {ARRAY_LEN(code), code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0;
}

static bool
bind_to_device(int fd, int index)
{
	return setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof(index)) == 0;
}

void
listen_refuse_tcp(int fd)
{
	if (!filter(fd) && !bind_to_device(fd, NO_DEVICE))
		log_warn("listener not shut error=\"%s\"", strerror(errno));
}

bool
listen_let_in_tcp(int fd)
{
	int unused = 0, index = 0;
	socklen_t len = sizeof(index);

	setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
	if (getsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, &len) != 0 || index != NO_DEVICE)
		return true;
	return bind_to_device(fd, 0);
}
