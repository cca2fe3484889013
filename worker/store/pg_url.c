/*
 * pg_url - a postgres:// address as libpq's keywords, with what we want unless it says otherwise.
 */
#include "worker/store/pg_url.h"

#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/check.h"

static const struct {
	const char *keyword, *value;
	bool is_ours; /* whatever the address says */
} wanted[] = {
    {"client_encoding", "UTF8", true},
    {"fallback_application_name", "parley", true},
    /* A server that was demoted takes no writes: the next of the hosts is tried. */
    {"target_session_attrs", "read-write", false},
    /* Kerberos would ask its ticket cache and its server in the middle of our loop. */
    {"gssencmode", "disable", false},
    /* A peer that vanished without a word is noticed by the kernel, too. */
    {"keepalives_idle", "15", false},
    {"keepalives_interval", "5", false},
    {"keepalives_count", "3", false},
    {"tcp_user_timeout", "15000", false},
};

bool
pg_url_is_ours(const char *url)
{
	return strncmp(url, "postgres://", 11) == 0 || strncmp(url, "postgresql://", 13) == 0;
}

static int
find(const struct pg_url *url, const char *keyword)
{
	for (size_t i = 0; i < url->count; i++)
		if (strcmp(url->keywords[i], keyword) == 0)
			return (int)i;
	return -1;
}

static bool
set(struct pg_url *url, const char *keyword, const char *value)
{
	int i = find(url, keyword);

	if (i < 0) {
		if (url->count == PG_KEYWORDS_MAX)
			return false;
		i = (int)url->count++;
		url->keywords[i] = xstrdup(keyword);
	}
	free(url->values[i]);
	url->values[i] = xstrdup(value);
	return true;
}

static const char *
get(const struct pg_url *url, const char *keyword)
{
	int i = find(url, keyword);

	return i < 0 ? "" : url->values[i];
}

/* Comma-separated, empty parts included. False: too many. */
static bool
split(const char *list, char *parts[PG_HOSTS_MAX], size_t *ret_count)
{
	const char *p = list;

	for (size_t n = 0; n < PG_HOSTS_MAX; n++) {
		size_t len = strcspn(p, ",");

		parts[n] = xstrndup(p, len);
		*ret_count = n + 1;
		if (p[len] == '\0')
			return true;
		p += len + 1;
	}
	return false;
}

/* One port may stand for all hosts. */
static bool
split_hosts(struct pg_url *url)
{
	size_t ports;

	if (!split(get(url, "host"), url->hosts, &url->host_count) ||
	    !split(get(url, "port"), url->ports, &ports) ||
	    (ports != 1 && ports != url->host_count))
		return false;
	for (size_t i = 1; ports == 1 && i < url->host_count; i++)
		url->ports[i] = xstrdup(url->ports[0]);
	url->has_addresses = get(url, "hostaddr")[0] != '\0';
	return true;
}

bool
pg_url_parse(const char *text, struct pg_url *ret)
{
	struct pg_url url = {.count = 0};
	PQconninfoOption *options = pg_url_is_ours(text) ? PQconninfoParse(text, NULL) : NULL;
	bool is_good = options != NULL;

	for (PQconninfoOption *o = options; is_good && o->keyword != NULL; o++)
		if (o->val != NULL)
			is_good = set(&url, o->keyword, o->val);
	PQconninfoFree(options);
	for (size_t i = 0; is_good && i < ARRAY_LEN(wanted); i++)
		if (wanted[i].is_ours || find(&url, wanted[i].keyword) < 0)
			is_good = set(&url, wanted[i].keyword, wanted[i].value);
	if (is_good)
		is_good = split_hosts(&url);
	if (is_good)
		*ret = url;
	else
		pg_url_fini(&url);
	return is_good;
}

void
pg_url_fini(struct pg_url *url)
{
	for (size_t i = 0; i < url->count; i++) {
		free(url->keywords[i]);
		free(url->values[i]);
	}
	for (size_t i = 0; i < PG_HOSTS_MAX; i++) {
		free(url->hosts[i]);
		free(url->ports[i]);
	}
	*url = (struct pg_url){.count = 0};
}

bool
pg_url_is_name(const char *host)
{
	struct in6_addr address;

	return host[0] != '\0' && host[0] != '/' && host[0] != '@' &&
	       inet_pton(AF_INET, host, &address) != 1 && inet_pton(AF_INET6, host, &address) != 1;
}

static void
add_part(struct buf *list, const char *part, size_t len, bool is_first)
{
	if (!is_first)
		buf_add_char(list, ',');
	buf_add(list, part, len);
}

bool
pg_url_set_addresses(struct pg_url *url, char *const addresses[PG_HOSTS_MAX])
{
	struct buf hosts = BUF_INIT, ports = BUF_INIT, all = BUF_INIT;
	size_t count = 0;
	bool is_good;

	for (size_t i = 0; i < url->host_count; i++) {
		bool is_name = pg_url_is_name(url->hosts[i]);
		const char *p = is_name ? addresses[i] : "";

		for (bool is_more = p != NULL; is_more; count++) {
			size_t len = strcspn(p, ",");

			add_part(&hosts, url->hosts[i], strlen(url->hosts[i]), count == 0);
			add_part(&ports, url->ports[i], strlen(url->ports[i]), count == 0);
			add_part(&all, p, len, count == 0);
			is_more = p[len] == ',';
			p += len + 1;
		}
	}
	is_good = count > 0 && set(url, "host", hosts.data) && set(url, "port", ports.data) &&
		  set(url, "hostaddr", all.data);
	buf_fini(&hosts);
	buf_fini(&ports);
	buf_fini(&all);
	return is_good;
}
