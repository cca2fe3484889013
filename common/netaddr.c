/* netaddr - parsing numeric addresses and matching networks. */
#include "common/netaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* inet_pton wants a terminated text. */
static bool
parse_ip(int family, struct str s, void *ret)
{
	char text[INET6_ADDRSTRLEN];

	if (s.len == 0 || s.len >= sizeof(text) || memchr(s.p, '\0', s.len) != NULL)
		return false;
	memcpy(text, s.p, s.len);
	text[s.len] = '\0';
	return inet_pton(family, text, ret) == 1;
}

static bool
parse_unix(struct str path, struct netaddr *ret)
{
	struct netaddr a = {.un.sun_family = AF_UNIX};

	if (path.len == 0 || path.len >= sizeof(a.un.sun_path) ||
	    memchr(path.p, '\0', path.len) != NULL)
		return false;
	memcpy(a.un.sun_path, path.p, path.len);
	a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
	*ret = a;
	return true;
}

bool
netaddr_parse(struct str s, struct netaddr *ret)
{
	struct netaddr a = {.len = 0};
	uint64_t port;

	if (str_starts(s, STR("unix:")))
		return parse_unix(str_sub(s.p + 5, s.len - 5), ret);
	const char *colon = s.len > 0 ? memrchr(s.p, ':', s.len) : NULL;
	if (colon == NULL)
		return false;
	struct str host = str_sub(s.p, (size_t)(colon - s.p));
	if (!str_to_u64(str_sub(colon + 1, s.len - host.len - 1), &port) || port > UINT16_MAX)
		return false;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a.storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a.storage;
	if (host.len == 0 || (host.len > 2 && *host.p == '[' && host.p[host.len - 1] == ']')) {
		struct str inner = host.len == 0 ? STR("::") : str_sub(host.p + 1, host.len - 2);

		if (!parse_ip(AF_INET6, inner, &v6->sin6_addr))
			return false;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		a.len = sizeof(*v6);
	} else {
		if (!parse_ip(AF_INET, host, &v4->sin_addr))
			return false;
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		a.len = sizeof(*v4);
	}
	*ret = a;
	return true;
}

bool
netaddr_is_unix(const struct netaddr *a)
{
	return a->sa.sa_family == AF_UNIX;
}

/* As 16 bytes, IPv4 mapped. */
static bool
to_bytes(const struct sockaddr *sa, uint8_t ret[16])
{
	if (sa->sa_family == AF_INET6) {
		memcpy(ret, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
		return true;
	}
	if (sa->sa_family != AF_INET)
		return false;
	memcpy(ret, v4_mapped, 12);
	memcpy(ret + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	return true;
}

bool
netaddr_is_loopback(const struct netaddr *a)
{
	static const uint8_t v6_loopback[16] = {[15] = 1};
	uint8_t bytes[16];

	if (netaddr_is_unix(a))
		return true;
	if (!to_bytes(&a->sa, bytes))
		return false;
	return memcmp(bytes, v6_loopback, 16) == 0 ||
	       (memcmp(bytes, v4_mapped, 12) == 0 && bytes[12] == 127);
}

uint16_t
netaddr_port(const struct netaddr *a)
{
	if (a->sa.sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)&a->storage)->sin6_port);
	if (a->sa.sa_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)&a->storage)->sin_port);
	return 0;
}

void
netaddr_format(const struct netaddr *a, char out[NETADDR_TEXT_MAX])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->storage;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->storage;
	char host[INET6_ADDRSTRLEN] = "?";

	if (netaddr_is_unix(a)) {
		snprintf(out, NETADDR_TEXT_MAX, "unix:%s", a->un.sun_path);
		return;
	}
	bool is_v6 = a->sa.sa_family == AF_INET6;
	inet_ntop(a->sa.sa_family, is_v6 ? (const void *)&v6->sin6_addr : &v4->sin_addr, host,
	    sizeof(host));
	snprintf(out, NETADDR_TEXT_MAX, is_v6 ? "[%s]:%u" : "%s:%u", host, netaddr_port(a));
}

static bool
bits_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;
	uint8_t mask = (uint8_t)(0xff00u >> rest);

	return memcmp(a, b, bytes) == 0 && (rest == 0 || ((a[bytes] ^ b[bytes]) & mask) == 0);
}

static bool
has_host_bits(const struct netaddr_net *net)
{
	for (unsigned bit = net->prefix_bits; bit < 128; bit++) {
		if (net->bytes[bit / 8] & (0x80u >> (bit % 8)))
			return true;
	}
	return false;
}

bool
netaddr_net_parse(struct str s, struct netaddr_net *ret)
{
	struct netaddr_net net = {.prefix_bits = 128};
	struct str bits_text = s, host = str_split(&bits_text, '/');
	unsigned offset = 0;
	uint64_t bits;

	if (parse_ip(AF_INET, host, net.bytes + 12)) {
		memcpy(net.bytes, v4_mapped, 12);
		offset = 96;
	} else if (!parse_ip(AF_INET6, host, net.bytes)) {
		return false;
	}
	if (bits_text.p != NULL) {
		if (!str_to_u64(bits_text, &bits) || bits > 128 - offset)
			return false;
		net.prefix_bits = (uint8_t)(bits + offset);
	}
	if (has_host_bits(&net))
		return false;
	*ret = net;
	return true;
}

bool
netaddr_net_has(const struct netaddr_net *net, const struct sockaddr *sa)
{
	uint8_t bytes[16];

	return to_bytes(sa, bytes) && bits_equal(net->bytes, bytes, net->prefix_bits);
}
