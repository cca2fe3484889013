/*
 * mcp_impl - what the files of /mcp share. Nobody else includes it.
 *
 *   mcp.c        the routes: what was posted, of which era, and to whom it goes
 *   mcp_ask.c    one request: its life, and its answer in the client's form
 *   mcp_batch.c  several requests in one array, for clients of old revisions
 *   mcp_items.c  tools, prompts, resources: their lists, and what is asked of them
 *   mcp_question.c  what an upstream asks of the client in the course of its request
 *   mcp_round.c  .. of 2026-07-28, which asks in its result, and is called again with the answers
 *   mcp_own.c    tools of Parley itself; mcp_own_model.c, mcp_own_search.c and mcp_own_task.c are
 * such mcp_life.c   sessions of older clients: ids, those that have ended, requests taken back
 *   mcp_feed.c   the streams on which they are told what has changed
 *   mcp_lead.c   which of a session's streams is told, where it has several
 *   mcp_note.c   what older ones want to be told beside: changes of resources, log messages
 *   mcp_pair.c   the two routes of 2024-11-05: such a stream, and messages whose answers go there
 */
#ifndef WORKER_API_MCP_IMPL_H
#define WORKER_API_MCP_IMPL_H

#include "common/list.h"
#include "worker/api/call.h"
#include "worker/api/key_watch.h"
#include "worker/api/mcp.h"
#include "worker/mcp/posted.h"
#include "worker/mcp/ticket.h"
#include "worker/sse/sse.h"

struct mcp_front {
	struct api *api;
	struct list asks;
	struct loop_timer drain_end;
	struct list menus;       /* mcp_items.c */
	struct mcp_life *life;   /* mcp_life.c */
	struct mcp_feeds *feeds; /* mcp_feed.c */
	struct mcp_pairs *pairs; /* mcp_pair.c */
	struct idmap *questions; /* mcp_question.c */
	struct mcp_leads *leads; /* mcp_lead.c */
	struct mcp_notes *notes; /* mcp_note.c */
};

/*
 *   begun --> answered at once
 *     \-----> at an upstream --progress--> streaming --> answered
 *                  \-- the client has gone: the upstream is told; a client of an older
 *                      revision may go and means nothing by it
 */
struct mcp_ask {
	struct list node;
	struct mcp_front *front;
	struct api_call *call;
	struct mcp_batch *batch;    /* whose the call is then; NULL: it is the ask's */
	uint64_t session;           /* its nonce; 0: none */
	int64_t until_ms;           /* its end, wall clock */
	enum mcp_revision revision; /* the client's */
	struct str id;              /* as it was written */
	struct str params;          /* as long as the ask has not waited; may be empty */
	struct str token;           /* of progress; empty: none is wanted */
	int level;                  /* of messages that it wants, modern; MCP_LEVEL_NONE: none */
	bool takes_stream;
	bool is_paired;          /* answered on its session's stream: there is no req */
	bool is_tool;            /* whose failures a model is told */
	bool is_cacheable;       /* a modern result says for how long */
	struct sse *sse;         /* NULL: no notification has gone out */
	uint64_t upstream;       /* mcp_call()'s handle; 0: none */
	struct mcp_own *own;     /* a tool of ours is at it; NULL: none */
	uint8_t caps;            /* what an older client can be asked for; as ticket.h */
	struct list questions;   /* mcp_question.c */
	struct mcp_round *round; /* mcp_round.c; NULL: its server does not ask that way */
	struct loop_timer quiet; /* it has not said anything for long: a proxy may cut it */
};

/* ---- mcp_ask.c: each answer ends the ask ---- */

/* m: a request; of what it has only params stay borrowed. req NULL: it is of a batch or a pair. */
struct mcp_ask *mcp_ask_new(struct mcp_front *, struct api_call *, struct http_req *,
    enum mcp_revision, const struct jsonrpc *m);
/* result: an object in any revision's form. */
void mcp_ask_reply(struct mcp_ask *, struct str result);
/* status: of HTTP for modern clients, where the answer has not begun. data may be empty. */
void mcp_ask_refuse(
    struct mcp_ask *, int status, int64_t code, const char *message, struct str data);
/* The request goes to that server; name: the item's own, in the place of params.<member>. */
void mcp_ask_forward(
    struct mcp_ask *, size_t server, const char *method, const char *member, struct str name);
/* The same with any value, as it is to stand. */
void mcp_ask_forward_with(
    struct mcp_ask *, size_t server, const char *method, const char *member, struct str value);
/* The stream of events that it is answered with, from now on; NULL: there is none. */
struct sse *mcp_ask_stream(struct mcp_ask *);
/* As it is to be sent, names without prefix. */
void mcp_ask_send(struct mcp_ask *, size_t server, const char *method, struct str params);
/* What went wrong is told to the model where a tool was called. */
void mcp_ask_fail(struct mcp_ask *, const char *why);
/* It takes a while: if it stays silent it becomes a stream. */
void mcp_ask_keep_alive(struct mcp_ask *);
void mcp_ask_progress(struct mcp_ask *, uint64_t progress); /* if it is wanted; it grows */
void mcp_ask_drop(struct mcp_ask *);                        /* silently */
void mcp_ask_leave(struct mcp_ask *);                       /* somebody else answers */
struct mcp_feed;
struct mcp_ask *mcp_ask_new_paired(struct mcp_feed *, struct api_call *, const struct jsonrpc *m);
/* Whoever still waits is told that nothing will come. */
void mcp_asks_end(struct mcp_front *);
void mcp_asks_drop_paired(struct mcp_front *, uint64_t session); /* its stream has ended */
/* notifications/cancelled, by whoever got it. */
void mcp_ask_take_back(struct mcp_front *, uint64_t session, struct str id);

/* ---- mcp_batch.c ---- */

/* The array is the request's body. */
void mcp_batch_start(
    struct mcp_front *, struct api_call *, struct http_req *, const struct mcp_ticket *);
void mcp_batch_add(struct mcp_batch *, struct str answer); /* one of its asks has ended */
void mcp_batch_drop(struct mcp_batch *);                   /* likewise, silently */

/* ---- mcp.c ---- */

void mcp_run_legacy(struct mcp_ask *, const char *method);
/* A notification, or an answer to nothing. */
void mcp_hear_legacy(struct mcp_front *, const struct mcp_ticket *, const struct jsonrpc *);

/* ---- mcp_life.c ---- */

struct mcp_life *mcp_life_new(struct mcp_front *);
void mcp_life_free(struct mcp_life **);
/* A session begins: its id, as long as the request. */
const char *mcp_life_begin(struct mcp_front *, struct api_call *, enum mcp_revision, uint8_t caps);
/* The same for one that this worker has the stream of. */
const char *mcp_life_begin_pair(struct mcp_front *, struct api_call *, struct mcp_ticket *ret);
/* Is it one of those, and of this key? */
bool mcp_life_read_pair(
    struct mcp_front *, const struct api_call *, struct str id, struct mcp_ticket *ret);
/* The request's session; false: it has answered. Ends the call then. */
bool mcp_life_check(struct api_call *, struct http_req *, struct mcp_ticket *ret);
bool mcp_life_has_ended(const struct mcp_front *, uint64_t session);
/* to NULL: all workers. What does not fit into a queue is missed. */
void mcp_tell(const struct mcp_front *, const struct backplane_addr *to, enum backplane_method,
    struct str what);
bool mcp_tells_for_host(const struct mcp_front *); /* this worker, being the first */
int64_t mcp_life_until_ms(const struct mcp_front *, const struct mcp_ticket *);
void mcp_life_end(struct mcp_front *, const struct mcp_ticket *); /* on all workers */
/* The request is in progress here or elsewhere, or has been answered. */
void mcp_life_take_back(struct mcp_front *, const struct mcp_ticket *, struct str id);

/* ---- mcp_feed.c ---- */

/* A stream of a client: of a session (any number), of a pair (the only one) or of one request. */
struct mcp_feed {
	struct list node;
	struct mcp_front *front;
	struct key_hold key;
	bool has_key;
	uint64_t session; /* 0: a modern client's */
	char *listen_id;  /* of its request, as it was written; NULL: not modern */
	uint32_t wishes;  /* kinds, as bits */
	const struct conf_app *app;
	struct list watched; /* resources */
	struct sse *sse;
	/* Of a session: mcp_lead.c. */
	struct backplane_addr muter; /* whose stream is the newer one */
	int64_t opened_ms;           /* wall clock */
	bool is_second, is_muted;
	bool has_seconds, has_others; /* .. here, at other workers; or had */
	/* Of a pair. */
	bool is_pair;
	uint8_t caps;               /* enum in ticket.h, since initialize */
	enum mcp_revision revision; /* likewise */
	uint32_t asks;              /* that are answered here */
	uint32_t letters;           /* messages whose sender is being looked up */
	struct loop_post overflow;  /* it ends, and not in the midst of an answer */
};

struct mcp_feed *mcp_feed_new(struct mcp_front *, const struct api_call *, struct http_req *);
void mcp_feed_end(struct mcp_feed *);
/* Resources; what is watched already, or is not, is no error. */
void mcp_feed_watch(struct mcp_feed *, size_t server, struct str uri);
void mcp_feeds_watch(struct mcp_front *, uint64_t session, size_t server, struct str uri);
void mcp_feeds_unwatch(struct mcp_front *, uint64_t session, struct str uri);
/* What a server said that belongs to no request. */
void mcp_feeds_pass_on(struct mcp_front *, size_t server, const struct jsonrpc *);
struct list *mcp_feeds_all(struct mcp_front *);
bool mcp_feed_is_newest(const struct mcp_feed *); /* it is the one to be told */
enum { MCP_ALL_WISHES = (1 << MCP_KIND_COUNT) - 1 };
struct mcp_feeds *mcp_feeds_new(struct mcp_front *);
void mcp_feeds_free(struct mcp_feeds **);
void mcp_feed_start(
    struct mcp_front *, struct api_call *, struct http_req *, const struct mcp_ticket *);
void mcp_feed_listen(struct mcp_ask *);                   /* ends it: the stream is its answer */
void mcp_feeds_tell(struct mcp_front *, enum mcp_kind);   /* a list of that kind has changed */
void mcp_feeds_end(struct mcp_front *, uint64_t session); /* of a session that has ended */
void mcp_feeds_drain(struct mcp_front *);

/* ---- mcp_lead.c ---- */

struct mcp_leads *mcp_leads_new(struct mcp_front *);
void mcp_leads_free(struct mcp_leads **);
void mcp_lead_open(struct mcp_feed *, uint64_t session);
void mcp_lead_close(struct mcp_feed *);

/* ---- mcp_note.c ---- */

struct mcp_notes *mcp_notes_new(struct mcp_front *);
void mcp_notes_free(struct mcp_notes **);
enum { MCP_LEVEL_NONE = -1 }; /* else from 0, debug, to 7, emergency */
int mcp_level_parse(struct str name);
int mcp_level_of(struct str params); /* of setLevel, or of notifications/message */
const char *mcp_level_name(int level);
int mcp_note_level(const struct mcp_front *, uint64_t session);
void mcp_note_forget(struct mcp_front *, uint64_t session); /* it has ended */
void mcp_note_follow(struct mcp_feed *); /* a stream of a session: all that it has subscribed to */
void mcp_set_level(struct mcp_ask *);
void mcp_subscribe(struct mcp_ask *);
void mcp_unsubscribe(struct mcp_ask *);

/* ---- mcp_pair.c ---- */

struct mcp_pairs *mcp_pairs_new(struct mcp_front *);
void mcp_pairs_free(struct mcp_pairs **);
struct mcp_feed *mcp_pair_find(const struct mcp_front *, uint64_t session); /* NULL: not here */
void mcp_pair_forget(struct mcp_feed *); /* its stream is gone: so are the requests */
/* An answer: a client that takes none of them is let go. */
void mcp_pair_answer(struct mcp_front *, uint64_t session, struct buf *message);

/* ---- mcp_question.c ---- */

void mcp_questions_init(struct mcp_front *);
void mcp_questions_fini(struct mcp_front *); /* there are no asks any more */
/* of mcp_handlers */
void mcp_question_put(struct mcp_ask *, const struct jsonrpc *, uint64_t number);
void mcp_question_withdraw(struct mcp_ask *, uint64_t number); /* likewise */
/* A request of mcp_round.c under a key of its own; false: who asked is not to be asked that. */
bool mcp_question_put_round(
    struct mcp_ask *, struct str key, const char *method, struct str params);
/* What that server may ask this client for, as bits of ticket.h. */
uint8_t mcp_question_may(const struct mcp_ask *, size_t server);
uint8_t mcp_question_needs(const char *method);         /* likewise; 0: it is none of them */
void mcp_question_add_caps(struct buf *, uint8_t caps); /* {"sampling":{}, ..} */
/* Those that are open: the client is told, as long as there is a stream. */
void mcp_questions_drop(struct mcp_ask *);
/* Whoever got it: a client's result or error. */
void mcp_question_answer(struct mcp_front *, uint64_t session, const struct jsonrpc *answer);
/* Of initialize's params. */
uint8_t mcp_question_caps(struct str params);

/* ---- mcp_round.c ---- */

/* An older client's request goes to that server: it may have to be sent again. */
void mcp_round_keep(struct mcp_ask *, size_t server, const char *method, struct str params);
/* Is it not yet the answer? Then the ask goes on, or has been told why not. */
bool mcp_round_take(struct mcp_ask *, struct str result);
void mcp_round_answer(struct mcp_ask *, struct str key, const struct jsonrpc *answer);
void mcp_round_drop(struct mcp_ask *);

/* ---- mcp_own.c ---- */

#define MCP_OWN_SERVER "parley"
#define MCP_OWN_PREFIX MCP_OWN_SERVER "__"

struct mcp_own { /* what one is at; inside of the tool's */
	struct mcp_ask *ask;
	void (*drop)(struct mcp_own *); /* the ask is over, answered or not */
};

void mcp_own_add(struct buf *list, const struct api_call *); /* those that it may call */
bool mcp_own_call(struct mcp_ask *, struct str name);        /* false: it is none of them */
/* The answer takes longer: from here on drop is called once. */
void mcp_own_begin(struct mcp_ask *, struct mcp_own *, void (*drop)(struct mcp_own *));
void mcp_own_reply(struct mcp_ask *, struct str text);
/* JSON, also as text for clients that know of nothing else. */
void mcp_own_reply_structured(struct mcp_ask *, struct str object);
void mcp_own_fail(struct mcp_ask *, const char *why);

void mcp_own_ask_model(struct mcp_ask *, struct str arguments);
void mcp_own_search_session(struct mcp_ask *, struct str arguments);
void mcp_own_task_status(struct mcp_ask *, struct str arguments);

/* ---- mcp_items.c ---- */

/* Whose resource is it? False: of none that the call may read. */
bool mcp_find_resource(const struct api_call *, struct str uri, size_t *ret_server);
void mcp_refuse_resource(struct mcp_ask *, struct str uri);
bool mcp_may_use(const struct mcp_front *, const struct conf_app *, size_t server);
void mcp_complete(struct mcp_ask *);
void mcp_tools_list(struct mcp_ask *);
void mcp_tools_call(struct mcp_ask *);
void mcp_prompts_list(struct mcp_ask *);
void mcp_prompts_get(struct mcp_ask *);
void mcp_resources_list(struct mcp_ask *);
void mcp_templates_list(struct mcp_ask *);
void mcp_resources_read(struct mcp_ask *);
void mcp_items_changed(struct mcp_front *); /* what was made of the lists is made anew */

#endif
