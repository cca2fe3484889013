/*
 * upstream - the tool servers of the config, as this worker reaches them: what they offer, and
 * requests to them.
 *
 * Each enabled server is connected to from the start and, when it goes, for ever: over HTTP by
 * every worker for itself; over stdio by the one worker of the host to which the master has given
 * its pipes, and by the others through that one. Who uses this does not see the difference, nor
 * which revision of the protocol a server speaks: requests are given in one form and put into the
 * server's. Lists stay while a server is away.
 *
 * Callbacks come from the loop, never from inside a verb of this header.
 */
#ifndef WORKER_MCP_UPSTREAM_H
#define WORKER_MCP_UPSTREAM_H

#include "common/conf.h"
#include "common/shm.h"
#include "worker/backplane/backplane.h"
#include "worker/client/client.h"
#include "worker/loop/loop.h"
#include "worker/mcp/catalog.h"
#include "worker/mcp/jsonrpc.h"
#include "worker/mcp/revision.h"

struct mcp_upstreams;

struct mcp_upstreams_of { /* all borrowed */
	struct loop *loop;
	struct client *client;
	const struct conf *conf;
	struct backplane *backplane;
	struct shm *shm;
	struct shm_who who;
	uint32_t slot;
	const char
	    *stdio_address; /* the master's (common/stdio.h); NULL: no server with a command */
};

struct mcp_upstreams *mcp_upstreams_new(const struct mcp_upstreams_of *);
/* Silently: nobody is called back. Before the client and the backplane. */
void mcp_upstreams_free(struct mcp_upstreams **);
void mcp_upstreams_start(struct mcp_upstreams *);          /* begins to connect */
bool mcp_upstreams_are_idle(const struct mcp_upstreams *); /* no request is in progress */
/* Of each server it is known what it offers, or that it could not be reached at the first attempt:
 * who waits for more waits for what may never come. */
bool mcp_upstreams_are_settled(const struct mcp_upstreams *);
/* Told once, when they are. They are not yet. NULL: nobody waits any more. */
void mcp_upstreams_on_settled(struct mcp_upstreams *, void (*on_settled)(void *arg), void *arg);
/* We go, and nobody asks for anything any more: servers that have a session with us are told, which
 * takes a second at most and is in progress until then. */
void mcp_upstreams_leave(struct mcp_upstreams *);

/* ---- what there is: servers by their index in conf->mcp.servers ---- */

enum mcp_upstream_state {
	MCP_UPSTREAM_OFF,        /* not enabled, or there is no way to it */
	MCP_UPSTREAM_CONNECTING, /* requests wait */
	MCP_UPSTREAM_READY,
	MCP_UPSTREAM_AWAY, /* it is tried again later; requests fail */
};

struct mcp_upstream_info { /* borrowed; good until the loop turns */
	const struct conf_mcp_server *conf;
	enum mcp_upstream_state state;
	enum mcp_revision revision; /* MCP_REVISION_NONE until it was ready once */
	struct str server_info;     /* objects as it wrote them; empty: unknown */
	struct str capabilities;
	struct str instructions; /* plain text */
	bool has_prefix;
};

size_t mcp_upstreams_count(const struct mcp_upstreams *);
void mcp_upstream_get(const struct mcp_upstreams *, size_t server, struct mcp_upstream_info *ret);
/* Borrowed until the loop turns (mcp_list_ref() keeps it). NULL: it has none. */
struct mcp_list *mcp_upstream_list(const struct mcp_upstreams *, size_t server, enum mcp_kind);
/* All servers in one; entries' `source` is the server's index. Borrowed until the loop turns. */
const struct mcp_view *mcp_upstreams_view(struct mcp_upstreams *, enum mcp_kind);

/* Told when a server's list of that kind is another one, or has appeared. Any number of watchers;
 * never taken back. */
typedef void mcp_on_changed(void *arg, size_t server, enum mcp_kind);
void mcp_upstreams_on_changed(struct mcp_upstreams *, mcp_on_changed *, void *arg);

/* ---- what servers say that belongs to no request ---- */

/*
 * notifications/resources/updated of what is watched (also below it), notifications/message.
 *
 * What a server logs is that request's on whose stream it comes; on a stream that requests share,
 * that of the only one in progress. Where there are several, or it may still be at one that was
 * given up, nobody can tell: then it is news, as what it logs on its own account is.
 */
typedef void mcp_on_news(void *arg, size_t server, const struct jsonrpc *);
void mcp_upstreams_on_news(struct mcp_upstreams *, mcp_on_news *, void *arg); /* once */
/* Asks the server to tell of changes to a resource, also when it was away; counted. */
void mcp_watch(struct mcp_upstreams *, size_t server, struct str uri);
void mcp_unwatch(struct mcp_upstreams *, size_t server, struct str uri); /* it was watched */
/* Is it what is watched, or below that? */
static inline bool
mcp_uri_is_of(struct str uri, struct str watched)
{
	return watched.len > 0 && str_starts(uri, watched) &&
	       (uri.len == watched.len || uri.p[watched.len] == '/' ||
		   watched.p[watched.len - 1] == '/');
}
/* Older servers are to log from this level on; borrowed for ever. NULL: as they like. */
void mcp_set_log_level(struct mcp_upstreams *, const char *level);

/* ---- requests ---- */

struct mcp_request {
	const char *method;
	/*
	 * An object as it is to be sent, names without prefix; empty: none. Of its `_meta` what the
	 * specification has reserved is replaced: a modern server gets our revision and name, and
	 * of the given ones capabilities (none: {}) and log level; progressToken is ours.
	 */
	struct str params;
	bool wants_progress;
	bool is_errand;      /* of another worker: it is counted there */
	uint32_t timeout_ms; /* 0: the server's, for calls of tools */
};

struct mcp_answer {        /* borrowed for the call */
	int err;           /* 0: one of the next two. E_TIMEOUT, E_BUSY (too many in progress),
			      E_UNAVAILABLE (away), E_GONE (it went meanwhile: it may have been done),
			      E_PAYLOAD_TOO_LARGE, E_PROVIDER (nothing that is an answer) */
	const char *why;   /* err != 0: one sentence for the log or the model */
	int status;        /* of the HTTP answer that brought it; 0: none did */
	struct str result; /* as written; empty: an error */
	int64_t code;      /* its code; the specification's own (-32020 ..) have become
			      MCP_INTERNAL_ERROR, see upstream_code */
	int64_t upstream_code;
	struct str message; /* as written, with its quotes; may be empty */
	struct str data;    /* as written; empty: none, or not to be passed on. Of an upstream_code
			       MCP_CAPABILITY_MISSING it says which */
};

struct mcp_handlers {
	/* Progress and messages of this request, in order, before the answer. NULL: not wanted. Its
	 * progressToken is ours. */
	void (*on_notification)(void *arg, const struct jsonrpc *);
	/* Once, unless cancelled. The handle is dead before the call. */
	void (*on_answer)(void *arg, const struct mcp_answer *);
	/* An older server asks the client for something before it answers: mcp_answer(), once, or
	 * never when the request ends before. NULL: it is refused. */
	void (*on_question)(void *arg, const struct jsonrpc *, uint64_t question);
	/* The server does not want to know any more: no answer. NULL: who answers answers nothing.
	 */
	void (*on_withdrawn)(void *arg, uint64_t question);
};

/* Returns a handle, never 0. Everything is copied. */
uint64_t mcp_call(struct mcp_upstreams *, size_t server, const struct mcp_request *,
    const struct mcp_handlers *, void *arg);
/* The server is told to stop. Unknown or 0: nothing. */
void mcp_cancel(struct mcp_upstreams *, uint64_t handle);
/* The answer to a question of the request with that handle: a result or an error, whatever its id.
 * Unknown: nothing. */
void mcp_answer(
    struct mcp_upstreams *, uint64_t handle, uint64_t question, const struct jsonrpc *answer);

#endif
