/*
 * addr - addresses of peers, and the networks that are trusted.
 *
 * Pure. IPv4 is kept as mapped IPv6, so that both spellings are one address.
 */
#ifndef WORKER_HTTP_ADDR_H
#define WORKER_HTTP_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/str.h"

enum { ADDR_TEXT_MAX = 46 };

enum addr_kind { ADDR_NONE, ADDR_IP, ADDR_UNIX };

struct addr {
	uint8_t kind;
	uint8_t ip[16];
};

struct addr addr_of_sockaddr(const struct sockaddr *);
/* An address alone, or with a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1]:80. */
bool addr_parse(struct str text, struct addr *ret);
void addr_format(const struct addr *, char out[ADDR_TEXT_MAX]); /* "unix" for a Unix socket */
bool addr_is_loopback(const struct addr *);                     /* a Unix socket is, too */

struct addr_net {
	struct addr addr;
	uint8_t bits; /* of 128 */
};

/* "10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "unix". */
bool addr_net_parse(struct str text, struct addr_net *ret);
bool addr_net_has(const struct addr_net *, const struct addr *);

struct addr_nets {
	struct addr_net *v;
	size_t n;
};

bool addr_nets_have(const struct addr_nets *, const struct addr *);

#endif
