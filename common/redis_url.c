/* redis_url - see redis_url.h. */
#include "common/redis_url.h"

static int
hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* False: too long, a NUL, or no percent-encoding. */
static bool
decode(struct str s, char *out, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; s.p != NULL && i < s.len; i++) {
		int c = (unsigned char)s.p[i];

		if (c == '%') {
			if (i + 2 >= s.len || hex_of(s.p[i + 1]) < 0 || hex_of(s.p[i + 2]) < 0)
				return false;
			c = hex_of(s.p[i + 1]) << 4 | hex_of(s.p[i + 2]);
			i += 2;
		}
		if (c == 0 || n + 1 >= max)
			return false;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return true;
}

static bool
take_number(struct str s, uint64_t max, uint64_t *ret)
{
	return str_to_u64(s, ret) && *ret <= max;
}

static bool
take_db(struct str s, struct redis_url *u)
{
	uint64_t db = 0;

	if (s.len > 0 && !take_number(s, REDIS_URL_DB_MAX, &db))
		return false;
	u->db = (uint32_t)db;
	return true;
}

/* user:password, user, :password */
static bool
take_account(struct str s, struct redis_url *u)
{
	struct str rest = s, user = str_split(&rest, ':');

	return decode(user, u->user, sizeof(u->user)) &&
	       decode(rest, u->password, sizeof(u->password));
}

static bool
take_host(struct str s, struct redis_url *u)
{
	struct str host = s, port = STR_NONE;
	uint64_t n = 6379;
	const char *end;

	if (s.len > 0 && s.p[0] == '[') {
		if ((end = memchr(s.p, ']', s.len)) == NULL)
			return false;
		host = str_sub(s.p + 1, (size_t)(end - s.p) - 1);
		port = str_sub(end + 1, s.len - host.len - 2);
		if (port.len > 0 && (port.p[0] != ':' || port.len == 1))
			return false;
		if (port.len > 0)
			port = str_sub(port.p + 1, port.len - 1);
	} else if ((end = memchr(s.p != NULL ? s.p : "", ':', s.len)) != NULL) {
		host = str_sub(s.p, (size_t)(end - s.p));
		port = str_sub(end + 1, s.len - host.len - 1);
		if (port.len == 0)
			return false;
	}
	if (port.len > 0 && (!take_number(port, 65535, &n) || n == 0))
		return false;
	u->port = (uint16_t)n;
	return decode(host, u->host, sizeof(u->host)) && u->host[0] != '\0';
}

static const char *
parse_network(struct str rest, struct redis_url *u)
{
	struct str authority = str_split(&rest, '/');
	size_t at = authority.len;

	while (at > 0 && authority.p[at - 1] != '@')
		at--;
	if (at > 0 && !take_account(str_sub(authority.p, at - 1), u))
		return "user or password is not percent-encoded text of at most 511 bytes";
	if (!take_host(str_sub(authority.p + at, authority.len - at), u))
		return "expected HOST or HOST:PORT";
	return take_db(rest, u) ? NULL : "expected a database number after the last /";
}

static bool
take_option(struct str option, struct redis_url *u)
{
	struct str value = option, name = str_split(&value, '=');

	if (str_eq(name, STR("user")))
		return decode(value, u->user, sizeof(u->user));
	if (str_eq(name, STR("password")))
		return decode(value, u->password, sizeof(u->password));
	return str_eq(name, STR("db")) && take_db(value, u);
}

static const char *
parse_unix(struct str rest, struct redis_url *u)
{
	struct str path = str_split(&rest, '?');

	if (path.len == 0 || !decode(path, u->path, sizeof(u->path)))
		return "expected unix:PATH of at most 107 bytes";
	while (rest.len > 0)
		if (!take_option(str_split(&rest, '&'), u))
			return "expected user=, password= or db= after the ?";
	return NULL;
}

const char *
redis_url_parse(struct str s, struct redis_url *ret)
{
	static const struct str tls = STR("rediss://"), plain = STR("redis://"),
				local = STR("unix:");

	memset(ret, 0, sizeof(*ret));
	if (str_starts(s, local))
		return parse_unix(str_sub(s.p + local.len, s.len - local.len), ret);
	ret->is_tls = str_starts(s, tls);
	if (ret->is_tls)
		return parse_network(str_sub(s.p + tls.len, s.len - tls.len), ret);
	if (str_starts(s, plain))
		return parse_network(str_sub(s.p + plain.len, s.len - plain.len), ret);
	return "expected redis://, rediss:// or unix:";
}
