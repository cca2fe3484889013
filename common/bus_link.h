/*
 * bus_link - what bus.c is made of: packets over one SEQPACKET connection.
 *
 * A connection carries messages in one direction, from who connected to who
 * accepted; between two incarnations that both talk there are two. The first packet is
 * a hello, every other one a piece of a message:
 *
 *   { message_len, offset, type } bytes          pieces of a message follow one another
 */
#ifndef COMMON_BUS_LINK_H
#define COMMON_BUS_LINK_H

#include "common/buf.h"
#include "common/list.h"
#include "common/shm.h"

enum { BUS_PIECE_MAX = 32 << 10 };

/* The queue of an outgoing connection. */
struct bus_queue {
	struct list entries;
	size_t bytes; /* what waits, with what it takes to hold it */
};

/* The message that an incoming connection puts together. */
struct bus_reassembly {
	struct buf bytes;
	uint32_t message_len; /* 0: none begun */
	uint16_t type;
};

/* A listening socket with a name that the kernel chose; -errno. */
int bus_link_listen(char name[SHM_BUS_NAME_MAX], size_t *ret_len);
/* Connects, checks who is there, says hello. The descriptor; E_GONE, E_BUSY. */
int bus_link_connect(const struct shm_row_info *peer, struct shm_who me);
/* Is the process at the other end one that we believe? */
bool bus_link_is_trusted(int fd, int pid);
/* Whose process is at the other end of an accepted connection; false: nobody's of this host. */
bool bus_link_is_known(const struct shm *, int fd);

void bus_queue_init(struct bus_queue *);
void bus_queue_fini(struct bus_queue *);
/* Sends what the socket takes, queues the rest. 0, or E_GONE. */
int bus_queue_send(struct bus_queue *, int fd, uint16_t type, struct str payload);
/* Goes on after the socket became writable. 0, or E_GONE. */
int bus_queue_flush(struct bus_queue *, int fd);

/* 1: a packet (of *ret_len bytes in `packet`); 0: none now; E_GONE: the end, or nonsense. */
enum { BUS_PACKET_MAX = BUS_PIECE_MAX + 16 };
int bus_link_recv(int fd, char packet[BUS_PACKET_MAX], size_t *ret_len);
bool bus_link_parse_hello(const char *packet, size_t len, struct shm_who *ret);
/* 1: a message is whole (borrowed until the next call); 0: more to come; E_GONE: nonsense. */
int bus_reassembly_add(struct bus_reassembly *, const char *packet, size_t len, uint16_t *ret_type,
    struct str *ret_payload);
void bus_reassembly_fini(struct bus_reassembly *);

#endif
