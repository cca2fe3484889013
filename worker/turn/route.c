/*
 * route - where a turn is: in this worker, in another one, or only in the record.
 *
 * Own map, then the owner table, then the record. The record's owner is asked for
 * its life: a live turn of a dead owner is declared lost, and read again.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/region.h"
#include "worker/turn/turn_impl.h"

enum {
	LOSE_TRIES_MAX = 3,
	RETRY_MS = 50,
	RETRY_MAX_MS = 500, /* each look asks Redis, and may ask the record */
};

struct route_search {
	struct list node; /* in turns->searches */
	struct turns *turns;
	struct id session_id, turn_id;
	route_on_found *on_found;
	uint64_t handle;
	void *arg;
	uint32_t tries;
	uint64_t since_us;
};

static void search_record(struct route_search *s);

static void
search_end(struct route_search *s, const struct route *r)
{
	list_del(&s->node);
	s->on_found(s->arg, s->turns, s->handle, r);
	free(s);
}

static void
search_failed(struct route_search *s, int err)
{
	struct route r = {.kind = ROUTE_FAILED, .err = err};

	search_end(s, &r);
}

static void
on_lost(void *arg, int err)
{
	struct route_search *s = arg;

	if (err == E_STORE_UNAVAILABLE)
		search_failed(s, err);
	else
		search_record(s); /* also when somebody else was faster */
}

static void
found_live(struct route_search *s, const struct store_turn *record)
{
	struct route r = {.kind = ROUTE_PEER};
	bool has_owner = owner_parse(record->owner, &r.peer);
	bool is_own = has_owner && owner_equal(r.peer, s->turns->self);

	if (has_owner && !is_own && !owner_is_dead(s->turns, r.peer)) {
		search_end(s, &r);
		return;
	}
	if (is_own && turn_by_id(s->turns, &s->session_id, &s->turn_id) != NULL) {
		r.kind = ROUTE_HERE;
		search_end(s, &r);
		return;
	}
	if (s->tries++ >= LOSE_TRIES_MAX) {
		search_failed(s, E_STORE_UNAVAILABLE);
		return;
	}
	log_info(
	    "turn lost turn=%s owner=%s", record->id, record->owner != NULL ? record->owner : "-");
	store_turn_lose(s->turns->store, record->id, record->owner != NULL ? record->owner : "",
	    clock_wall_ms(), on_lost, s);
}

static void
on_record(void *arg, int err, const struct store_turn *record)
{
	struct route_search *s = arg;
	struct route r = {.kind = ROUTE_RECORD, .record = record};

	if (err != 0)
		search_failed(s, err);
	else if (!str_eq(str_of(record->session_id), id_str(&s->session_id)))
		search_failed(s, E_NOT_FOUND);
	else if (strcmp(record->state, "live") == 0)
		found_live(s, record);
	else
		search_end(s, &r);
}

static void
search_record(struct route_search *s)
{
	store_turn_get(s->turns->store, s->turn_id.s, on_record, s);
}

static void
on_owner(void *arg, int err, struct backplane_addr owner)
{
	struct route_search *s = arg;
	struct route r = {.kind = ROUTE_PEER, .peer = owner};

	bool is_found = err == 0 && !owner_equal(owner, s->turns->self);

	region_count(REGION_SESSIONS, is_found, s->since_us);
	if (!is_found)
		search_record(s);
	else
		search_end(s, &r);
}

void
turn_route_find(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    bool is_record_only, route_on_found *on_found, uint64_t handle, void *arg)
{
	uint64_t since_us = clock_mono_us();
	struct route_search *s;

	if (turn_by_id(ts, session_id, turn_id) != NULL) {
		struct route r = {.kind = ROUTE_HERE};

		region_count(REGION_SESSIONS, true, since_us);
		on_found(arg, ts, handle, &r);
		return;
	}
	s = xcalloc(1, sizeof(*s));
	s->turns = ts;
	s->since_us = since_us;
	s->session_id = *session_id;
	s->turn_id = *turn_id;
	s->on_found = on_found;
	s->handle = handle;
	s->arg = arg;
	list_add_tail(&ts->searches, &s->node);
	if (is_record_only)
		search_record(s);
	else
		backplane_find_owner(ts->backplane, turn_id, on_owner, s);
}

uint64_t
turn_route_retry_ms(uint32_t tries)
{
	uint64_t delay_ms = (uint64_t)RETRY_MS << (tries < 4 ? tries : 4);

	return delay_ms < RETRY_MAX_MS ? delay_ms : RETRY_MAX_MS;
}

void
route_init(struct turns *ts)
{
	list_init(&ts->searches);
}

void
route_fini(struct turns *ts)
{
	list_for_safe (node, &ts->searches)
		free(list_entry(node, struct route_search, node));
}
