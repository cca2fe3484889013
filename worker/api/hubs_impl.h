/*
 * hubs_impl - what the files of /hubs share. Nobody else includes it.
 *
 *   hubs.c       all connections; one from its handshake to its end; what it hears
 *   hubs_call.c  what a client may call
 *   hubs_toll.c  what of that counts against the limits of keys
 *   hubs_door.c  requests become connections, or go to the one they are of
 */
#ifndef WORKER_API_HUBS_IMPL_H
#define WORKER_API_HUBS_IMPL_H

#include "common/check.h"
#include "common/idmap.h"
#include "common/strmap.h"
#include "worker/api/hubs.h"
#include "worker/api/key_watch.h"
#include "worker/api/toll.h"
#include "worker/api/ws_door.h"
#include "worker/events/hub_shape.h"
#include "worker/events/signalr.h"
#include "worker/loop/wheel.h"
#include "worker/sse/sse.h"

/* The last event as a record: many connections are told the same. */
struct hub_record {
	uint64_t host, number;
	enum hub hub;
	struct buf bytes; /* empty: the hub does not tell it */
	struct ws_out *out;
};

struct hubs {
	struct api *api;
	struct ws_door door;
	struct list all;     /* struct hub_conn */
	size_t count, polls; /* polls: by HUB_BY_POLL, which hold no place between two of them */
	struct idmap *conns; /* the same, by handle */
	struct strmap *ids;  /* .. those with a token, by it */
	struct idmap *subs;  /* struct hub_sub */
	struct tolls tolls;
	struct hub_record record;
	struct loop_timer drain_step;
};

enum hub_carrier { HUB_BY_SOCKET, HUB_BY_STREAM, HUB_BY_POLL };

/* Where a long poll waits. */
struct hub_poll {
	bool is_there;
	uint64_t http; /* here, or */
	struct backplane_addr from;
	uint64_t call_id; /* at another worker; 0: here */
	uint64_t number;  /* what it is called there */
};

struct hub_conn {
	struct list node;
	struct hubs *hubs;
	uint64_t handle;
	struct key_hold key;
	struct limiter_key rate_own; /* of a socket: as rate_of_key() says for its address */
	struct wheel_entry beat;
	uint64_t made_ms, heard_ms, said_ms;
	struct list subs, waits; /* struct hub_sub, struct hub_wait */
	char *app_id;            /* NULL: an admin's */
	char *token;             /* NULL: a socket without */
	struct buf partial;      /* of a record that is not whole yet */
	uint16_t sub_count, stream_count;
	uint16_t checking;          /* topics, and statistics, that the record is being asked for */
	uint16_t paying;            /* calls that wait for the limits of the key */
	uint8_t kind, hub, carrier; /* enum key_kind, .. */
	bool has_shaken, is_ending, is_slow;
	union {
		struct ws_socket ws;
		struct sse *sse;
		struct {
			struct hub_poll poll;
			struct buf out;
			uint64_t since_ms; /* it waits, or nobody asks */
		} lp;
	} by;
};

/* A stream that a client has asked for and that is not there yet: it may be cancelled before.
 * Embedded in what stands for it meanwhile, zeroed; that ends it, or outlives the connection. */
struct hub_wait {
	struct list node;
	const char *invocation_id; /* borrowed */
	bool is_cancelled;
};

/* A topic that a connection hears, or a stream of it. */
struct hub_sub {
	struct list node;
	struct hub_conn *conn;
	struct events_sub sub;
	uint64_t handle;
	char *topic;
	char *
	    invocation_id; /* to be completed when it is there; of a stream: its name. NULL: none */
	bool is_stream;
};

/* ---- hubs.c ---- */

struct hub_conn_of {
	enum hub hub;
	enum hub_carrier carrier;
	const struct principal *who;
	const char *token;   /* NULL: none */
	const char *network; /* of a socket: http_client_network() */
};
struct hub_conn *hub_conn_new(struct hubs *, const struct hub_conn_of *);
struct hub_conn *hub_conn_find(struct hubs *, struct str token); /* NULL: none here */
void hub_conn_open_socket(
    struct hub_conn *, struct http_req *, const char *accept, const char *protocol);
void hub_conn_open_stream(struct hub_conn *, struct http_req *);
/* Bytes of the client. Afterwards the connection may be gone. */
void hub_conn_hear(struct hub_conn *, struct str bytes);
void hub_conn_say(struct hub_conn *, struct str records);
/* It is told why, and ends; error NULL: for no fault. A socket is gone a little later. */
void hub_conn_end(struct hub_conn *, const char *error, bool may_reconnect);
/* What there is for it, now or in a while; one that waited already is answered with nothing. */
void hub_conn_poll(struct hub_conn *, struct hub_poll);
/* The client of that poll, which came to another worker, has gone. */
void hub_conn_left(struct hub_conn *, struct backplane_addr from, uint64_t number);
/* Its client wants nothing more: it ends at once, whatever was to be said. */
void hub_conn_delete(struct hub_conn *);

/* A topic is subscribed to; the completion of invocation_id (NULL: none) follows when it is. */
void hub_sub_new(struct hub_conn *, const char *topic, const char *invocation_id, bool is_stream);
void hub_sub_free(struct hub_sub *);
struct hub_sub *hub_sub_find(struct hub_conn *, const char *topic); /* not a stream */
struct hub_sub *hub_stream_find(struct hub_conn *, const char *invocation_id);
void hub_complete(
    struct hub_conn *, const char *invocation_id, const char *error, struct str result);

/* ---- hubs_call.c ---- */

void hub_call(struct hub_conn *, const struct signalr_message *);
void hub_wait_begin(struct hub_conn *, struct hub_wait *, const char *invocation_id);
static inline void
hub_wait_end(struct hub_wait *w)
{
	list_del(&w->node); /* it never began: nothing happens */
}
void hub_invoke(struct hub_conn *, const struct signalr_message *); /* it is paid for */

/* ---- hubs_toll.c ---- */

/* hub_invoke() follows, or a completion with the refusal. Of one connection events.max_topics at
 * once. */
void hub_toll_invoke(struct hub_conn *, const struct signalr_message *);

/* ---- hubs_door.c ---- */

void hubs_door_init(struct hubs *);
/* Answers a long poll: 200 with records, or with none; 204: it has ended. */
void hub_poll_answer(struct hubs *, const struct hub_poll *, int status, struct str records);

#endif
