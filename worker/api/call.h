/*
 * call - one authenticated request on its way through the asynchronous steps of
 * a handler.
 *
 * A handler owns its call and ends it exactly once, by one of the call_reply
 * verbs or call_end(). Between steps the client may go away: call_req() is NULL
 * then, and the reply verbs only end the call. What must live as long as the
 * call comes from its arena.
 */
#ifndef WORKER_API_CALL_H
#define WORKER_API_CALL_H

#include "worker/api/api.h"
#include "worker/api/rate.h"

/* Who may call an endpoint. */
enum api_access {
	API_CLIENT = 1 << KEY_CLIENT,
	API_SERVER = 1 << KEY_SERVER,
	API_ADMIN = 1 << KEY_ADMIN,
	API_BY_QUERY = 1 << 8, /* ?access_token= is accepted: EventSource cannot set headers */
	API_OPEN = 1 << 9,     /* nobody is asked who he is */
	API_MCP = 1 << 10,     /* as mcp_door.h says: origins, loopback without a key, challenges */
};

struct api_call;
typedef void api_handler(struct api_call *, struct http_req *);
typedef void api_on_session(struct api_call *, struct http_req *, const struct store_session *);

struct api_endpoint {
	const char *method, *pattern; /* as struct http_route */
	unsigned flags;               /* enum http_flags */
	unsigned access;
	api_handler *handler;
};

struct api_call {
	struct api *api;
	/* Takes what call_reply_error() is given, and the call; NULL: it is an HTTP request. */
	void (*on_error)(struct api_call *, int err, const char *param, const char *message);
	const struct api_endpoint *endpoint;
	uint64_t http; /* http_handle() */
	struct arena arena;
	json_t *body; /* owned; NULL: none */

	enum key_kind kind;
	const char *key_id, *app_id;
	const char *device_id;      /* NULL: the key is not bound */
	const struct conf_app *app; /* NULL: not of the config */
	struct rate_of rate;        /* its windows */
	struct rate_ask rate_ask;   /* .. and what they say */
	struct budget_rule budget;  /* of the key */
	uint8_t key_hash[32];       /* for who holds on to it, see key_watch.h */
	int64_t key_expires_at;     /* likewise */
	/* What a server key may ask for, see keys_allow_model(); until the handler returns. */
	struct conf_list models;
	struct key_tools tools; /* likewise, see keys_allow_tool() */

	struct id session_id, turn_id; /* of the path, where the route has them */
	struct id object_id;           /* .. of another object, likewise */
	bool is_erasing;               /* DELETE ?erase=true */
	uint32_t limit;                /* rows asked for */
	api_on_session *on_session;
};

/* The key of Authorization, X-API-Key or, by_query, ?access_token=; empty: none. */
struct str call_secret(const struct http_req *, bool by_query);

/* Answers who has no valid key: 401, or 429 when its address asks too often. */
void call_refuse_key(struct api *, struct http_req *);

/* Authenticates and applies the key's rate limit, then runs the endpoint's handler. */
void call_start(struct api *, const struct api_endpoint *, struct http_req *);

/* One that belongs to no HTTP request; who NULL: nobody was asked who he is. */
struct api_call *call_new(struct api *, const struct principal *who);

struct http_req *call_req(const struct api_call *); /* NULL: the client has gone */
void call_end(struct api_call *);                   /* without an answer: someone else gave it */

void call_reply_json(struct api_call *, int status, json_t *); /* takes the reference */
void call_reply_error(struct api_call *, int err, const char *param, const char *message);
void call_reply_retry(struct api_call *, int err, uint32_t retry_after_s, const char *message);
void call_add_retry_after(struct http_req *, uint32_t seconds);
void call_add_limit(struct http_req *, const struct limiter_verdict *); /* nothing without one */
/* 429 with what the verdict says of the limit; unit as of struct rate_ask. The latter for a request
 * that has no call. */
void call_reply_limit(struct api_call *, const struct limiter_verdict *, const char *unit);
void call_refuse_limit(
    struct api *, struct http_req *, const struct limiter_verdict *, const char *unit);
/* The error shape with one more member at the top; takes the reference. message NULL: the error's
 * own. */
void call_reply_error_with(
    struct api_call *, int err, const char *message, const char *member, json_t *value);

/*
 * Reads {session} and, if the route has it, {turn} of the path, loads the session and checks that
 * it is of the key's app; then on_session runs with the borrowed record. Otherwise 404.
 */
void call_with_session(struct api_call *, struct http_req *, api_on_session *);

#endif
