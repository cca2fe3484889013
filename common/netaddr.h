/*
 * netaddr - addresses to listen on, and networks to believe.
 *
 * Numeric only: no name is ever resolved here.
 */
#ifndef COMMON_NETADDR_H
#define COMMON_NETADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/str.h"

struct netaddr {
	union {
		struct sockaddr sa;
		struct sockaddr_storage storage;
		struct sockaddr_un un;
	};
	socklen_t len;
};

enum { NETADDR_TEXT_MAX = 128 };

/* "127.0.0.1:8080", "[::1]:8080", ":8080" (every address, both families), "unix:PATH". */
bool netaddr_parse(struct str, struct netaddr *ret);
bool netaddr_is_unix(const struct netaddr *);
bool netaddr_is_loopback(const struct netaddr *); /* 127/8, ::1, ::ffff:127/104, or a Unix path */
uint16_t netaddr_port(const struct netaddr *);    /* 0 for a Unix path */
/* "127.0.0.1:8080", "[::1]:8080", "unix:PATH": what netaddr_parse() takes. */
void netaddr_format(const struct netaddr *, char out[NETADDR_TEXT_MAX]);

/* A network of one family; IPv4 is kept mapped into IPv6, so that both forms of a peer match. */
struct netaddr_net {
	uint8_t bytes[16];
	uint8_t prefix_bits; /* of the 128 */
};

/* "10.0.0.0/8", "10.1.2.3", "fd00::/8", "::1". Bits beyond the prefix must be zero. */
bool netaddr_net_parse(struct str, struct netaddr_net *ret);
/* Is this IPv4 or IPv6 address in the network? Unix: never. */
bool netaddr_net_has(const struct netaddr_net *, const struct sockaddr *);

#endif
