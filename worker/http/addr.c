/*
 * addr - see addr.h.
 */
#include "worker/http/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/check.h"

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

static struct addr
addr_of_ipv4(const void *bytes)
{
	struct addr a = {.kind = ADDR_IP};

	memcpy(a.ip, mapped_prefix, 12);
	memcpy(a.ip + 12, bytes, 4);
	return a;
}

struct addr
addr_of_sockaddr(const struct sockaddr *sa)
{
	struct addr a = {.kind = ADDR_NONE};

	switch (sa->sa_family) {
	case AF_INET:
		return addr_of_ipv4(&((const struct sockaddr_in *)sa)->sin_addr);
	case AF_INET6:
		a.kind = ADDR_IP;
		memcpy(a.ip, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
		break;
	case AF_UNIX:
		a.kind = ADDR_UNIX;
		break;
	default:
		break;
	}
	return a;
}

static bool
is_mapped(const struct addr *a)
{
	return memcmp(a->ip, mapped_prefix, 12) == 0;
}

/* Cuts brackets and port off. */
static struct str
host_part(struct str t)
{
	const char *colon, *end;

	if (t.len > 0 && t.p[0] == '[') {
		end = memchr(t.p, ']', t.len);
		if (end == NULL || (end + 1 < t.p + t.len && end[1] != ':'))
			return STR_NONE;
		return str_sub(t.p + 1, (size_t)(end - t.p - 1));
	}
	colon = memchr(t.p, ':', t.len);
	if (colon != NULL && memchr(colon + 1, ':', t.len - (size_t)(colon + 1 - t.p)) == NULL)
		t.len = (size_t)(colon - t.p);
	return t;
}

bool
addr_parse(struct str text, struct addr *ret)
{
	char host[ADDR_TEXT_MAX];
	uint8_t bytes[16];

	if (text.len == 0)
		return false;
	text = host_part(text);
	if (text.len == 0 || text.len >= sizeof(host))
		return false;
	memcpy(host, text.p, text.len);
	host[text.len] = '\0';
	if (strlen(host) != text.len)
		return false;
	if (inet_pton(AF_INET, host, bytes) == 1) {
		*ret = addr_of_ipv4(bytes);
		return true;
	}
	if (inet_pton(AF_INET6, host, bytes) != 1)
		return false;
	ret->kind = ADDR_IP;
	memcpy(ret->ip, bytes, 16);
	return true;
}

void
addr_format(const struct addr *a, char out[ADDR_TEXT_MAX])
{
	const char *text = a->kind == ADDR_UNIX ? "unix" : "-";

	if (a->kind == ADDR_IP)
		text = is_mapped(a) ? inet_ntop(AF_INET, a->ip + 12, out, ADDR_TEXT_MAX)
				    : inet_ntop(AF_INET6, a->ip, out, ADDR_TEXT_MAX);
	check(text != NULL);
	if (text != out)
		snprintf(out, ADDR_TEXT_MAX, "%s", text);
}

void
addr_format_network(const struct addr *a, char out[ADDR_TEXT_MAX])
{
	struct addr network = *a;

	if (a->kind == ADDR_IP && !is_mapped(a))
		memset(network.ip + 8, 0, 8);
	addr_format(&network, out);
}

bool
addr_is_loopback(const struct addr *a)
{
	static const uint8_t loopback6[16] = {[15] = 1};

	if (a->kind == ADDR_UNIX)
		return true;
	if (a->kind != ADDR_IP)
		return false;
	return is_mapped(a) ? a->ip[12] == 127 : memcmp(a->ip, loopback6, 16) == 0;
}

bool
addr_nets_have(const struct addr_nets *nets, const struct addr *a)
{
	static const uint8_t localhost[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};

	if (a->kind == ADDR_NONE)
		return false;
	memcpy(&sa.sin6_addr, a->kind == ADDR_UNIX ? localhost : a->ip, 16);
	for (size_t i = 0; i < nets->n; i++) {
		if (netaddr_net_has(&nets->v[i], (const struct sockaddr *)&sa))
			return true;
	}
	return false;
}
