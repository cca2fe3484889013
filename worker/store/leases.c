/* leases - see leases.h. */
#include "worker/store/leases.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/pg_pool.h"

enum { HOST_ID_LEN = 16 };
#define HEX "0123456789abcdef"

struct host {
	uint64_t id;
	bool is_over, is_told;
};

struct leases {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who me;
	struct store *store;
	char id[HOST_ID_LEN + 1];
	struct loop_timer timer;
	bool is_asking, is_renewing, is_losing;
	uint64_t asked_ms; /* when the question under way was put */
	uint64_t read_ms;  /* when the last one was answered; 0: none was */
	uint64_t
	    since_ms; /* .. and the first of those answers that followed close upon each other */
	uint64_t elected_until_ms;
	struct host *hosts; /* the oldest first */
	size_t count;
	struct {
		void (*on_over)(void *arg, uint64_t host);
		void *arg;
	} watchers[LEASES_WATCHERS_MAX];
	unsigned watcher_count;
};

static uint64_t
lease_ms(const struct leases *l)
{
	return l->conf->backplane.lease_ms;
}

/* ---- what is known ---- */

/* Another host may come back to the record later than this one, by all of the pool's back-off. */
static bool
is_trusted(const struct leases *l, uint64_t now_ms)
{
	return l->read_ms != 0 && now_ms - l->since_ms > lease_ms(l) + PG_BACKOFF_MAX_MS &&
	       now_ms - l->read_ms < lease_ms(l);
}

static struct host *
find(const struct leases *l, uint64_t id)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->hosts[i].id == id)
			return &l->hosts[i];
	return NULL;
}

bool
leases_is_over(const struct leases *l, uint64_t host)
{
	const struct host *h = find(l, host);

	return h != NULL && h->is_over && is_trusted(l, loop_now_ms(l->loop));
}

bool
leases_is_elected(const struct leases *l)
{
	return loop_now_ms(l->loop) < l->elected_until_ms && shm_is_first(l->shm, l->me);
}

void
leases_on_over(struct leases *l, void (*on_over)(void *arg, uint64_t host), void *arg)
{
	check(l->watcher_count < LEASES_WATCHERS_MAX);
	l->watchers[l->watcher_count].on_over = on_over;
	l->watchers[l->watcher_count++].arg = arg;
}

/* ---- what was read ---- */

static void
take_hosts(struct leases *l, const struct store_host *read, size_t count)
{
	struct host *hosts = xcalloc(count > 0 ? count : 1, sizeof(*hosts));
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		struct host h = {.is_over = read[i].is_over};
		const struct host *old;

		if (strlen(read[i].id) != HOST_ID_LEN || strspn(read[i].id, HEX) != HOST_ID_LEN)
			continue;
		h.id = strtoull(read[i].id, NULL, 16);
		old = find(l, h.id);
		h.is_told = h.is_over && old != NULL && old->is_told;
		hosts[n++] = h;
	}
	free(l->hosts);
	l->hosts = hosts;
	l->count = n;
}

static void
tell_over(struct leases *l)
{
	for (size_t i = 0; i < l->count; i++) {
		struct host *h = &l->hosts[i];

		if (!h->is_over || h->is_told)
			continue;
		h->is_told = true;
		log_debug("host's lease is over host=%016" PRIx64, h->id);
		for (unsigned w = 0; w < l->watcher_count; w++)
			l->watchers[w].on_over(l->watchers[w].arg, h->id);
	}
}

static bool
is_oldest(const struct leases *l)
{
	for (size_t i = 0; i < l->count; i++)
		if (!l->hosts[i].is_over)
			return l->hosts[i].id == shm_host_id(l->shm);
	return false;
}

static void
elect(struct leases *l)
{
	bool was_elected = l->elected_until_ms != 0;

	l->elected_until_ms = l->is_renewing && is_oldest(l) ? l->asked_ms + lease_ms(l) : 0;
	if (!was_elected && l->elected_until_ms != 0)
		log_info("host elected host=%s", l->id);
}

static void
on_lost(void *arg, int err, uint64_t count)
{
	struct leases *l = arg;

	l->is_losing = false;
	if (err != 0)
		log_warn("turns of dead hosts not recorded err=%s", err_info(err)->name);
	else if (count > 0)
		log_info("turns of dead hosts lost count=%llu", (unsigned long long)count);
}

static void
lose_turns_of_the_dead(struct leases *l)
{
	uint64_t grace_ms = l->conf->turns.total_timeout_ms;

	if (l->is_losing)
		return;
	l->is_losing = true;
	store_hosts_lose(
	    l->store, grace_ms > lease_ms(l) ? grace_ms : lease_ms(l), clock_wall_ms(), on_lost, l);
}

static void
on_hosts(void *arg, int err, const struct store_host *hosts, size_t count)
{
	struct leases *l = arg;
	uint64_t now = loop_now_ms(l->loop);

	l->is_asking = false;
	if (err != 0)
		return;
	if (l->read_ms == 0 || now - l->read_ms > lease_ms(l) / 2)
		l->since_ms = now;
	l->read_ms = now;
	take_hosts(l, hosts, count);
	elect(l);
	if (!is_trusted(l, now))
		return;
	if (leases_is_elected(l))
		lose_turns_of_the_dead(l);
	tell_over(l);
}

/* ---- asking ---- */

static void
on_timer(struct loop_timer *timer)
{
	struct leases *l = container_of(timer, struct leases, timer);

	loop_timer_set(l->loop, timer, lease_ms(l) / 3);
	if (l->is_asking)
		return;
	l->is_asking = true;
	l->asked_ms = loop_now_ms(l->loop);
	l->is_renewing = shm_is_first(l->shm, l->me);
	if (l->is_renewing)
		store_host_renew(l->store, l->id, lease_ms(l), on_hosts, l);
	else
		store_host_list(l->store, on_hosts, l);
}

/* ---- life ---- */

struct leases *
leases_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct shm_who me,
    struct store *store)
{
	struct leases *l = xcalloc(1, sizeof(*l));

	l->loop = loop;
	l->conf = conf;
	l->shm = shm;
	l->me = me;
	l->store = store;
	snprintf(l->id, sizeof(l->id), "%016" PRIx64, shm_host_id(shm));
	l->timer.on_fire = on_timer;
	loop_timer_set(loop, &l->timer, 0);
	return l;
}

void
leases_free(struct leases **ref)
{
	struct leases *l = *ref;

	if (l == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(l->loop, &l->timer);
	free(l->hosts);
	free(l);
}
