/* address - the special-purpose registries of RFC 6890, and IPv4 in disguise. */
#include "worker/client/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "common/check.h"

static bool
v4_is_private(uint32_t ip)
{
	static const struct {
		uint32_t net;
		unsigned bits;
	} nets[] = {
	    {0x00000000, 8},  /* this network */
	    {0x0a000000, 8},  /* private */
	    {0x64400000, 10}, /* shared, RFC 6598 */
	    {0x7f000000, 8},  /* loopback */
	    {0xa9fe0000, 16}, /* link-local; clouds keep their metadata there */
	    {0xac100000, 12}, /* private */
	    {0xc0000000, 24}, /* protocol assignments */
	    {0xc0586300, 24}, /* 6to4 relays */
	    {0xc0a80000, 16}, /* private */
	    {0xc6120000, 15}, /* benchmarks */
	    {0xe0000000, 3},  /* multicast, reserved, broadcast */
	};

	for (size_t i = 0; i < ARRAY_LEN(nets); i++) {
		if ((ip ^ nets[i].net) >> (32 - nets[i].bits) == 0)
			return true;
	}
	return false;
}

static uint32_t
v4_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool
v6_is_private(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}, compatible[12] = {0},
			     translated[12] = {[8] = 0xff, [9] = 0xff}, /* RFC 2765 */
	    nat64[12] = {0x00, 0x64, 0xff, 0x9b},
			     nat64_local[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01},
			     teredo[4] = {0x20, 0x01, 0x00, 0x00};

	if (memcmp(ip, mapped, sizeof(mapped)) == 0 || memcmp(ip, nat64, sizeof(nat64)) == 0 ||
	    memcmp(ip, translated, sizeof(translated)) == 0)
		return v4_is_private(v4_at(ip + 12));
	if (ip[0] == 0x20 && ip[1] == 0x02) /* 6to4 */
		return v4_is_private(v4_at(ip + 2));
	return memcmp(ip, compatible, sizeof(compatible)) == 0 || /* and :: and ::1 */
	       memcmp(ip, nat64_local, sizeof(nat64_local)) == 0 ||
	       memcmp(ip, teredo, sizeof(teredo)) == 0 ||
	       (ip[0] & 0xfe) == 0xfc ||                    /* unique local */
	       (ip[0] == 0xfe && (ip[1] & 0x80) == 0x80) || /* link-local, site-local */
	       ip[0] == 0xff;                               /* multicast */
}

bool
address_is_private(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		return v4_is_private(ntohl(in.sin_addr.s_addr));
	}
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		return v6_is_private(in6.sin6_addr.s6_addr);
	}
	return true;
}

bool
address_text_is_private(const char *ip)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, ip, &v4) == 1)
		return v4_is_private(ntohl(v4.s_addr));
	if (inet_pton(AF_INET6, ip, &v6) == 1)
		return v6_is_private(v6.s6_addr);
	return true;
}
