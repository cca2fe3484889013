/*
 * client - HTTP requests that we make: providers, tool servers, webhooks.
 *
 * libcurl's multi interface on the worker's loop. A request belongs to a pool
 * (client_pool): one per provider key and base URL, with its own limits on
 * connections and on waiting for one. Answers are given in phases: head, body
 * (any number), done, each a callback on the loop, never from inside a verb of
 * this header. done comes exactly once unless the request was cancelled; after
 * client_cancel() nothing comes any more and the connection is closed at once,
 * so that the other side stops working.
 */
#ifndef WORKER_CLIENT_CLIENT_H
#define WORKER_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/str.h"
#include "worker/loop/loop.h"

struct client;
struct client_pool;

struct client *client_new(struct loop *); /* after fork(): libcurl may start threads */
void client_free(struct client **);       /* cancels what runs; pools must be freed before */

struct client_pool_conf {
	const char *name;            /* for logs and metrics; copied */
	uint32_t connections_max;    /* in use at once */
	uint32_t keepalive_max;      /* idle ones kept */
	uint32_t keepalive_ms;       /* how long an idle one is kept */
	uint32_t life_ms;            /* how long one is used at all; 0: no limit */
	uint32_t connect_timeout_ms; /* name, TCP and TLS */
	uint32_t write_timeout_ms;   /* no progress sending the request */
	uint32_t pool_timeout_ms;    /* waiting for a connection, in order */
	uint32_t queue_max;          /* how many may wait; 0: no limit but their time */
	/* For metrics, either may be NULL; from inside them no verb of this header. */
	void (*on_in_use)(void *arg, int delta);
	void (*on_waited)(void *arg, uint64_t ms); /* for a place, successfully or not */
	void *arg;
};

struct client_pool *client_pool_new(struct client *, const struct client_pool_conf *);
void client_pool_free(struct client_pool **);
uint32_t client_pool_in_use(const struct client_pool *);
uint32_t client_pool_waiting(const struct client_pool *);

struct client_header {
	const char *name, *value;
};

struct client_request {
	const char *method; /* "GET", "POST", .. */
	const char *url;
	const struct client_header *headers;
	size_t header_count;
	const char *keeps;              /* a header of the answer that is wanted; NULL: none */
	struct str body;                /* copied */
	uint32_t first_byte_timeout_ms; /* from sent to the first body byte; 0: none */
	uint32_t stall_timeout_ms;      /* between body bytes; 0: none */
	uint32_t total_timeout_ms;      /* the whole of it, waiting for a place included; 0: none */
	bool refuses_private; /* private and link-local addresses are refused after name resolution
			       */
};

enum client_outcome {
	CLIENT_OK,              /* a whole answer, whatever its status */
	CLIENT_POOL_TIMEOUT,    /* no place in time */
	CLIENT_POOL_FULL,       /* too many wait for one */
	CLIENT_CONNECT_FAILED,  /* refused, unreachable, unknown name, TLS: nothing was sent */
	CLIENT_CONNECT_TIMEOUT, /* nothing was sent either */
	CLIENT_TIMEOUT,         /* connected; first byte, stall, write or total time ran out */
	CLIENT_BROKEN,          /* reset or cut before the end of the answer */
	CLIENT_REFUSED_ADDRESS,
};

enum { CLIENT_KEPT_MAX = 1024 };

struct client_head {
	int status;
	struct str content_type; /* without parameters, lower case */
	struct str retry_after;  /* as sent, or empty */
	struct str request_id;   /* x-request-id, or empty */
	struct str kept;    /* what request.keeps names, or empty; above CLIENT_KEPT_MAX: cut */
	uint32_t waited_ms; /* since the request was sent */
};

struct client_handlers {
	void (*on_head)(
	    void *arg, const struct client_head *); /* borrowed for the call; may be NULL */
	/* Return false to pause: client_resume() goes on; the bytes given were taken. */
	bool (*on_body)(void *arg, struct str bytes);
	/* detail: a short text for logs, borrowed. The handle is dead before the call. */
	void (*on_done)(void *arg, enum client_outcome, const char *detail);
};

/* "timeout", "broken", .. for logs. */
const char *client_outcome_name(enum client_outcome);

/* Returns a handle, never 0. Everything in the request is copied. */
uint64_t client_start(
    struct client_pool *, const struct client_request *, const struct client_handlers *, void *arg);
void client_cancel(struct client *, uint64_t handle); /* unknown handle: nothing */
void client_resume(struct client *, uint64_t handle);

#endif
