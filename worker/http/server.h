/*
 * server - what the files of worker/http share: the server, its listeners, the
 * connections and requests. Nobody else includes it (http.h and stream.h are for others).
 *
 *   listener --accept--> conn: NEW -> HEAD -> BODY -> BUSY -> IDLE -> HEAD ..
 *                                                       |
 *                                                      req (HTTP/2: several)
 */
#ifndef WORKER_HTTP_SERVER_H
#define WORKER_HTTP_SERVER_H

#include <h2o.h>

#include "common/idmap.h"
#include "common/metric.h"
#include "worker/http/addr.h"
#include "worker/http/http.h"
#include "worker/http/parse.h"
#include "worker/http/route.h"
#include "worker/loop/wheel.h"

struct http_listener {
	struct http_server *server;
	const struct handoff_listener *from;
	h2o_socket_t *sock; /* NULL: closed */
	h2o_accept_ctx_t accept;
};

/* A connection is in the list of its phase; conn_enter() moves it and sets its timer. */
enum conn_phase {
	CONN_NEW,  /* nothing of a request has come: PROXY header, TLS handshake, silence */
	CONN_HEAD, /* a head is coming in */
	CONN_BODY, /* a body is coming in */
	CONN_BUSY, /* requests in progress */
	CONN_IDLE, /* between requests */
	CONN_PHASES
};

/* Why a client address is refused (guard.h). */
enum guard_reason {
	GUARD_NOTHING,
	GUARD_CONNECTIONS,
	GUARD_RATE,
	GUARD_TLS,
	GUARD_UPGRADE,
};

/* What too much of is cut: http2.max_requests, max_resets, max_control_frames. */
enum conn_flood { FLOOD_REQUEST, FLOOD_RESET, FLOOD_FRAME, CONN_FLOODS };

/* What an HTTP/2 connection has beside; most connections are none. */
struct conn_http2 {
	struct http_conn *conn;
	uint32_t flood[CONN_FLOODS]; /* in the present window */
	uint32_t body_mark;       /* of requests that are not complete: those up to this stream */
	uint64_t flood_window_ms; /* when it began */
	uint64_t flood_written;   /* what had been written then */
	struct wheel_entry body_timer; /* for requests that are not complete */
	uint64_t body_bytes;           /* of all its requests, held */
	uint32_t leaving_at; /* so many requests it had when it was told to open no more */
};

struct http_conn {
	struct http_listener *listener;
	h2o_socket_t *sock;
	struct list node;
	struct wheel_entry timer;
	struct addr peer,
	    client; /* of the socket; after the PROXY header. ADDR_NONE: not asked yet */
	uint8_t phase;
	bool has_dispatched; /* its first request; until then it counts as waiting */
	bool is_cut;         /* shut down: nothing more is read or answered */
	bool is_on_spare;    /* its descriptor was held back: ops routes, then it is closed */
	uint8_t over;        /* enum guard_reason: it is only told why */
	uint16_t peer_place; /* where it is counted (peers.h) */
	uint16_t in_progress;
	uint8_t refusals; /* for want of room, one after the other */
	uint32_t over_retry_s;
	uint32_t head_bytes;       /* HTTP/1: of the present request's head in the input */
	int linger_fd;             /* a second descriptor that outlives h2o's; -1: none */
	uint32_t requests;         /* so far */
	struct conn_http2 *h2;     /* NULL: HTTP/1, or not known yet */
	enum http_refusal refusal; /* of the head being parsed */
	char *raw_answer;          /* 408, being sent past h2o */
	h2o_socket_cb on_read;     /* h2o's: meanwhile; of HTTP/2 behind ours */
	/* HTTP/1: whether the client goes, as h2o does not read during an answer. It stays from the
	 * first request that wants to know on; edge-triggered, as the end of a client stays. */
	struct loop_watch gone_watch;
	struct http_req *gone_req; /* who wants to know now */
	bool is_gone;              /* it has gone when nobody wanted to */
};

/* Descriptors that are kept for when there are no others. */
enum { LISTEN_SPARES = 8 };

struct http_server {
	struct loop *loop;
	const struct conf *conf;
	const struct handoff *handoff;
	h2o_globalconf_t h2o_conf;
	h2o_context_t h2o;
	SSL_CTX *tls;
	struct http_parse_limits limits;
	struct addr_nets trusted;
	struct wheel *wheel;
	struct route_table *routes;
	struct idmap *requests; /* those that someone holds a handle of */
	struct http_listener *listeners;
	uint32_t listener_count;

	struct list conns[CONN_PHASES];
	uint32_t open;                            /* sockets, lingering ones included */
	uint32_t open_max, places_max, queue_max; /* by the config and RLIMIT_NOFILE */
	uint32_t waiting;                         /* of them: first request not dispatched */
	uint32_t in_progress;                     /* requests */
	uint32_t active;                          /* of them: counted against max_connections */
	uint32_t lingering;
	uint32_t over;                       /* sockets that wait to be told 429 */
	uint32_t sockets;                    /* upgraded, or being upgraded */
	uint64_t body_bytes, incoming_bytes; /* bodies.h */
	struct loop_timer body_look;
	struct list closing_sockets;
	struct loop_post close_sockets;
	bool is_paused; /* listeners are not read: too many sockets */
	bool is_draining;
	bool is_doing;     /* between http_doing() and http_done() */
	bool is_listening; /* a listener is open */
	bool is_started;
	struct loop_timer accept_again; /* after the system refused one */
	struct loop_timer evict_again;  /* while the queue is full */
	int spares[LISTEN_SPARES];      /* descriptors held back for ops routes */
	uint32_t spare_count;
	uint32_t metrics_spares; /* taken by connections of the metrics listener */
};

struct http_answer_header {
	const char *name, *value;
};

struct http_req {
	h2o_req_t *h2o;
	struct http_conn *conn;
	struct http_server *server;
	const struct http_route *route; /* NULL: refused, or no such route */
	unsigned label;                 /* of the metrics */
	struct str path, query;
	struct route_match match;
	char *params[ROUTE_PARAMS_MAX]; /* decoded */
	const char *id;
	const char *origin; /* CORS: what goes into Access-Control-Allow-Origin; NULL: nothing */
	struct arena arena;
	json_t *json;
	uint64_t handle; /* 0: nobody asked for one */
	uint64_t started_us;
	void (*on_gone)(void *arg);
	void *on_gone_arg;
	struct wheel_entry timer; /* for the answer, then for its way out */
	uint64_t sent_mark;       /* what the peer had taken when the timer was set */
	struct http_stream *stream;
	uint64_t body_bytes;   /* of HTTP/1, counted by bodies.c */
	size_t input_released; /* of HTTP/1, by a stream: h2o will consume as many */
	char client_text[ADDR_TEXT_MAX];
	uint8_t kind;     /* KIND_HTTP, .. of the gauge */
	bool is_counted;  /* holds a place */
	bool is_work;     /* counts as work in progress */
	bool is_answered; /* the answer is complete on our side */
	bool is_begun;    /* its head is out */
	bool is_last;     /* the connection is closed after it */
};

/* conn.c */
struct http_conn *conn_of(h2o_req_t *);
void conn_open(struct http_listener *, h2o_socket_t *);
void conn_enter(struct http_conn *, enum conn_phase);
void conn_enter_again(struct http_server *, enum conn_phase); /* all of it: other time limits */
void conn_become_http2(struct http_conn *);                   /* again: nothing happens */
void conn_refuse(struct http_conn *, int err); /* HTTP/1, in the midst of a request: answer, end */
void conn_cut(struct http_conn *); /* shutdown(2); h2o then finds the end and cleans up */
/* Its socket is upgraded: frees it, the socket lives on. Returns its peer_place. */
uint16_t conn_give_up(struct http_conn *);
void conn_watch_gone(struct http_conn *, struct http_req *);  /* request_on_gone() of it, */
void conn_forget_gone(struct http_conn *, struct http_req *); /* not any more */
void conn_linger(struct http_conn *); /* when it closes: let the peer read our answer first */
const struct addr *conn_peer(struct http_conn *);
bool conn_is_flooding(struct http_conn *, enum conn_flood); /* counts it */
void conn_cut_flood(struct http_conn *);
void conn_evict_idle(struct http_server *);
/* Those whose request has not come and who have said nothing for SILENT_MS. */
void conn_evict_silent(struct http_server *);
uint64_t conn_untaken_bytes(struct http_conn *);
uint64_t conn_taken_bytes(struct http_conn *); /* by the peer, so far; to tell whether it moves */

/* frames.c: frames without a request that are no flood yet */
uint64_t frames_allowed(const struct http_conn *);

/* listen.c */
int listen_start(struct http_server *);
void listen_reconsider(struct http_server *); /* a socket was closed, or is not waiting any more */
void listen_drain(struct http_server *);
bool listen_is_host_ending(const struct http_server *); /* or it will, soon: no successor */
void listen_spare_is_free(struct http_server *); /* a socket that was accepted on one is closed */
void listen_give_spares_back(struct http_server *);

/* request.c */
int request_dispatch(h2o_handler_t *, h2o_req_t *);
void request_forget(struct http_req *); /* its handle finds nothing any more */
void request_watch_gone(struct http_req *);
void request_on_gone(struct http_req *); /* the connection says so */
/* Of HTTP/1: head and body, as they lie in the connection's input. */
size_t request_input_bytes(const struct http_req *);
void request_fail(struct http_req *); /* ends it without a (whole) answer */

/* room.c: those that say bool have answered, or counted and logged it, when they say false */
/* Before anything of it costs anything: its body, its key, the record. */
bool room_may_begin(struct http_req *);
/* What may be upgraded is told later that there is no place, after other refusals. */
bool room_may_run(struct http_req *);
bool room_take_place(struct http_req *); /* not answered yet */
void room_reply_capacity(struct http_req *);
void room_leave(struct http_req *);

/* asked.c */
struct addr asked_client(const struct http_req *); /* after trusted_proxies */
/* Without its escapes, in the request's memory; NULL: one is broken. */
char *asked_decode(const struct http_req *, struct str text, bool is_query);

/* answer.c */
void answer_refusal(struct http_req *, int err, const char *text);
void answer_begin(struct http_req *, int status, const char *content_type);
struct str answer_error_body(
    struct http_req *, struct buf *, int err, const char *param, const char *message);
const char *answer_reason(int status);
void answer_register_filter(h2o_pathconf_t *);
/* An answer to who has no request yet: the raw bytes. */
void answer_raw(int err, struct buf *);

/* cors.c */
void cors_decide(struct http_req *);
void cors_add_headers(struct http_req *);
void cors_answer_options(struct http_req *);

/* linger.c: takes the descriptor */
void linger_start(struct http_server *, int fd);

#endif
