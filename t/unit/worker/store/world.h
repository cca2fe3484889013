/*
 * world - a store of its own, in a process that is its host's only one: a SQLite file, or the
 * PostgreSQL database that PARLEY_TEST_STORE names, emptied for each.
 */
#ifndef T_UNIT_WORKER_STORE_WORLD_H
#define T_UNIT_WORKER_STORE_WORLD_H

#include "t/unit/unit.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/err.h"
#include "common/id.h"
#include "worker/loop/loop.h"
#include "worker/store/store.h"

enum { WORLD_PATIENCE_MS = 30000 };

struct world {
	char folder[64];
	char *path, *url;
	struct conf conf;
	struct loop *loop;
	struct store *store;
	struct loop_timer patience, turn;
	unsigned pending; /* callbacks that must still come */
	bool is_waiting;
};

static inline void
world_lose_patience(struct loop_timer *timer)
{
	(void)timer;
	fail_msg("a callback did not come");
}

/* NULL: SQLite. */
static inline const char *
world_postgres(void)
{
	return getenv("PARLEY_TEST_STORE");
}

/* A connection beside the store's. */
static inline PGconn *
world_connect(void)
{
	PGconn *pq = PQconnectdb(world_postgres());

	if (PQstatus(pq) != CONNECTION_OK)
		fail_msg("%s", PQerrorMessage(pq));
	return pq;
}

static inline void
world_sql(PGconn *pq, const char *sql)
{
	PGresult *res = PQexec(pq, sql);

	if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(pq));
	PQclear(res);
}

static inline void
world_empty_postgres(void)
{
	PGconn *pq = world_connect();

	world_sql(pq, "SET client_min_messages = warning; DROP SCHEMA public CASCADE;"
		      " CREATE SCHEMA public");
	PQfinish(pq);
}

/* A folder and a config; nothing is open. */
static inline void
world_init(struct world *w)
{
	*w = (struct world){.pending = 0};
	strcpy(w->folder, "/tmp/parley-store-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->path = xasprintf("%s/parley.db", w->folder);
	w->url =
	    world_postgres() != NULL ? xstrdup(world_postgres()) : xasprintf("sqlite:%s", w->path);
	if (world_postgres() != NULL)
		world_empty_postgres();
	w->conf.store.url = w->url;
	w->conf.store.synchronous = "full";
	w->conf.store.acquire_timeout_ms = 10000;
	w->conf.store.commit_delay_ms = 2;
	w->conf.store.max_queue = 1000;
	w->conf.workers = 1;
	w->conf.store.pool_size = 10;
	w->conf.store.max_overflow = 5;
	w->conf.store.connect_timeout_ms = 10000;
	w->conf.store.check_after_ms = 30000;
	w->conf.store.statement_timeout_ms = 30000;
	w->patience.on_fire = world_lose_patience;
}

static inline void
world_start(struct world *w)
{
	assert_int_equal(store_migrate(&w->conf), 0);
	w->loop = loop_new();
	w->store = store_new(w->loop, &w->conf, NULL, NULL);
	assert_non_null(w->store);
}

static inline void
world_fini(struct world *w)
{
	char *rm = xasprintf("rm -rf %s", w->folder);

	store_free(&w->store);
	loop_free(&w->loop);
	assert_int_equal(system(rm), 0);
	free(rm);
	free(w->path);
	free(w->url);
}

/* A verb is called that will end in world_came(). */
static inline void
world_expect(struct world *w)
{
	w->pending++;
}

static inline void
world_came(struct world *w)
{
	assert_true(w->pending > 0);
	if (--w->pending == 0 && w->is_waiting)
		loop_stop(w->loop);
}

static inline void
world_wait(struct world *w)
{
	if (w->pending == 0)
		return;
	loop_timer_set(w->loop, &w->patience, WORLD_PATIENCE_MS);
	w->is_waiting = true;
	loop_run(w->loop);
	w->is_waiting = false;
	loop_timer_stop(w->loop, &w->patience);
	assert_int_equal(w->pending, 0);
}

static inline void
world_stop_turning(struct loop_timer *timer)
{
	loop_stop(container_of(timer, struct world, turn)->loop);
}

/* Lets the loop run for a moment; for conditions that no callback tells. */
static inline void
world_turn(struct world *w)
{
	w->turn.on_fire = world_stop_turning;
	loop_timer_set(w->loop, &w->turn, 5);
	loop_run(w->loop);
}

#endif
