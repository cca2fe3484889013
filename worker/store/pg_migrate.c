/*
 * pg_migrate - brings a PostgreSQL database to the present schema, and says when the server
 * will not have enough connections for us.
 *
 * It may block: it runs in a process of its own. An advisory lock is the lock: of two that
 * migrate at once the second waits and finds nothing left to do.
 */
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/migrations.h"
#include "worker/store/pg_url.h"

enum { RETRY_MS = 250 };

/* The number is "parley" in ASCII. */
#define TAKE_LOCK "SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock(123563833845113)"

static void
say_failed(PGconn *pq, const char *during)
{
	char text[256];
	size_t len;

	snprintf(text, sizeof(text), "%s", PQerrorMessage(pq));
	len = strcspn(text, "\n");
	log_error(
	    "store migration failed during=%s reason=%s", during, log_quote(str_sub(text, len)).s);
}

/* One or more statements; the last one's result, or NULL (logged). */
static PGresult *
ask(PGconn *pq, const char *during, const char *sql)
{
	PGresult *res = PQexec(pq, sql);
	ExecStatusType status = PQresultStatus(res);

	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return res;
	say_failed(pq, during);
	PQclear(res);
	return NULL;
}

static int
run(PGconn *pq, const char *during, const char *sql)
{
	PGresult *res = ask(pq, during, sql);
	int err = res != NULL ? 0 : E_STORE_UNAVAILABLE;

	PQclear(res);
	return err;
}

static int
number(PGconn *pq, const char *during, const char *sql, int *ret)
{
	PGresult *res = ask(pq, during, sql);

	if (res == NULL)
		return E_STORE_UNAVAILABLE;
	*ret = PQntuples(res) > 0 ? (int)strtol(PQgetvalue(res, 0, 0), NULL, 10) : 0;
	PQclear(res);
	return 0;
}

/* ---- the schema ---- */

static int
present_version(PGconn *pq, int *ret)
{
	int is_there = 0, err;

	*ret = 0;
	err = number(
	    pq, "version", "SELECT (to_regclass('schema_migrations') IS NOT NULL)::int", &is_there);
	if (err != 0 || !is_there)
		return err;
	return number(
	    pq, "version", "SELECT coalesce(max(version), 0) FROM schema_migrations", ret);
}

static int
apply(PGconn *pq, const struct migration *m)
{
	char row[256];
	int err = run(pq, m->name, m->sql);

	snprintf(row, sizeof(row),
	    "INSERT INTO schema_migrations (version, name, applied_at) VALUES (%d, '%s', now())",
	    m->version, m->name);
	if (err == 0)
		err = run(pq, m->name, row);
	if (err == 0)
		log_info("store migrated version=%d name=%s", m->version, m->name);
	return err;
}

/* All steps in one transaction: a database is never seen half way. */
static int
apply_pending(PGconn *pq)
{
	const struct migration *m;
	int version = 0, err = run(pq, "begin", "BEGIN");

	if (err == 0)
		err = run(pq, "lock", TAKE_LOCK);
	if (err == 0)
		err = present_version(pq, &version);
	while (err == 0 && (m = migration_after("postgres", version)) != NULL) {
		err = apply(pq, m);
		version = m->version;
	}
	return err == 0 ? run(pq, "commit", "COMMIT") : err;
}

/* ---- what the server allows ---- */

static void
look_at_limits(PGconn *pq, const struct conf *conf)
{
	int64_t wanted = conf->workers * (conf->store.pool_size + conf->store.max_overflow);
	int allowed = 0;

	if (number(pq, "limits",
		"SELECT current_setting('max_connections')::int"
		" - current_setting('superuser_reserved_connections')::int",
		&allowed) != 0)
		return;
	if (wanted > allowed)
		log_warn("store connections may run out wanted=%" PRId64
			 " allowed=%d workers=%" PRId64 " pool_size=%" PRId64
			 " max_overflow=%" PRId64 " hint=\"max_connections of the server, for all "
			 "hosts together\"",
		    wanted, allowed, conf->workers, conf->store.pool_size,
		    conf->store.max_overflow);
}

/* ---- connecting ---- */

/* A server that starts beside us gets a moment. */
static PGconn *
connect_in_time(const struct pg_url *url, uint64_t patience_ms)
{
	const struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
	uint64_t end_ms = clock_mono_ms() + patience_ms;

	for (;;) {
		PGconn *pq = PQconnectdbParams(
		    (const char *const *)url->keywords, (const char *const *)url->values, 0);

		if (PQstatus(pq) == CONNECTION_OK)
			return pq;
		if (clock_mono_ms() >= end_ms) {
			say_failed(pq, "connect");
			PQfinish(pq);
			return NULL;
		}
		PQfinish(pq);
		nanosleep(&pause, NULL);
	}
}

static void
ignore_notice(void *arg, const PGresult *res)
{
	(void)arg;
	(void)res;
}

int
pg_migrate(const struct conf *conf)
{
	struct pg_url url;
	PGconn *pq;
	int err;

	if (!pg_url_parse(conf->store.url, &url)) {
		log_error("store url is not understood");
		return E_STORE_UNAVAILABLE;
	}
	pq = connect_in_time(&url, conf->store.connect_timeout_ms);
	pg_url_fini(&url);
	if (pq == NULL)
		return E_STORE_UNAVAILABLE;
	PQsetNoticeReceiver(pq, ignore_notice, NULL);
	err = apply_pending(pq);
	if (err == 0)
		look_at_limits(pq, conf);
	PQfinish(pq);
	return err;
}
