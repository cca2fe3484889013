/*
 * redis_url - where a Redis is and who we are to it, from one line of text. Pure.
 *
 *   redis://[user[:password]@]host[:port][/db]      rediss://.. the same over TLS
 *   unix:PATH[?user=U&password=P&db=N]
 *
 * User, password and host may be percent-encoded (RFC 3986); a host may be "[::1]".
 */
#ifndef COMMON_REDIS_URL_H
#define COMMON_REDIS_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum {
	REDIS_URL_HOST_MAX = 256,
	REDIS_URL_PATH_MAX = 108,
	REDIS_URL_SECRET_MAX = 512,
	REDIS_URL_DB_MAX = 65535
};

struct redis_url {
	bool is_tls;
	char host[REDIS_URL_HOST_MAX]; /* "": path */
	char path[REDIS_URL_PATH_MAX];
	uint16_t port;
	uint32_t db;
	char user[REDIS_URL_SECRET_MAX]; /* "": none, as password */
	char password[REDIS_URL_SECRET_MAX];
};

/* NULL, or what is wrong (static); then *ret is undefined. */
const char *redis_url_parse(struct str, struct redis_url *ret);

#endif
