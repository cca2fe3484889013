/* stats - see stats.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"
#include "worker/stats/stats_impl.h"

/* ---- reading ---- */

static void
tell_instance(
    struct stats *s, const struct collect_result *so_far, const struct collect_instance *instance)
{
	list_for_safe (node, &s->readers) {
		struct stats_reader *r = list_entry(node, struct stats_reader, node);

		r->on_instance(r, so_far, instance);
	}
}

static void
on_instance(void *arg, const struct collect_result *so_far, const struct collect_instance *instance)
{
	struct stats *s = arg;

	fleet_add(&s->fleet, so_far, instance);
	tell_instance(s, so_far, instance);
}

static void
move_all(struct list *from, struct list *to)
{
	list_for_safe (node, from) {
		list_del(node);
		list_add_tail(to, node);
	}
}

static void
tell_readers(struct stats *s, enum stats_mode mode, const struct collect_result *result,
    const struct fleet *fleet)
{
	struct list told;
	struct stats_reader *r;

	list_init(&told);
	move_all(&s->readers, &told);
	while ((r = list_first(&told, struct stats_reader, node)) != NULL) {
		list_del(&r->node);
		r->is_waiting = false;
		r->on_fleet(r, mode, result, fleet);
	}
	if (list_empty(&s->next))
		return;
	move_all(&s->next, &s->readers);
	if (!stats_collect(s))
		loop_post(s->loop, &s->alone);
}

static void
on_collected(void *arg, int err, const struct collect_result *result)
{
	struct stats *s = arg;
	bool is_adding_up = s->is_adding_up;

	s->collect = NULL;
	s->is_adding_up = false;
	if (err != 0) {
		loop_post(s->loop, &s->alone);
		return;
	}
	if (is_adding_up)
		sums_finish(s, result);
	struct fleet fleet = s->fleet; /* the next one begins in there */
	tell_readers(s, STATS_FLEET, result, &fleet);
}

/* False: Redis cannot be asked. */
bool
stats_collect(struct stats *s)
{
	static const struct collect_handlers handlers = {on_instance, on_collected};

	if (s->collect != NULL)
		return true;
	if (s->redis == NULL)
		return false;
	s->fleet = (struct fleet){.instances = {0}};
	s->collect = collect_start(s->redis, s->conf->backplane.key_prefix, &handlers, s);
	return s->collect != NULL;
}

/* ---- this host ---- */

void
stats_look_at_host(const struct stats *s, struct report reports[REGION_COUNT])
{
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		reports[region] = (struct report){.interval_ms = s->conf->stats.interval_ms};
		region_read(s->shm, region, &reports[region].counts);
	}
}

/* Without Redis the host's own clock says what time it is. */
static void
on_alone(struct loop_post *post)
{
	struct stats *s = container_of(post, struct stats, alone);
	struct collect_instance self = {.known = (1U << REGION_COUNT) - 1};
	struct collect_result result = {.now_ms = (uint64_t)clock_wall_ms(), .instances = 1};
	struct fleet fleet = {.instances = {0}};
	uint64_t began_us = clock_mono_us();

	if (s->collect != NULL) /* Redis is back already, and is being asked */
		return;
	snprintf(self.name, sizeof(self.name), "%s", s->name);
	stats_look_at_host(s, self.reports);
	for (unsigned region = 0; region < REGION_COUNT; region++)
		self.reports[region].at_ms = result.now_ms;
	fleet_add(&fleet, &result, &self);
	list_for_safe (node, &s->readers) {
		struct stats_reader *r = list_entry(node, struct stats_reader, node);

		r->on_again(r);
	}
	tell_instance(s, &result, &self);
	result.took_us = clock_mono_us() - began_us;
	tell_readers(s, s->redis == NULL ? STATS_HOST : STATS_ALONE, &result, &fleet);
}

/* ---- verbs ---- */

void
stats_read(struct stats *s, struct stats_reader *r)
{
	bool is_busy = s->collect != NULL || !list_empty(&s->readers);

	check(!r->is_waiting);
	check(r->on_again != NULL && r->on_instance != NULL && r->on_fleet != NULL);
	r->is_waiting = true;
	list_add_tail(is_busy ? &s->next : &s->readers, &r->node);
	if (!is_busy && !stats_collect(s))
		loop_post(s->loop, &s->alone);
}

bool
stats_is_idle(const struct stats *s)
{
	return list_empty(&s->readers) && list_empty(&s->next);
}

const char *
stats_mode_name(enum stats_mode mode)
{
	static const char *const names[] = {"host", "degraded", "fleet"};

	check((size_t)mode < ARRAY_LEN(names));
	return names[mode];
}

const char *
stats_self(const struct stats *s)
{
	return s->name;
}

void
stats_get_health(const struct stats *s, struct stats_health *ret)
{
	uint64_t seen_ms = atomic_load(shm_word(s->shm, SHM_WORD_STATS_SEEN));
	uint64_t now_ms = loop_now_ms(s->loop);
	uint64_t since_ms = seen_ms > s->began_ms ? seen_ms : s->began_ms;
	struct stats_health h = {.mode = STATS_HOST, .instances = 1, .age_ms = UINT64_MAX};

	if (s->redis != NULL)
		h.mode = redis_state(s->redis) == REDIS_UP ? STATS_FLEET : STATS_ALONE;
	if (h.mode == STATS_FLEET) {
		h.instances = (uint64_t)metric_total(s->shm, METRIC_STATS_INSTANCES, 0, 0);
		h.took_us = (uint64_t)metric_total(s->shm, METRIC_STATS_TOOK, 0, 0);
		h.drift_ppm = (uint64_t)metric_total(s->shm, METRIC_STATS_DRIFT, 0, 0);
		h.has_drift = metric_total(s->shm, METRIC_STATS_ALARM, STATS_ALARM_DRIFT, 0) != 0;
		h.has_latency =
		    metric_total(s->shm, METRIC_STATS_ALARM, STATS_ALARM_LATENCY, 0) != 0;
		h.is_late = now_ms > since_ms &&
			    now_ms - since_ms > STATS_KEEP_INTERVALS * stats_keep_ms(s);
		if (seen_ms != 0)
			h.age_ms = now_ms > seen_ms ? now_ms - seen_ms : 0;
	}
	*ret = h;
}

/* ---- life ---- */

void
stats_drain(struct stats *s)
{
	speaker_drain(s);
}

struct stats *
stats_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct shm_who me,
    struct backplane *backplane)
{
	struct stats *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->conf = conf;
	s->shm = shm;
	s->me = me;
	s->redis = backplane_redis(backplane);
	s->began_ms = loop_now_ms(loop);
	snprintf(s->name, sizeof(s->name), "%016" PRIx64, shm_host_id(shm));
	list_init(&s->readers);
	list_init(&s->next);
	s->alone.run = on_alone;
	speaker_init(s, backplane);
	return s;
}

void
stats_free(struct stats **ref)
{
	struct stats *s = *ref;

	if (s == NULL)
		return;
	*ref = NULL;
	speaker_fini(s);
	loop_post_cancel(s->loop, &s->alone);
	collect_cancel(&s->collect);
	if (s->redis != NULL)
		redis_forget(s->redis, s);
	free(s);
}
