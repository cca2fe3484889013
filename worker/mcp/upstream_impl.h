/*
 * upstream_impl - what the files of upstreams share: the worker's upstreams, one of them, one call,
 * the transports. Nobody else includes it.
 *
 *   upstreams.c   all of them: life, views, the verbs of upstream.h
 *   call.c        calls: from asked to answered, whatever carries them
 *   upstream.c    the machine of one upstream: era, handshake, back-off
 *   listing.c     its lists: pages, changes, refreshing
 *   http_link.c   carries over HTTP: one POST for each call, streams
 *   http_feed.c   the bytes of an HTTP answer on their way to messages
 *   stdio.c       the connection to the master, who has the pipes
 *   stdio_link.c  carries over pipes, where this worker was given them
 *   news.c        resources that are watched, and what it logs
 *   question.c    what an older server asks of the client whose request it is at
 *   errands.c     of programs that another worker was given: what it says of them
 *   errand_call.c  carries to that one, and is its other end
 */
#ifndef WORKER_MCP_UPSTREAM_IMPL_H
#define WORKER_MCP_UPSTREAM_IMPL_H

#include "common/buf.h"
#include "common/check.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "worker/mcp/upstream.h"

enum { CALL_BUCKETS = 64, CALL_ID_MAX = 24 };

/*
 *   OFF        WAIT -> PROBE -> INIT -> LIST -> READY        a failure anywhere: PAUSE -> WAIT
 *                |       |       ^  \
 *                |       +-------+   +-> FALLBACK -> INIT    (HTTP+SSE of 2024-11-05)
 *                +-> FOLLOW                                  another worker speaks to it
 */
enum step {
	STEP_OFF,
	STEP_WAIT,
	STEP_PROBE,
	STEP_INIT,
	STEP_FALLBACK,
	STEP_LIST,
	STEP_READY,
	STEP_PAUSE,
	STEP_FOLLOW
};

struct upstream;
struct call;

/* Before a stream that has ended is asked for again: longer each time, but for one that lasted. */
struct stream_pause {
	uint64_t opened_ms, next_ms;
};

/* How messages travel. None of them calls back from inside. */
struct transport {
	/* From WAIT: upstream_connected() follows, or upstream_failed(). */
	void (*begin)(struct upstream *);
	void (*send)(struct call *); /* call_format() is what is to be sent */
	/* Nobody waits for the answer any more: the server is told, and nothing comes. */
	void (*abandon)(struct call *);
	void (*release)(struct call *); /* it was answered, and is freed; may be NULL */
	/* A message that is no request. is_awaited: upstream_notified() when it has arrived. */
	void (*notify)(struct upstream *, struct str message, bool is_awaited);
	void (*listen)(struct upstream *); /* for what a legacy server says unasked; may be NULL */
	void (*end)(struct upstream *);    /* the connection is given up; calls are not */
	void (*leave)(struct upstream *);  /* .. for good; may be NULL */
	/* It has not answered in the handshake. A process that was given its time goes. */
	void (*hang)(struct upstream *); /* may be NULL */
	void (*fini)(struct upstream *);
};
extern const struct transport http_transport, stdio_transport;

struct mcp_upstreams {
	struct mcp_upstreams_of of;
	struct upstream **all; /* by index in the config */
	size_t count;
	struct idmap *calls;
	size_t call_count; /* without our own */
	size_t leaving;    /* servers that are being told */
	struct list watchers;
	struct mcp_view *views[MCP_KIND_COUNT];
	struct list old_views; /* until the loop turns */
	struct loop_post drop_views, settled;
	void (*on_settled)(void *arg); /* NULL: nobody waits */
	void *settled_arg;
	struct stdio *stdio;     /* NULL: no server with a command */
	struct errands *errands; /* likewise */
	mcp_on_news *on_news;    /* NULL: nobody listens */
	void *news_arg;
	const char *log_level; /* NULL: none was asked for */
};

struct upstream {
	struct mcp_upstreams *all;
	size_t index;
	const struct conf_mcp_server *conf;
	const struct transport *transport;
	struct http_link *http;        /* of that transport */
	struct stdio_link *pipes;      /* of that transport */
	struct backplane_addr speaker; /* in FOLLOW */
	unsigned label;                /* of metrics */
	enum step step;
	bool is_settled; /* it was ready, or has failed, once */
	bool has_failed; /* its last attempt: what follows is logged quietly */
	struct loop_timer pause_timer;
	uint64_t backoff_ms; /* the next one */
	uint64_t ready_ms;   /* since when it is READY, or was last */
	bool is_forgetful;   /* its sessions do not last: the back-off goes on */

	/* What is remembered from one connection to the next. */
	enum mcp_revision verdict; /* modern, or any legacy one; NONE: ask */
	uint64_t verdict_ms;
	bool is_fallback; /* HTTP+SSE */

	/* What it has said of itself. */
	enum mcp_revision revision;
	struct buf server_info, capabilities, instructions;

	/* Calls. */
	uint64_t next_id;
	struct list waiting; /* until it is ready */
	struct list sent[CALL_BUCKETS];
	uint32_t call_count;
	uint64_t unclear_until_ms; /* question.c: it may be at a request that was given up */

	/* Lists. */
	struct mcp_list *lists[MCP_KIND_COUNT];
	struct mcp_list *listing; /* being read */
	enum mcp_kind listing_kind;
	unsigned listing_pages;
	uint32_t to_list; /* kinds, as bits */
	uint64_t list_call, listen_call, handshake_call;
	struct loop_timer relist_timer, refresh_timer, listen_timer, retry_timer;
	struct stream_pause listen_pause;
	uint32_t to_retry;         /* kinds that could not be read, as bits */
	uint64_t retry_backoff_ms; /* the next one; 0: the first */
	uint64_t doubted_ms;       /* when it was asked last whether it knows its session */

	/* News. */
	struct list watched;
	uint64_t watch_call; /* modern: the stream that tells of them */
	uint64_t drop_call;  /* legacy: one is taken back that nobody here has asked for */
	struct loop_timer watch_timer;
	struct stream_pause watch_pause;
	bool is_pausing; /* that is what the timer is set for */
};

struct call {
	struct list node;
	struct upstream *upstream;
	uint64_t handle; /* 0: nobody waits any more */
	uint64_t number; /* the id on the wire */
	char id[CALL_ID_MAX];
	char *method;
	struct buf params;
	struct buf tool; /* params.name, uri or taskId: Mcp-Name */
	bool wants_progress, is_ours, is_sent, was_repeated;
	bool is_errand; /* another worker's, who counts it */
	bool is_late;
	uint64_t asked_us;
	uint64_t heard; /* stdio_link.c: how often it had been heard when this was sent */
	struct mcp_handlers handlers;
	void *arg;
	struct loop_timer timer;
	struct loop_post post; /* failed at once */
	int err;
	uint32_t timeout_ms;
	uint64_t until_ms, left_ms;    /* its time, while it runs and while it stands still */
	int status;                    /* of the HTTP answer; 0: none */
	struct feed_in *feed;          /* http_feed.c: the transfer that carries it; NULL: none */
	bool is_relayed;               /* another worker was given it .. */
	struct backplane_addr carrier; /* .. this one */
	struct list questions;         /* question.c: without an answer yet */
	uint32_t question_count;       /* so far */
};

/* ---- upstreams.c ---- */

void mcp_upstreams_changed(struct mcp_upstreams *, size_t server, enum mcp_kind);
void mcp_upstreams_settled(struct mcp_upstreams *); /* one more of them */

/* ---- call.c ---- */

/* Our own, in any step. timeout_ms 0: none. */
uint64_t call_ask(struct upstream *, const char *method, struct str params, uint32_t timeout_ms,
    const struct mcp_handlers *, void *arg);
struct call *call_by_handle(struct mcp_upstreams *, uint64_t handle);
/* One message of the server. call: on whose own stream it came; NULL: on a shared one. */
void call_take(struct upstream *, struct call *, struct str text);
/* The only one that was sent for somebody else; NULL: none, or several. */
struct call *call_only(struct upstream *);
void call_format(const struct call *, struct buf *); /* as a request, in the server's form */
void call_answer(struct call *, const struct jsonrpc *);
void call_fail(struct call *, int err, const char *why);
void call_late(struct call *); /* its time is up: abandoned, if it was sent; it is still to fail */
/* How long a request to it may take, unless it says otherwise. */
uint32_t call_default_timeout_ms(const struct upstream *);
void call_fail_soon(struct call *, int err); /* from inside of a transport's verb */
void call_repeat(struct call *);     /* it was not done: once more when the upstream is ready */
void calls_flush(struct upstream *); /* those that wait are sent */
void calls_fail_waiting(struct upstream *, int err, const char *why);
void calls_fail_sent(struct upstream *, int err, const char *why);
void calls_drop(struct upstream *); /* silently */

/* ---- upstream.c ---- */

struct upstream *upstream_new(struct mcp_upstreams *, size_t index);
void upstream_free(struct upstream **);
void upstream_start(struct upstream *);
void upstream_enter(struct upstream *, enum step);
bool upstream_is_modern(const struct upstream *);
void upstream_connected(struct upstream *); /* transport: messages can be sent */
void upstream_notified(struct upstream *);
void upstream_failed(struct upstream *, const char *why); /* it is tried again later */
/* How long to wait now. next_ms: the next time; 0: it has not been waited yet. */
uint64_t upstream_back_off_ms(const struct upstream *, uint64_t *next_ms);
void upstream_greeted(struct upstream *); /* .. and it was greeted before; revision is set */
void upstream_restart(struct upstream *); /* transport: another connection, or none */
void upstream_follow(struct upstream *);  /* errands.c: another worker speaks to it */
void upstream_leave(struct upstream *);
/* A request was told so, perhaps one of ours. Begins anew: at once, if the session has lasted, or
 * somebody has a use for it. */
void upstream_session_lost(struct upstream *, bool was_ours);
void upstream_listed(struct upstream *); /* listing.c: all lists were read */
/* A legacy server asks or says something that belongs to no call. */
void upstream_asked(struct upstream *, const struct jsonrpc *);
bool upstream_has_capability(const struct upstream *, const char *name, bool with_changes);

/* ---- stdio.c ---- */

struct stdio *stdio_new(struct mcp_upstreams *);
void stdio_free(struct stdio **);
void stdio_leave(struct stdio *);                   /* the master may give all pipes to others */
void stdio_want(struct stdio *, struct upstream *); /* once */
void stdio_tell_era(struct stdio *, const struct upstream *); /* what was found out */
/* The program does not answer: the master ends it and starts another. */
void stdio_ask_restart(struct stdio *, const struct upstream *, uint64_t life);

/* ---- stdio_link.c ---- */

void stdio_link_new(struct upstream *);
/* The descriptors are its own now. */
void stdio_link_given(struct upstream *, uint64_t life, uint32_t value, const int fds[2]);
void stdio_link_gone(struct upstream *, uint64_t life);
bool stdio_link_has_pipes(const struct upstream *);
/* .. and somebody has asked it for things before us. */
bool stdio_link_is_taken_over(const struct upstream *);
/* Of one whose pipes we have: nobody waits for the answer to the request of that id. */
void stdio_link_stop(struct upstream *, struct str id);
uint64_t stdio_link_program(const struct upstream *); /* pipes_program() */

/* ---- errands.c ---- */

struct errands *errands_new(struct mcp_upstreams *);
void errands_free(struct errands **);
void errands_ask(struct errands *);       /* all workers of the host: who speaks? */
void errands_announce(struct upstream *); /* we do, and it is so */
/* We do no longer, for good. all->leaving counts whom we wait for: what they had given us before
 * they heard of it has been refused then, and goes to another. */
void errands_leave(struct upstream *);
void errands_watch(struct upstream *, struct str uri, bool is_on); /* by who speaks */
void errands_tell(struct upstream *, const struct jsonrpc *);      /* by who does, to all others */

/* ---- errand_call.c ---- */

void errands_send(struct call *);
void errands_abandon(struct call *);
void errands_answer(struct call *, uint64_t question, const struct jsonrpc *answer);

/* ---- news.c ---- */

void news_init(struct upstream *);
void news_fini(struct upstream *);
void news_ready(struct upstream *); /* it is connected, or another worker is */
void news_stop(struct upstream *);
void news_take(struct upstream *, const struct jsonrpc *);
bool news_is_of_resource(const struct jsonrpc *);
void news_watch_for(struct upstream *, struct backplane_addr, struct str uri, bool is_on);
void news_forget(struct upstream *, struct backplane_addr); /* that worker is gone */

/* ---- question.c ---- */

/* c: on whose stream it came; NULL: on none. False: nobody can be asked. */
bool question_take(struct upstream *, struct call *, const struct jsonrpc *);
/* The worker that has the call was asked that by the server, under a number of its own. */
void question_relayed(struct call *, uint64_t number, const struct jsonrpc *);
void questions_drop(struct call *);
/* notifications/cancelled: it was one of its questions, or nothing that we know. */
void question_withdraw(struct upstream *, const struct jsonrpc *);
void question_withdrawn_there(struct call *, uint64_t number); /* likewise, of a relayed one */
/* Whose is it that comes on a stream which requests share? NULL: it is not clear. */
struct call *question_whose(struct upstream *);
/* For so long it may still be at a request that nobody waits for any more. */
void questions_unclear(struct upstream *, uint64_t for_ms);
/* {"sampling":{}, ..}: what we say that clients can be asked for. */
void question_add_capabilities(const struct upstream *, struct buf *);

/* ---- listing.c ---- */

void listing_begin(struct upstream *, uint32_t kinds); /* bits; those that it has */
void listing_stop(struct upstream *);
void listing_changed(struct upstream *, const char *method); /* a notification */
void listing_follow(struct upstream *); /* it is ready: to be told of changes */
/* It refused a request as one that names no session of its own: it is asked for a list that it has
 * given before. */
void listing_doubt(struct upstream *);
void listing_stream_opened(struct upstream *, struct stream_pause *);
uint64_t listing_stream_pause_ms(struct upstream *, struct stream_pause *); /* it has ended */
/* Takes the list; NULL: it has none. */
void listing_set(struct upstream *, enum mcp_kind, struct mcp_list *);
enum { LISTING_ALL = (1 << MCP_KIND_COUNT) - 1 };

#endif
