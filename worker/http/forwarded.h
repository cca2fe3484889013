/*
 * forwarded - who the client is, told by proxies: X-Forwarded-For, Forwarded
 * (RFC 7239) and the PROXY protocol, versions 1 and 2.
 *
 * Pure. The caller asks only where the peer is a trusted proxy.
 */
#ifndef WORKER_HTTP_FORWARDED_H
#define WORKER_HTTP_FORWARDED_H

#include "worker/http/addr.h"

/*
 * One header's list of hops, newest last, walked from its end: *client is moved to each hop as long
 * as the one that named it is trusted. False when the walk ended within it (untrusted hop, or one
 * that is not an address): earlier headers are not to be believed.
 */
bool forwarded_walk_for(struct str value, const struct addr_nets *trusted, struct addr *client);
bool forwarded_walk(struct str value, const struct addr_nets *trusted, struct addr *client);

enum { PROXY_HEADER_MAX = 2048, PROXY_NONE = -1, PROXY_BAD = -2 };

/*
 * The length of a PROXY protocol header at the start of buf, *ret the client it names (left alone
 * when it names none: LOCAL, UNKNOWN). 0: not complete yet. PROXY_NONE: there is none.
 * PROXY_BAD: it is malformed.
 */
long proxy_header_parse(const char *buf, size_t len, struct addr *ret);

#endif
