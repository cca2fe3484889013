/*
 * addr - addresses of peers: small, without ports (common/netaddr.h has addresses to listen on).
 *
 * Pure. IPv4 is kept as mapped IPv6, so that both spellings are one address.
 */
#ifndef WORKER_HTTP_ADDR_H
#define WORKER_HTTP_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/netaddr.h"
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
/* What one customer of a network provider has: an IPv4 address, 2^64 of IPv6. */
void addr_format_network(const struct addr *, char out[ADDR_TEXT_MAX]);
bool addr_is_loopback(const struct addr *); /* a Unix socket is, too */

/* Networks whose word is believed. A peer on a Unix socket counts as 127.0.0.1 here. */
struct addr_nets {
	struct netaddr_net *v;
	size_t n;
};

bool addr_nets_have(const struct addr_nets *, const struct addr *);

#endif
