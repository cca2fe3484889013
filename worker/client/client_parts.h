/*
 * client_parts - what client.c, pool.c and transfer.c share. Not for others.
 *
 *   client.c    libcurl's multi handle on the loop: its turns, its timer, what has ended
 *   socket.c    the descriptors that it uses: what is waited for
 *   pool.c      places, those who wait for one, idle connections
 *   transfer.c  one request: from the easy handle's options to the outcome
 *
 * libcurl forbids most verbs while it is on the stack (in one of our callbacks).
 * What would call one of them then is put in a list and done by client_settle().
 */
#ifndef WORKER_CLIENT_CLIENT_PARTS_H
#define WORKER_CLIENT_CLIENT_PARTS_H

#include <curl/curl.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/idmap.h"
#include "common/list.h"
#include "worker/client/client.h"
#include "worker/loop/reader.h"

enum {
	EASIES_KEPT = 16,
	RESUMES_PER_ROUND = 32,   /* each may read and give what fills its queue */
	RECEIVE_BUFFER = 4 << 10, /* per running transfer; events are small */
};

struct client {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timer; /* libcurl's */
	struct loop_post settle;
	struct loop_timer resume;
	struct idmap *transfers;
	struct list doomed;   /* cancelled while libcurl was on the stack */
	struct list resuming; /* by resume_node */
	struct list pools;
	struct client_socket **sockets; /* by descriptor */
	size_t socket_cap;
	unsigned curl_depth; /* libcurl is on the stack */
	uint64_t turn;       /* how often it was given control */
	size_t turn_bytes;   /* of bodies, since then */
	char *ca_file;
};

/* A descriptor that libcurl uses: a connection, or a resolver's pair (then pool is NULL). */
struct client_socket {
	struct loop_watch watch; /* its fd is the descriptor, also while the reader waits */
	struct loop_reader reader;
	uint32_t events; /* that libcurl waits for */
	struct client *client;
	struct client_pool *pool;
	uint64_t transfer;   /* the last that used it */
	ino_t inode;         /* tells it from a later one of the same number */
	bool is_connection;  /* opened by us, freed when libcurl closes it */
	bool is_established; /* a request was sent on it */
	bool is_unwanted;    /* still watched, but libcurl does not wait for it: it idles */
	struct list idle_node;
	uint64_t idle_since_ms;
};

struct client_pool {
	struct client *client;
	struct list node;
	struct client_pool_conf conf;
	char *name;
	uint32_t in_use, waiting_count, idle_count;
	struct list waiting; /* transfers, first come first served */
	struct list idle;    /* sockets, the oldest first */
	struct loop_timer trim;
	CURL *easies[EASIES_KEPT];
	uint32_t easy_count;
};

enum transfer_phase {
	TRANSFER_WAITING, /* for a place: pool_timeout */
	TRANSFER_CONNECT, /* libcurl's own timeout, which it needs to try several addresses */
	TRANSFER_SEND,    /* write_timeout between pieces of the body */
	TRANSFER_FIRST,   /* first_byte_timeout */
	TRANSFER_BODY,    /* stall_timeout between pieces */
};

struct transfer {
	struct list node;        /* pool->waiting or client->doomed */
	struct list resume_node; /* client->resuming */
	struct client *client;
	struct client_pool *pool;
	uint64_t handle; /* 0: cancelled */
	struct client_handlers handlers;
	void *arg;

	CURL *easy; /* NULL: waits for a place */
	char *method, *url, *keeps;
	struct curl_slist *headers;
	struct buf body;
	size_t body_sent;

	enum transfer_phase phase;
	uint64_t phase_ms; /* when it began or last made progress */
	uint64_t total_due_ms, started_ms;
	uint32_t first_byte_timeout_ms, stall_timeout_ms;
	struct loop_timer timer;

	bool refuses_private, was_refused; /* the address */
	bool is_paused;
	uint64_t turn; /* the client's, when turn_bytes came */
	size_t turn_bytes;
	bool has_head;
	struct client_head head; /* its texts point into head_text */
	char head_text[3][128];
	char *kept; /* NULL: nothing */
	char error[CURL_ERROR_SIZE];
};

/* client.c */
void client_settle_soon(struct client *);
void client_action(struct client *, curl_socket_t fd, int what); /* libcurl's turn */

/* socket.c */
struct client_socket *client_socket_add(struct client *, int fd);
void client_socket_free(struct client_socket *);
void client_may_ask(struct client *); /* libcurl has its turn; NULL: no more */
int client_on_socket(CURL *, curl_socket_t fd, int what, void *client, void *unused);
int client_close_socket(void *client, curl_socket_t fd);

/* pool.c */
void pool_enqueue(struct transfer *);   /* starts it when there is a place and libcurl permits */
void pool_leave(struct transfer *);     /* out of the queue, or gives the place back */
void pool_note_wait(struct transfer *); /* it has ended */
void pool_dispatch(struct client_pool *);
CURL *pool_take_easy(struct client_pool *);
void pool_give_easy(struct client_pool *, CURL *);
void pool_idle_add(struct client_pool *, struct client_socket *);
void pool_idle_remove(struct client_socket *);

/* transfer.c */
void transfer_launch(struct transfer *);
void transfer_wait(struct transfer *); /* its timer, for the present phase */
void transfer_complete(struct transfer *, CURLcode);
void transfer_free(struct transfer *); /* whatever its state, no callback; not with libcurl on the
					* stack unless it waits */
void transfer_constant_options(CURL *, struct client_pool *);

#endif
