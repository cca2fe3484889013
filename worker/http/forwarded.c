/*
 * forwarded - see forwarded.h.
 */
#include "worker/http/forwarded.h"

#include <netinet/in.h>
#include <string.h>

/* Cuts the last element of a comma-separated list off; quotes are respected. */
static struct str
split_last(struct str *rest)
{
	struct str last = *rest;
	bool is_quoted = false;
	size_t cut = SIZE_MAX;

	for (size_t i = 0; i < rest->len; i++) {
		if (rest->p[i] == '"')
			is_quoted = !is_quoted;
		else if (rest->p[i] == ',' && !is_quoted)
			cut = i;
	}
	if (cut == SIZE_MAX) {
		rest->len = 0;
		return str_trim(last);
	}
	last = str_sub(rest->p + cut + 1, rest->len - cut - 1);
	rest->len = cut;
	return str_trim(last);
}

/* The value of for= in one element of Forwarded; empty: none. */
static struct str
for_of_element(struct str element)
{
	while (element.len > 0) {
		struct str value = str_trim(str_split(&element, ';'));
		struct str name = str_trim(str_split(&value, '='));

		if (!str_ieq(name, STR("for")))
			continue;
		value = str_trim(value);
		if (value.len >= 2 && value.p[0] == '"' && value.p[value.len - 1] == '"')
			return str_sub(value.p + 1, value.len - 2);
		return value;
	}
	return STR_NONE;
}

static bool
walk(struct str value, bool is_rfc7239, const struct addr_nets *trusted, struct addr *client)
{
	struct addr hop;

	while (value.len > 0) {
		struct str element = split_last(&value);

		if (!addr_nets_have(trusted, client))
			return false;
		if (is_rfc7239)
			element = for_of_element(element);
		if (!addr_parse(element, &hop))
			return false;
		*client = hop;
	}
	return true;
}

bool
forwarded_walk_for(struct str value, const struct addr_nets *trusted, struct addr *client)
{
	return walk(value, false, trusted, client);
}

bool
forwarded_walk(struct str value, const struct addr_nets *trusted, struct addr *client)
{
	return walk(value, true, trusted, client);
}

/* ---- PROXY protocol, https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt ---- */

enum { V1_MAX = 107, V2_HEAD = 16 };

static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static bool
v1_parse_line(struct str line, struct addr *ret)
{
	struct addr source, target;
	struct str protocol;
	uint64_t port;

	str_split(&line, ' '); /* PROXY */
	protocol = str_split(&line, ' ');
	if (str_eq(protocol, STR("UNKNOWN")))
		return true;
	if (!str_eq(protocol, STR("TCP4")) && !str_eq(protocol, STR("TCP6")))
		return false;
	if (!addr_parse(str_split(&line, ' '), &source) ||
	    !addr_parse(str_split(&line, ' '), &target))
		return false;
	if (!str_to_u64(str_split(&line, ' '), &port) || port > 65535 || !str_to_u64(line, &port) ||
	    port > 65535)
		return false;
	*ret = source;
	return true;
}

static long
v1_parse(const char *buf, size_t len, struct addr *ret)
{
	size_t seen = len < V1_MAX ? len : V1_MAX;
	const char *lf = memchr(buf, '\n', seen);

	if (lf == NULL)
		return len < V1_MAX ? 0 : PROXY_BAD;
	if (lf[-1] != '\r' || !v1_parse_line(str_sub(buf, (size_t)(lf - 1 - buf)), ret))
		return PROXY_BAD;
	return lf + 1 - buf;
}

static long
v2_parse(const char *buf, size_t len, struct addr *ret)
{
	const uint8_t *b = (const uint8_t *)buf;
	size_t body;
	bool is_local;

	if (len < V2_HEAD)
		return 0;
	body = (size_t)b[14] << 8 | b[15];
	if (b[12] >> 4 != 2 || (b[12] & 15) > 1 || V2_HEAD + body > PROXY_HEADER_MAX)
		return PROXY_BAD;
	if (len < V2_HEAD + body)
		return 0;
	is_local = (b[12] & 15) == 0;
	if (!is_local && b[13] >> 4 == 1) { /* IPv4 */
		struct sockaddr_in sa = {.sin_family = AF_INET};

		if (body < 12)
			return PROXY_BAD;
		memcpy(&sa.sin_addr, buf + V2_HEAD, 4);
		*ret = addr_of_sockaddr((const struct sockaddr *)&sa);
	} else if (!is_local && b[13] >> 4 == 2) { /* IPv6 */
		struct sockaddr_in6 sa = {.sin6_family = AF_INET6};

		if (body < 36)
			return PROXY_BAD;
		memcpy(&sa.sin6_addr, buf + V2_HEAD, 16);
		*ret = addr_of_sockaddr((const struct sockaddr *)&sa);
	}
	return (long)(V2_HEAD + body);
}

long
proxy_header_parse(const char *buf, size_t len, struct addr *ret)
{
	static const char v1_start[6] = "PROXY ";
	size_t v1_seen = len < sizeof(v1_start) ? len : sizeof(v1_start);
	size_t v2_seen = len < sizeof(v2_signature) ? len : sizeof(v2_signature);

	if (len == 0)
		return 0;
	if (memcmp(buf, v1_start, v1_seen) == 0)
		return v1_seen < sizeof(v1_start) ? 0 : v1_parse(buf, len, ret);
	if (memcmp(buf, v2_signature, v2_seen) == 0)
		return v2_seen < sizeof(v2_signature) ? 0 : v2_parse(buf, len, ret);
	return PROXY_NONE;
}
