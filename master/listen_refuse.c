/* listen_refuse - a classic BPF program on the socket: accepted sockets inherit it, and never see
 * a SYN without an ACK. */
#include "master/listen_refuse.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>

#include "common/check.h"
#include "common/log.h"

enum { FLAGS_AT = 13, FLAG_SYN = 0x02, FLAG_ACK = 0x10 }; /* RFC 9293, 3.1 */

void
listen_refuse_tcp(int fd)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT), /* from the TCP header on */
	    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FLAG_SYN | FLAG_ACK),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FLAG_SYN, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	    BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = {ARRAY_LEN(code), code};

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0)
		log_warn("listener not shut error=\"%s\"", strerror(errno));
}

void
listen_let_in_tcp(int fd)
{
	int unused = 0;

	setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
}
