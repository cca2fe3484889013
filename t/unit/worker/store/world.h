/*
 * world - a store on a file of its own, in a process that is its host's only one.
 */
#ifndef T_UNIT_WORKER_STORE_WORLD_H
#define T_UNIT_WORKER_STORE_WORLD_H

#include "t/unit/unit.h"

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

/* A folder and a config; nothing is open. */
static inline void
world_init(struct world *w)
{
	*w = (struct world){.pending = 0};
	strcpy(w->folder, "/tmp/parley-store-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->path = xasprintf("%s/parley.db", w->folder);
	w->url = xasprintf("sqlite:%s", w->path);
	w->conf.store.url = w->url;
	w->conf.store.synchronous = "full";
	w->conf.store.acquire_timeout_ms = 10000;
	w->conf.store.commit_delay_ms = 2;
	w->conf.store.max_queue = 1000;
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
