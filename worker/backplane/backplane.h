/*
 * backplane - calls between workers: of this host over the bus, of other hosts over Redis where one
 * is configured. Messages within the host never travel through Redis.
 *
 * A service registers the methods that it answers. A call goes to one address
 * and has exactly one outcome: an answer, or an error, or the time limit.
 */
#ifndef WORKER_BACKPLANE_BACKPLANE_H
#define WORKER_BACKPLANE_BACKPLANE_H

#include "common/buf.h"
#include "common/bus.h"
#include "common/conf.h"
#include "common/id.h"
#include "common/shm.h"
#include "common/str.h"
#include "worker/loop/loop.h"

struct backplane;
struct redis;

struct backplane_addr {
	uint64_t host; /* shm_host_id() */
	struct shm_who who;
};

/* What crosses it: one line for every method of every module. */
enum backplane_method {
	BACKPLANE_REPLY,       /* its own */
	BACKPLANE_STORE_RUN,   /* store: run an operation in the elected writer */
	BACKPLANE_TURN_ATTACH, /* turn: follow a feed */
	BACKPLANE_TURN_DETACH,
	BACKPLANE_TURN_EVENTS, /* turn: owner to listener */
	BACKPLANE_TURN_CANCEL,
	BACKPLANE_TURN_STATE, /* turn: state and pending tool calls */
	BACKPLANE_TOOL_RESULT,
	BACKPLANE_SESSION_TURN, /* turn: one has begun */
	BACKPLANE_KEYS_CHANGED, /* keys: one was revoked on another host */
	BACKPLANE_PEER_GONE,    /* its own: a worker of the sender's host is dead */
	BACKPLANE_MCP_ASK,      /* mcp: who speaks to tool servers? */
	BACKPLANE_MCP_STATE,    /* mcp: I do, and this is what one offers */
	BACKPLANE_MCP_CALL,     /* mcp: a request for one */
	BACKPLANE_MCP_CANCEL,   /* mcp: nobody waits for it any more */
	BACKPLANE_MCP_SAID,     /* mcp: progress of one */
	BACKPLANE_MCP_ENDED,    /* api: sessions of clients that have ended; none: which have? */
	BACKPLANE_MCP_STOP,     /* api: a client takes a request back */
	BACKPLANE_MCP_ANSWER,   /* mcp: a client's, to a question of a server */
	BACKPLANE_MCP_WATCH,    /* mcp: a resource is watched, or not any more */
	BACKPLANE_MCP_NEWS,     /* mcp: what a server says that belongs to no request */
	BACKPLANE_MCP_NOTE,     /* api: what sessions of clients want to be told; none: which? */
	BACKPLANE_MCP_REPLY,    /* api: likewise, to the worker that asks for the server */
	BACKPLANE_MCP_POST,     /* api: a message for a stream of 2024-11-05 */
	BACKPLANE_EVENTS_NEWS,  /* events: the log has some that you want */
	BACKPLANE_EVENTS_FAR,   /* events: one of another host */
	BACKPLANE_HUB_POST, /* api: what a client of a hub has sent, to who has its connection */
	BACKPLANE_WEBHOOK_WAKE, /* webhook: there is more than I take */
	BACKPLANE_TASK_WAKE,    /* task: there may be something to claim */
	BACKPLANE_TASK_CANCEL,  /* task: what you run is not wanted any more */
	BACKPLANE_MCP_STREAM,   /* api: a session of a client has a stream here, or has none */
	BACKPLANE_METHOD_COUNT = 64
};

/* NULL: no bus (logged). Freeing drops the calls under way: nobody is called back. */
struct backplane *backplane_new(struct loop *, struct shm *, struct shm_who me);
void backplane_free(struct backplane **);
/* For a worker that ends at once, with what it was at: other hosts need not wait for its lease. */
void backplane_leave(struct backplane *);
struct backplane_addr backplane_self(const struct backplane *);

/* Begins to reach other hosts, if conf has an URL; it is borrowed. It goes on for itself: nothing
 * waits until Redis is there. E_UNAVAILABLE: what conf says cannot work (logged). */
int backplane_reach(struct backplane *, const struct conf_backplane *);
struct redis *backplane_redis(struct backplane *); /* NULL: no URL */
/* Told when other hosts are reached again: what they have said meanwhile did not come. Any number;
 * never taken back. */
void backplane_on_resumed(struct backplane *, void (*on_resumed)(void *arg), void *arg);

/* An incoming call or cast. payload is borrowed. */
struct backplane_call {
	struct backplane_addr from;
	uint64_t call_id; /* 0: a cast, nobody waits */
	struct str payload;
};
typedef void backplane_handler(void *arg, const struct backplane_call *);
void backplane_serve(struct backplane *, enum backplane_method, backplane_handler *, void *arg);

/* Answers a call, now or later (copy from and call_id). err 0 or negative. */
void backplane_reply(
    struct backplane *, struct backplane_addr to, uint64_t call_id, int err, struct str payload);

/*
 * on_reply comes exactly once, from the loop, never from inside the verb: the answer, E_GONE (the
 * peer died or was dead), E_BUSY (queue full, or Redis is away), E_OWNER_UNAVAILABLE (no answer in
 * timeout_ms).
 */
typedef void backplane_on_reply(void *arg, int err, struct str payload);
void backplane_send_call(struct backplane *, struct backplane_addr to, enum backplane_method,
    struct str payload, uint32_t timeout_ms, backplane_on_reply *, void *arg);

/* No answer wanted. 0, E_GONE, E_BUSY. */
int backplane_cast(
    struct backplane *, struct backplane_addr to, enum backplane_method, struct str payload);
/* To all others. on_missed (NULL: nobody asks) is told, from inside, of each that lives and could
 * not take it: its queue was full. */
typedef void backplane_on_missed(void *arg, struct backplane_addr);
void backplane_broadcast(struct backplane *, enum backplane_method, struct str payload,
    backplane_on_missed *, void *arg);

/* The owner of a turn, a call or a session's live turn: of this host by shared memory, else as
 * Redis knows. */
bool backplane_own(struct backplane *, const struct id *); /* false: table full */
void backplane_disown(struct backplane *, const struct id *);
typedef void backplane_on_owner(void *arg, int err, struct backplane_addr); /* 0 or E_NOT_FOUND */
void backplane_find_owner(struct backplane *, const struct id *, backplane_on_owner *, void *arg);

/* Told once when an incarnation is gone: at once when we ever talked to it, else within a second,
 * also of those who died before us and have left something (shm.h); of another host when it has
 * said so, or is registered no more. Any number of watchers; never taken back (services live as
 * long as the worker). */
void backplane_on_peer_gone(
    struct backplane *, void (*on_gone)(void *arg, struct backplane_addr), void *arg);
/* One worker of this host is dead, and the record knows what it must know of that: other hosts are
 * told, as far as they can be reached, and need not wait for the end of its lease. */
void backplane_say_gone(struct backplane *, struct shm_who dead);

/* Compact payloads: integers and texts in a row, read back in the same order. */
void backplane_put_u64(struct buf *, uint64_t);
void backplane_put_str(struct buf *, struct str);
bool backplane_take_u64(struct str *rest, uint64_t *ret);   /* false: malformed */
bool backplane_take_str(struct str *rest, struct str *ret); /* borrowed from rest */

#endif
