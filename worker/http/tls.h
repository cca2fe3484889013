/*
 * tls - the certificate and what we speak with it.
 */
#ifndef WORKER_HTTP_TLS_H
#define WORKER_HTTP_TLS_H

#include <openssl/ssl.h>

#include "common/conf.h"

struct tickets;

/* From the files of the config. NULL when they cannot be used (logged). After fork(). tickets
 * outlive it. */
SSL_CTX *tls_new(const struct conf *, struct tickets *);

#endif
