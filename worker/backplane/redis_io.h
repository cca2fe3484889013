/*
 * redis_io - a connected socket, with TLS on it or without: connect, handshake, read, write.
 *
 * Never blocks, waits for nothing and belongs to no loop: each verb says what it waits for.
 */
#ifndef WORKER_BACKPLANE_REDIS_IO_H
#define WORKER_BACKPLANE_REDIS_IO_H

#include <stddef.h>
#include <sys/types.h>

#include "common/netaddr.h"

struct redis_io;
struct ssl_ctx_st;

/* One for all connections of a URL; NULL: ca_file cannot be read (*ret_error, static). */
struct ssl_ctx_st *redis_io_tls_new(const char *ca_file, const char **ret_error);
void redis_io_tls_free(struct ssl_ctx_st **);

/* tls NULL: none; host is who the certificate must name. NULL and errno: no socket, or refused at
 * once. */
struct redis_io *redis_io_open(const struct netaddr *, struct ssl_ctx_st *tls, const char *host);
void redis_io_close(struct redis_io **);
int redis_io_fd(const struct redis_io *);

enum { REDIS_IO_READ = -1, REDIS_IO_WRITE = -2, REDIS_IO_END = -3 };

/* Goes on with connecting: 0 when it may be used, else what it waits for, or the end. */
int redis_io_connect(struct redis_io *);
/* Bytes, or what it waits for, or the end. */
ssize_t redis_io_read(struct redis_io *, char *to, size_t room);
ssize_t redis_io_write(struct redis_io *, const char *bytes, size_t len);
/* Why it ended, for people; valid until the next verb. */
const char *redis_io_error(const struct redis_io *);

#endif
