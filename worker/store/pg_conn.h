/*
 * pg_conn - one connection to PostgreSQL on the loop: opened, written to, read from, found
 * broken. Non-blocking libpq in pipeline mode. Knows nothing of operations.
 *
 *   RESOLVE -> CONNECT -> SET UP -> open
 *
 * What is sent is a row of items, each with its kind and number, in batches that end with a
 * sync; results come back for them in that order.
 *
 * Callbacks come from the loop only, never from inside a verb: a verb that finds the
 * connection broken says so later. After on_broken nothing comes any more, and the callee
 * closes it with pg_conn_free().
 */
#ifndef WORKER_STORE_PG_CONN_H
#define WORKER_STORE_PG_CONN_H

#include <libpq-fe.h>

#include "common/buf.h"
#include "common/list.h"
#include "worker/loop/resolve.h"
#include "worker/loop/loop.h"
#include "worker/store/ops.h"
#include "worker/store/pg_pool.h"
#include "worker/store/pg_url.h"

struct pg_item {
	uint8_t kind; /* below PG_ITEM_OWN: the user's */
	uint8_t number;
};
enum { PG_ITEM_OWN = 128, PG_ITEM_SETUP, PG_ITEM_CHECK, PG_ITEM_SYNC };

struct pg_conn;

struct pg_conn_user {
	void (*on_open)(struct pg_conn *);
	void (*on_checked)(struct pg_conn *);
	void (*on_broken)(struct pg_conn *);
	/* A result of an item; borrowed. One of the sync is an error of the commit. */
	void (*on_result)(struct pg_conn *, struct pg_item, const PGresult *);
	void (*on_item_end)(struct pg_conn *, struct pg_item);
	void (*on_batch_end)(struct pg_conn *);
};

struct pg_conn_conf {
	const char *url;
	uint64_t connect_timeout_ms, check_timeout_ms;
	uint64_t statement_timeout_ms; /* 0: none */
};

struct pg_conn {
	struct pg_slot slot;
	const struct pg_conn_user *user;
	void *owner;
	struct list runs;            /* the user's: what is in progress, in order */
	uint64_t prepared[OP_COUNT]; /* the user's: a bit per statement */
	struct loop_timer run_timer; /* the user's */

	struct loop *loop;
	struct pg_conn_conf conf;
	struct pg_url url;
	struct resolve *resolve; /* of url.hosts[resolving] */
	size_t resolving;
	char *addresses[PG_HOSTS_MAX];
	PGconn *pq;
	struct loop_watch watch;
	struct loop_timer timer; /* of opening and checking */
	struct loop_post post;   /* says that it is broken */
	struct buf items;        /* struct pg_item, those that have no end yet */
	size_t items_taken;      /* bytes of them at the front that have */
	bool has_result;         /* the first of them has had one */
	bool is_open, is_broken, is_told;
	char reason[256]; /* why it is broken; may name hosts and users, no secrets */
};

/* Begins to open it. */
struct pg_conn *pg_conn_new(
    struct loop *, const struct pg_conn_conf *, const struct pg_conn_user *, void *owner);
void pg_conn_free(struct pg_conn **); /* closes it, whatever is in progress */

/* Asks the server for a sign of life: on_checked, or on_broken within check_timeout_ms. */
void pg_conn_check(struct pg_conn *);

/* Sending. false: it is broken (on_broken follows). */
bool pg_conn_prepare(struct pg_conn *, struct pg_item, const char *name, const char *sql);
bool pg_conn_run(struct pg_conn *, struct pg_item, const char *name, int count,
    const char *const *values, const int *lengths, const int *formats);
bool pg_conn_exec(struct pg_conn *, struct pg_item, const char *sql);
bool pg_conn_sync(struct pg_conn *); /* ends the batch and sends it on its way */

void pg_conn_break(struct pg_conn *, const char *reason); /* on_broken follows */

#endif
