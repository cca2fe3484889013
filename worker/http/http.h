/*
 * http - the server side of HTTP for a worker: listeners, limits, TLS, request
 * ids, routes. h2o is behind it; nothing of h2o shows here.
 *
 * A handler gets a request and answers it, now or later. Across an asynchronous
 * gap it keeps http_handle() and asks http_find(): NULL says that the client has
 * gone. A request is answered exactly once.
 */
#ifndef WORKER_HTTP_HTTP_H
#define WORKER_HTTP_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/conf.h"
#include "common/err.h"
#include "common/handoff.h"
#include "common/str.h"
#include "worker/loop/loop.h"

struct http_server;
struct http_req;

/* How a request with this route is let in. */
enum http_flags {
	HTTP_OPS = 1 << 0,         /* not counted as a connection, always answered */
	HTTP_LONG = 1 << 1,        /* may stay open (SSE, long poll): no response time limit */
	HTTP_METRICS = 1 << 2,     /* also on the metrics listener */
	HTTP_ANY_BODY = 1 << 3,    /* the body need not be application/json */
	HTTP_GATEWAY = 1 << 4,     /* body limit http.max_body_gateway instead of http.max_body */
	HTTP_SAME_ORIGIN = 1 << 5, /* cors does not govern it: /mcp, /admin, /console */
	HTTP_UPGRADE = 1 << 6, /* may be upgraded (upgrade.h): its handler runs also at capacity */
	HTTP_WORK = 1 << 7,    /* begins new work: refused while the core is overloaded */
};

enum { HTTP_CAPACITY_RETRY_S = 5 }; /* Retry-After of who is refused for want of room */

struct http_route {
	const char *method; /* "GET" (answers HEAD too), "POST", "DELETE" */
	const char
	    *pattern; /* "/v1/sessions/{id}/turns": up to four {parameters}, whole segments */
	unsigned flags;
	void (*handler)(struct http_req *, void *arg);
};

struct http_server *http_server_new(struct loop *, const struct handoff *);
/* Before start. routes stays valid. Several calls add up. */
void http_server_add_routes(
    struct http_server *, const struct http_route *, size_t count, void *arg);
int http_server_start(struct http_server *); /* accepts from now on; 0 or -errno (logged) */
/* Accepts what is queued, unless a successor does, and closes; what is kept open ends with its next
 * answer, or when none has been asked for in a moment. */
void http_server_drain(struct http_server *);
bool http_server_is_listening(const struct http_server *); /* not any more, some time after drain */
bool http_server_is_idle(const struct http_server *);      /* draining: nobody is connected */
uint32_t http_server_active(const struct http_server *);   /* counted requests in progress */
/* For how many there is room: max_connections, or less where descriptors do not suffice. */
uint32_t http_server_places(const struct http_server *);
int http_server_reload_certificates(struct http_server *); /* 0, or -errno and the old ones stay */
void http_server_free(struct http_server **); /* idle; connections that are open are cut */

/* What was asked. All borrowed from the request; NUL-terminated where a char pointer. */
struct str http_method(const struct http_req *);
struct str http_path(const struct http_req *);
struct str http_header(
    const struct http_req *, const char *lower_case_name); /* .p == NULL: absent */
struct str http_header_list(
    struct http_req *, const char *lower_case_name); /* all of that name, joined with commas */
const char *http_param(const struct http_req *, const char *name); /* path parameter, decoded */
const char *http_query(const struct http_req *, const char *name); /* decoded; NULL: absent */
struct str http_body(const struct http_req *);
const char *http_request_id(const struct http_req *);
const char *http_client_address(const struct http_req *); /* after trusted_proxies; no port */
const char *http_client_network(struct http_req *);       /* the same for limits: of IPv6 the /64 */
/* cors.allow_origins has the request's Origin, or it names none: it does not come from a web page.
 */
bool http_is_origin_allowed(const struct http_req *);
bool http_is_secure(const struct http_req *);        /* it came over TLS of ours */
bool http_is_loopback_peer(const struct http_req *); /* socket and client address both loopback */
struct arena *http_arena(struct http_req *);         /* as long as the request */

/* The body as JSON, parsed once, owned by the request. On error it has answered: return. */
json_t *http_json(struct http_req *,
    bool is_required); /* NULL without answering only if !is_required and empty */

/* The work that an HTTP_WORK request began is counted by somebody else now: a turn. Without it the
 * request counts as work until its end. */
void http_work_passed_on(struct http_req *);

/* What is being handled, for who finds this worker dead: between the two nothing waits. Requests
 * are told by themselves; name says what else it is. */
void http_doing(struct http_server *, struct str name, struct str path, struct str bytes);
void http_done(struct http_server *);
/* The same for a request that is gone on with, as after its key was looked up. False: it is being
 * handled anyway, whoever does that says when it is done. */
bool http_doing_request(struct http_req *);

uint64_t http_handle(const struct http_req *);
struct http_req *http_find(struct http_server *, uint64_t handle);
struct http_server *http_server_of(const struct http_req *);
const struct conf *http_conf(const struct http_req *);
bool http_is_on_metrics_listener(const struct http_req *);

/* Called once when the client goes before the answer is complete (any protocol), at the latest when
 * http_find() finds it no more. NULL takes it back. */
void http_on_gone(struct http_req *, void (*on_gone)(void *arg), void *arg);

/* Answers. Headers first, if any; then exactly one of the reply verbs. CORS, request id and Date
 * are added. */
void http_add_header(struct http_req *, const char *name, const char *value); /* copied */
void http_reply(
    struct http_req *, int status, const char *content_type, struct str body); /* copied */
void http_reply_json(struct http_req *, int status, json_t *); /* takes the reference */
/* The error shape of the API. message NULL: the table's; param may be NULL. */
void http_reply_error(struct http_req *, int err, const char *param, const char *message_fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with a Retry-After. seconds >= 1. */
void http_reply_retry(struct http_req *, int err, uint32_t retry_after_s, const char *message);

#endif
