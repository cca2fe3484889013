/*
 * guard - what one client address may do: connections, new ones, handshakes (the limits section).
 *
 * Of IPv6 a /64 is one address. Networks of trusted_proxies are never limited, only the clients
 * that they name; nor are Unix sockets and the metrics listener.
 */
#ifndef WORKER_HTTP_GUARD_H
#define WORKER_HTTP_GUARD_H

#include "worker/http/server.h"

/* A new connection, its client known, before TLS. False: close it. It may also have been let in
 * only to be told why not: guard_refuse(). */
bool guard_admit(struct http_conn *);
/* The place of a connection that another worker had accepted. */
uint16_t guard_adopt(struct http_server *, int fd);
void guard_leave(struct http_server *, uint16_t place, bool is_over); /* it is closed */

/* A request on a connection that was let in to be refused: 429. */
void guard_refuse(struct http_req *);
/* A request for an upgrade. False: it was answered. */
bool guard_may_upgrade(struct http_req *);

#endif
