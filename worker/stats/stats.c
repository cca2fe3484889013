/* stats - see stats.h. */
#include "worker/stats/stats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"

enum {
	FIRST_MS = 50,      /* until this worker is ready and Redis is there it looks so often .. */
	AGAIN_MS = 1000,    /* .. and when something went wrong, unless the interval is shorter */
	WARN_MS = 60000,    /* a warning is repeated so often */
	KEEP_INTERVALS = 3, /* stored sums that nobody replaces are gone after so many */
};

/*
 * KEYS: the registry, the lock of who adds up, the reports, the stored sums. ARGV: the host, how
 * long a report counts, how long the lock holds (ms), the longest text, then the reports from
 * " interval=" on. Answers {now, 1: add up, the stored sums ..}.
 */
static const char beat_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local kind = redis.call('TYPE', KEYS[1]).ok\n"
    "if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))\n"
    "redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])\n"
    "local n = #ARGV - 4\n"
    "for i = 1, n do\n"
    "  local text = string.format('v=1 at=%.0f', now) .. ARGV[4 + i]\n"
    "  redis.call('SET', KEYS[2 + i], text, 'PX', ARGV[2])\n"
    "end\n"
    "local is_mine = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[3])\n"
    "local out = {string.format('%.0f', now), is_mine and 1 or 0}\n"
    "for i = 1, n do\n"
    "  local text = redis.pcall('GETRANGE', KEYS[2 + n + i], 0, ARGV[4])\n"
    "  out[2 + i] = type(text) == 'string' and text or false\n"
    "end\n"
    "return out\n";

enum { BEAT_HEAD = 2 };

struct stats {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who me;
	struct redis *redis; /* NULL: not configured */
	char name[STATS_NAME_LEN + 1];
	struct loop_timer beat;
	bool is_beating, is_draining, has_spoken;
	struct report said[REGION_COUNT], saying[REGION_COUNT];
	uint64_t drift_warned_ms, latency_warned_ms, failure_warned_ms; /* 0: not now */

	struct collect *collect; /* under way, for the stored sums or for readers */
	bool is_adding_up;       /* .. and its sums are to be stored */
	struct fleet fleet;
	struct list readers;    /* who hear of it */
	struct list next;       /* who came in its midst, and hear of the next one */
	struct loop_post alone; /* answers when Redis cannot be asked */
	uint64_t began_ms;
};

static void
get_key(const struct stats *s, const char *of, unsigned region, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "%sstats:%s:%s", s->conf->backplane.key_prefix, of, region_name(region));
}

static uint64_t
keep_ms(const struct stats *s)
{
	return s->conf->stats.interval_ms + STATS_GRACE_MS;
}

/* At most one a minute, of each kind. */
static bool
may_warn(struct stats *s, uint64_t *warned_ms)
{
	uint64_t now_ms = loop_now_ms(s->loop);

	if (*warned_ms != 0 && now_ms - *warned_ms < WARN_MS)
		return false;
	*warned_ms = now_ms;
	return true;
}

/* ---- what the sums say ---- */

static bool
has_drift(const struct stats *s, const struct aggregate *a)
{
	return a->is_compared && (double)a->drift_ppm > s->conf->stats.drift * DRIFT_WHOLE_PPM;
}

static bool
is_slow(const struct stats *s, const struct aggregate *a)
{
	return a->took_us > s->conf->stats.latency_ms * 1000;
}

/* For every worker's /health and scrape: only this row says it. */
static void
publish(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	uint64_t instances = 0, drift_ppm = 0;
	bool drifts = false, slow = false;

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		const struct aggregate *a = &sums[region];

		instances = a->instances > instances ? a->instances : instances;
		if (a->is_compared && a->drift_ppm > drift_ppm)
			drift_ppm = a->drift_ppm;
		drifts |= has_drift(s, a);
		slow |= is_slow(s, a);
		metric_gauge_set(METRIC_FLEET_CACHE, region, FLEET_HITS, (int64_t)a->counts.hits);
		metric_gauge_set(
		    METRIC_FLEET_CACHE, region, FLEET_MISSES, (int64_t)a->counts.misses);
		metric_gauge_set(
		    METRIC_FLEET_CACHE, region, FLEET_ENTRIES, (int64_t)a->counts.entries);
	}
	metric_gauge_set(METRIC_STATS_INSTANCES, 0, 0, (int64_t)instances);
	metric_gauge_set(METRIC_STATS_TOOK, 0, 0, (int64_t)sums[0].took_us);
	metric_gauge_set(METRIC_STATS_DRIFT, 0, 0, (int64_t)drift_ppm);
	metric_gauge_set(METRIC_STATS_ALARM, STATS_ALARM_DRIFT, 0, drifts);
	metric_gauge_set(METRIC_STATS_ALARM, STATS_ALARM_LATENCY, 0, slow);
}

/* Another worker speaks now. */
static void
retire(struct stats *s)
{
	static const struct aggregate nothing[REGION_COUNT];

	if (s->has_spoken)
		publish(s, nothing);
	s->has_spoken = false;
	memset(s->said, 0, sizeof(s->said));
}

static void
saw(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	publish(s, sums);
	atomic_store(shm_word(s->shm, SHM_WORD_STATS_SEEN), loop_now_ms(s->loop));
}

/* ---- adding up ---- */

static void
store_sums(struct stats *s, unsigned region, const struct aggregate *a)
{
	struct buf key = BUF_INIT, text = BUF_INIT;
	char keep[24];

	get_key(s, "aggregated", region, &key);
	aggregate_format(a, &text);
	snprintf(keep, sizeof(keep), "%" PRIu64, KEEP_INTERVALS * keep_ms(s));
	const struct str argv[] = {
	    STR("SET"), buf_str(&key), buf_str(&text), STR("PX"), str_of(keep)};
	redis_command(s->redis, ARRAY_LEN(argv), argv, NULL, NULL);
	buf_fini(&key);
	buf_fini(&text);
}

static void
warn_of(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	bool drifts = false;

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		if (!has_drift(s, &sums[region]))
			continue;
		if (!drifts) {
			metric_add(METRIC_STATS_ALARMS, STATS_ALARM_DRIFT, 0, 1);
			if (may_warn(s, &s->drift_warned_ms))
				log_warn("stats drift region=%s drift=%.4f limit=%.4f",
				    region_name(region), (double)sums[region].drift_ppm / 1e6,
				    s->conf->stats.drift);
		}
		drifts = true;
	}
	if (!drifts)
		s->drift_warned_ms = 0;
	if (!is_slow(s, &sums[0])) {
		s->latency_warned_ms = 0;
		return;
	}
	metric_add(METRIC_STATS_ALARMS, STATS_ALARM_LATENCY, 0, 1);
	if (may_warn(s, &s->latency_warned_ms))
		log_warn("stats slow took_ms=%.1f limit_ms=%" PRIu64 " instances=%" PRIu64,
		    (double)sums[0].took_us / 1e3, s->conf->stats.latency_ms, sums[0].instances);
}

static void
finish_sums(struct stats *s, const struct collect_result *result)
{
	struct aggregate sums[REGION_COUNT];

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		sums[region] = fleet_aggregate(&s->fleet, result, region);
		store_sums(s, region, &sums[region]);
	}
	metric_add(METRIC_STATS_REJECTED, 0, 0, result->rejected);
	if (result->rejected > 0)
		log_debug("stats rejected=%" PRIu64, result->rejected);
	warn_of(s, sums);
	saw(s, sums);
}

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

static bool collect(struct stats *);

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
	if (!collect(s))
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
		finish_sums(s, result);
	struct fleet fleet = s->fleet; /* the next one begins in there */
	tell_readers(s, STATS_FLEET, result, &fleet);
}

/* False: Redis cannot be asked. */
static bool
collect(struct stats *s)
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

static void
look_at_host(const struct stats *s, struct report reports[REGION_COUNT])
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
	look_at_host(s, self.reports);
	for (unsigned region = 0; region < REGION_COUNT; region++)
		self.reports[region].at_ms = result.now_ms;
	fleet_add(&fleet, &result, &self);
	tell_instance(s, &result, &self);
	result.took_us = clock_mono_us() - began_us;
	tell_readers(s, s->redis == NULL ? STATS_HOST : STATS_ALONE, &result, &fleet);
}

/* ---- heartbeats ---- */

static bool
is_ready(const struct stats *s)
{
	struct shm_row_info info;

	return shm_row_get(s->shm, s->me.row, &info) && info.state == SHM_READY;
}

static bool
is_speaker(const struct stats *s)
{
	return !s->is_draining && atomic_load(shm_word(s->shm, SHM_WORD_IS_DRAINING)) == 0 &&
	       is_ready(s) && shm_is_first(s->shm, s->me);
}

static uint64_t
again_ms(const struct stats *s)
{
	return s->conf->stats.interval_ms < AGAIN_MS ? s->conf->stats.interval_ms : AGAIN_MS;
}

static void
failed(struct stats *s, const char *reason)
{
	metric_add(METRIC_STATS_REPORTS, STATS_OUTCOME_FAILED, 0, 1);
	if (!s->is_draining)
		loop_timer_set(s->loop, &s->beat, again_ms(s));
	/* That Redis is away the backplane has said. */
	if (reason != NULL && may_warn(s, &s->failure_warned_ms))
		log_warn("stats not reported reason=%s", log_quote(str_of(reason)).s);
}

static void
read_stored(struct stats *s, const redisReply *reply)
{
	struct aggregate sums[REGION_COUNT];

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		struct stored stored;

		stored_take(&stored, reply->element[BEAT_HEAD + region]);
		if (stored.state != STORED_OK)
			return;
		sums[region] = stored.sums;
	}
	/* Sums that nobody has renewed are no news. */
	if (sums[0].at_ms + 2 * keep_ms(s) > s->said[0].at_ms)
		saw(s, sums);
}

static void
on_beaten(void *arg, const redisReply *reply)
{
	struct stats *s = arg;
	uint64_t now_ms;

	s->is_beating = false;
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
		failed(s, reply != NULL ? reply->str : NULL);
		return;
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != BEAT_HEAD + REGION_COUNT ||
	    reply->element[0]->type != REDIS_REPLY_STRING ||
	    !str_to_u64(str_of(reply->element[0]->str), &now_ms)) {
		failed(s, "not understood");
		return;
	}
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		s->said[region] = s->saying[region];
		s->said[region].at_ms = now_ms;
	}
	s->has_spoken = true;
	s->failure_warned_ms = 0;
	metric_add(METRIC_STATS_REPORTS, STATS_OUTCOME_OK, 0, 1);
	read_stored(s, reply);
	/* Also when somebody reads already. */
	if (reply->element[1]->type == REDIS_REPLY_INTEGER && reply->element[1]->integer == 1)
		s->is_adding_up = collect(s);
}

enum { WORDS_MAX = 9 + 3 * REGION_COUNT };

struct words { /* of a command, with what they are made of */
	struct buf text;
	size_t at[WORDS_MAX + 1];
	struct str argv[WORDS_MAX];
	size_t argc;
};

static void
word_end(struct words *w)
{
	check(w->argc < WORDS_MAX);
	w->at[++w->argc] = w->text.len;
}

static void
put_word(struct words *w, const char *text)
{
	buf_add_cstr(&w->text, text);
	word_end(w);
}

static void
put_number(struct words *w, uint64_t n)
{
	buf_printf(&w->text, "%" PRIu64, n);
	word_end(w);
}

static void
put_keys(struct words *w, const struct stats *s, const char *of)
{
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		buf_printf(&w->text, "%sstats:%s:%s", s->conf->backplane.key_prefix, of,
		    region_name(region));
		word_end(w);
	}
}

static bool
send_words(struct stats *s, struct words *w, command_on_reply *on_reply)
{
	for (size_t i = 0; i < w->argc; i++)
		w->argv[i] = str_sub(w->text.data + w->at[i], w->at[i + 1] - w->at[i]);
	bool is_sent = redis_command(s->redis, w->argc, w->argv, on_reply, s);
	buf_fini(&w->text);
	return is_sent;
}

static void
speak(struct stats *s)
{
	struct words w = {.argc = 0};

	if (s->is_beating)
		return;
	look_at_host(s, s->saying);
	put_word(&w, "EVAL");
	put_word(&w, beat_script);
	put_number(&w, 2 + 2 * REGION_COUNT);
	buf_printf(&w.text, "%sinstances", s->conf->backplane.key_prefix);
	word_end(&w);
	buf_printf(&w.text, "%sstats:aggregator", s->conf->backplane.key_prefix);
	word_end(&w);
	put_keys(&w, s, s->name);
	put_keys(&w, s, "aggregated");
	put_word(&w, s->name);
	put_number(&w, keep_ms(s));
	/* A little less than the interval: who added up is not too early for the next time. */
	put_number(&w, s->conf->stats.interval_ms * 9 / 10);
	put_number(&w, REPORT_BYTES_MAX);
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		s->saying[region].was = s->said[region].counts;
		s->saying[region].was_at_ms = s->said[region].at_ms;
		report_format_rest(&s->saying[region], &w.text);
		word_end(&w);
	}
	s->is_beating = send_words(s, &w, on_beaten);
}

/* Also when something has happened: a worker is gone, Redis is back. */
static void
look(struct stats *s)
{
	uint64_t delay_ms = s->conf->stats.interval_ms;

	if (s->is_draining)
		return;
	if (!is_ready(s)) {
		delay_ms = FIRST_MS;
	} else if (!is_speaker(s)) {
		retire(s);
	} else if (redis_state(s->redis) != REDIS_UP) {
		retire(s);
		delay_ms = again_ms(s);
	} else {
		speak(s);
	}
	loop_timer_set(s->loop, &s->beat, delay_ms);
}

static void
on_beat(struct loop_timer *timer)
{
	look(container_of(timer, struct stats, beat));
}

static void
on_gone(void *arg, struct backplane_addr addr)
{
	struct stats *s = arg;

	if (addr.host == shm_host_id(s->shm) && !s->has_spoken)
		look(s);
}

static void
on_resumed(void *arg)
{
	look(arg);
}

/* ---- verbs ---- */

void
stats_read(struct stats *s, struct stats_reader *r)
{
	bool is_busy = s->collect != NULL || !list_empty(&s->readers);

	check(!r->is_waiting && r->on_instance != NULL && r->on_fleet != NULL);
	r->is_waiting = true;
	list_add_tail(is_busy ? &s->next : &s->readers, &r->node);
	if (!is_busy && !collect(s))
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
		h.is_late = now_ms > since_ms && now_ms - since_ms > KEEP_INTERVALS * keep_ms(s);
		if (seen_ms != 0)
			h.age_ms = now_ms > seen_ms ? now_ms - seen_ms : 0;
	}
	*ret = h;
}

/* ---- life ---- */

/* Who looks now need not wait until it has expired. */
static void
sign_off(struct stats *s)
{
	struct words rem = {.argc = 0}, del = {.argc = 0};

	put_word(&rem, "ZREM");
	buf_printf(&rem.text, "%sinstances", s->conf->backplane.key_prefix);
	word_end(&rem);
	put_word(&rem, s->name);
	send_words(s, &rem, NULL);
	put_word(&del, "DEL");
	put_keys(&del, s, s->name);
	send_words(s, &del, NULL);
}

void
stats_drain(struct stats *s)
{
	if (s->redis == NULL || s->is_draining)
		return;
	/* Another worker speaks within the interval: until then what is said now counts. */
	if (is_speaker(s) && redis_state(s->redis) == REDIS_UP)
		speak(s);
	s->is_draining = true;
	loop_timer_stop(s->loop, &s->beat);
	if (atomic_load(shm_word(s->shm, SHM_WORD_IS_DRAINING)) != 0)
		sign_off(s);
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
	s->beat.on_fire = on_beat;
	s->alone.run = on_alone;
	if (s->redis != NULL) {
		backplane_on_peer_gone(backplane, on_gone, s);
		backplane_on_resumed(backplane, on_resumed, s);
		loop_timer_set(loop, &s->beat, FIRST_MS);
	}
	return s;
}

void
stats_free(struct stats **ref)
{
	struct stats *s = *ref;

	if (s == NULL)
		return;
	*ref = NULL;
	s->is_draining = true;
	loop_timer_stop(s->loop, &s->beat);
	loop_post_cancel(s->loop, &s->alone);
	collect_cancel(&s->collect);
	if (s->redis != NULL)
		redis_forget(s->redis, s);
	free(s);
}
