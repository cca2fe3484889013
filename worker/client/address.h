/*
 * address - is an address one that requests on behalf of others must not reach?
 *
 * Loopback, private, link-local, shared, multicast, reserved; also where an IPv4
 * address is written inside an IPv6 one. Pure.
 */
#ifndef WORKER_CLIENT_ADDRESS_H
#define WORKER_CLIENT_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

/* What is neither IPv4 nor IPv6 is private. */
bool address_is_private(const struct sockaddr *);
bool address_text_is_private(const char *ip); /* numeric; what is not an address is private */

#endif
