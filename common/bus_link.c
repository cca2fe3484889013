/* bus_link - sockets, packets, pieces. */
#include "common/bus_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/check.h"
#include "common/err.h"

#define HELLO_MAGIC 0x50425553u

struct hello {
	uint32_t magic;
	struct shm_who who;
};

struct piece {
	uint32_t message_len, offset;
	uint16_t type, zero;
};

struct entry {
	struct list node;
	uint32_t len, sent;
	uint16_t type;
	bool is_begun; /* an empty message has nothing sent and yet something to send */
	char bytes[];
};

int
bus_link_listen(char name[SHM_BUS_NAME_MAX], size_t *ret_len)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(at);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	/* Nothing but the family: the kernel picks a free abstract name. Every incarnation
	 * connects once, so the backlog holds them all. */
	if (bind(fd, (struct sockaddr *)&at, sizeof(at.sun_family)) != 0 || listen(fd, 4096) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	*ret_len = len - offsetof(struct sockaddr_un, sun_path) - 1;
	check(at.sun_path[0] == '\0' && *ret_len > 0 && *ret_len <= SHM_BUS_NAME_MAX);
	memcpy(name, at.sun_path + 1, *ret_len);
	return fd;
}

static bool
peer_of(int fd, struct ucred *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0 &&
	       (ret->uid == geteuid() || ret->uid == 0);
}

bool
bus_link_is_trusted(int fd, int pid)
{
	struct ucred peer;

	return peer_of(fd, &peer) && peer.pid == pid;
}

bool
bus_link_is_known(const struct shm *shm, int fd)
{
	struct shm_row_info info;
	struct ucred peer;

	if (!peer_of(fd, &peer))
		return false;
	for (uint32_t row = 0; row < shm_rows_used(shm); row++) {
		if (shm_row_get(shm, row, &info) && info.pid == peer.pid)
			return true;
	}
	return false;
}

int
bus_link_connect(const struct shm_row_info *peer, struct shm_who me)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct hello hello = {HELLO_MAGIC, me};
	int err;

	if (peer->bus_name_len == 0)
		return E_GONE;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return E_BUSY;
	memcpy(at.sun_path + 1, peer->bus_name, peer->bus_name_len);
	socklen_t len =
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + peer->bus_name_len);
	if (connect(fd, (struct sockaddr *)&at, len) != 0)
		err = errno == EAGAIN ? E_BUSY : E_GONE;
	else if (!bus_link_is_trusted(fd, peer->pid))
		err = E_GONE;
	else if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == (ssize_t)sizeof(hello))
		return fd;
	else
		err = errno == ENOBUFS || errno == ENOMEM ? E_BUSY : E_GONE;
	close(fd);
	return err;
}

/* One piece; its bytes, or -errno. */
static ssize_t
send_piece(int fd, uint16_t type, struct str message, uint32_t offset)
{
	struct piece head = {(uint32_t)message.len, offset, type, 0};
	size_t left = message.len - offset, n = left < BUS_PIECE_MAX ? left : BUS_PIECE_MAX;
	struct iovec iov[2] = {{&head, sizeof(head)}, {(char *)(uintptr_t)message.p + offset, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n > 0 ? 2 : 1};
	ssize_t sent;

	do
		sent = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
	return (ssize_t)n;
}

/* 0: all of it; -EAGAIN: not yet; E_GONE. */
static int
send_pieces(int fd, uint16_t type, struct str message, uint32_t *sent, bool *is_begun)
{
	while (!*is_begun || *sent < message.len) {
		ssize_t n = send_piece(fd, type, message, *sent);

		if (n < 0)
			return n == -EAGAIN ? -EAGAIN : E_GONE;
		*sent += (uint32_t)n;
		*is_begun = true;
	}
	return 0;
}

void
bus_queue_init(struct bus_queue *q)
{
	list_init(&q->entries);
	q->bytes = 0;
}

void
bus_queue_fini(struct bus_queue *q)
{
	list_for_safe (node, &q->entries) {
		list_del(node);
		free(list_entry(node, struct entry, node));
	}
	q->bytes = 0;
}

int
bus_queue_send(struct bus_queue *q, int fd, uint16_t type, struct str payload)
{
	uint32_t sent = 0;
	bool is_begun = false;

	if (list_empty(&q->entries)) {
		int err = send_pieces(fd, type, payload, &sent, &is_begun);

		if (err != -EAGAIN)
			return err;
	}
	struct entry *e = xmalloc(sizeof(*e) + payload.len);
	*e = (struct entry){
	    .len = (uint32_t)payload.len, .sent = sent, .type = type, .is_begun = is_begun};
	if (payload.len > 0)
		memcpy(e->bytes, payload.p, payload.len);
	list_add_tail(&q->entries, &e->node);
	q->bytes += sizeof(*e) + payload.len;
	return 0;
}

int
bus_queue_flush(struct bus_queue *q, int fd)
{
	struct entry *e;

	while ((e = list_first(&q->entries, struct entry, node)) != NULL) {
		int err =
		    send_pieces(fd, e->type, str_sub(e->bytes, e->len), &e->sent, &e->is_begun);

		if (err != 0)
			return err == -EAGAIN ? 0 : err;
		q->bytes -= sizeof(*e) + e->len;
		list_del(&e->node);
		free(e);
	}
	return 0;
}

int
bus_link_recv(int fd, char packet[BUS_PACKET_MAX], size_t *ret_len)
{
	ssize_t n;

	do
		n = recv(fd, packet, BUS_PACKET_MAX, MSG_DONTWAIT | MSG_TRUNC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0 || n > BUS_PACKET_MAX)
		return E_GONE;
	*ret_len = (size_t)n;
	return 1;
}

bool
bus_link_parse_hello(const char *packet, size_t len, struct shm_who *ret)
{
	struct hello hello;

	if (len != sizeof(hello))
		return false;
	memcpy(&hello, packet, sizeof(hello));
	*ret = hello.who;
	return hello.magic == HELLO_MAGIC && hello.who.number != 0;
}

int
bus_reassembly_add(struct bus_reassembly *r, const char *packet, size_t len, uint16_t *ret_type,
    struct str *ret_payload)
{
	struct piece head;

	if (len < sizeof(head))
		return E_GONE;
	memcpy(&head, packet, sizeof(head));
	struct str bytes = str_sub(packet + sizeof(head), len - sizeof(head));
	if (head.message_len > BUS_MESSAGE_MAX || head.offset != r->bytes.len ||
	    bytes.len > head.message_len - head.offset ||
	    (head.offset > 0 && (head.message_len != r->message_len || head.type != r->type)) ||
	    (bytes.len == 0 && head.message_len > 0))
		return E_GONE;
	*ret_type = head.type;
	if (head.offset == 0 && bytes.len == head.message_len) {
		*ret_payload = bytes;
		return 1;
	}
	r->message_len = head.message_len;
	r->type = head.type;
	buf_add_str(&r->bytes, bytes);
	if (r->bytes.len < r->message_len)
		return 0;
	*ret_payload = buf_str(&r->bytes);
	return 1;
}

void
bus_reassembly_fini(struct bus_reassembly *r)
{
	buf_fini(&r->bytes);
	r->message_len = 0;
}
