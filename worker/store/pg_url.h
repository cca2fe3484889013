/*
 * pg_url - a postgres:// address as libpq's keywords, with what we want unless it says otherwise.
 *
 * libpq resolves names while it blocks: names are looked up elsewhere (worker/loop/resolve.h)
 * and given as hostaddr, the name staying beside it for TLS.
 */
#ifndef WORKER_STORE_PG_URL_H
#define WORKER_STORE_PG_URL_H

#include <stdbool.h>
#include <stddef.h>

enum { PG_KEYWORDS_MAX = 64, PG_HOSTS_MAX = 16 };

struct pg_url {
	size_t count;
	char *keywords[PG_KEYWORDS_MAX + 1],
	    *values[PG_KEYWORDS_MAX + 1]; /* NULL behind the last */
	size_t host_count;
	char *hosts[PG_HOSTS_MAX]; /* "": the default Unix socket */
	char *ports[PG_HOSTS_MAX]; /* "": the default */
	bool has_addresses;        /* hostaddr was given: nothing to look up */
};

bool pg_url_is_ours(const char *url);
/* False: not an address of PostgreSQL's, or more than there is room for. */
bool pg_url_parse(const char *url, struct pg_url *ret);
void pg_url_fini(struct pg_url *);

/* Is this host a name that must be looked up? Not a path, not an address. */
bool pg_url_is_name(const char *host);

/*
 * Sets hostaddr (with host and port in step): addresses[i] are those of hosts[i], with
 * commas between; NULL for what is no name or was not found. False: nothing to connect to.
 */
bool pg_url_set_addresses(struct pg_url *, char *const addresses[PG_HOSTS_MAX]);

#endif
