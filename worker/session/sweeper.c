/*
 * sweeper - idle sessions become expired, what is kept no longer is erased.
 *
 *   WAIT --timer--> EXPIRE --a full batch--> EXPIRE
 *     ^               |--less--> RETIRE a batch --> EMPTY until nothing is left
 *     |                             ^--it was full----+--it was less--> COUNT
 *     +----------------------------------------------------------------+
 *     +--failed, anywhere: twice as long, up to sweep_backoff_max
 */
#include "worker/session/sweeper.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/events/events.h"

enum { FIRST_MS = 1000 };

struct sweeper {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct events *events; /* NULL: nobody is told */
	struct loop_timer timer;
	uint64_t delay_ms;
	uint64_t expired, erased; /* in this sweep */
	bool was_full;            /* the last batch of those to be erased */
};

static void expire(struct sweeper *s);
static void retire(struct sweeper *s);

static void
rest(struct sweeper *s)
{
	s->delay_ms = s->conf->sessions.sweep_interval_ms;
	loop_timer_set(s->loop, &s->timer, s->delay_ms);
}

static void
rest_longer(struct sweeper *s, int err)
{
	uint64_t longest_ms = s->conf->sessions.sweep_backoff_max_ms;

	s->delay_ms *= 2;
	if (s->delay_ms > longest_ms)
		s->delay_ms = longest_ms;
	log_warn("session sweep failed reason=%s retry_in_ms=%llu", err_info(err)->code,
	    (unsigned long long)s->delay_ms);
	loop_timer_set(s->loop, &s->timer, s->delay_ms);
}

static void
on_counted(void *arg, int err, uint64_t count)
{
	struct sweeper *s = arg;

	if (err != 0) {
		rest_longer(s, err);
		return;
	}
	metric_gauge_set(METRIC_SESSIONS_ACTIVE, 0, 0, (int64_t)count);
	rest(s);
}

static void
tell(struct events *events, const struct store_expired *e)
{
	char topic[EVENTS_TOPIC_MAX + 1];
	struct buf payload = BUF_INIT;

	snprintf(topic, sizeof(topic), "session:%s", e->session_id);
	buf_printf(&payload, "{\"session_id\":\"%s\"}", e->session_id);
	const struct events_news news = {.topic = topic,
	    .app_id = e->app_id,
	    .name = "session.expired",
	    .payload = buf_str(&payload)};
	events_publish(events, &news);
	buf_fini(&payload);
}

static void
on_expired(void *arg, int err, const struct store_expired *list, size_t count)
{
	struct sweeper *s = arg;

	if (err != 0) {
		rest_longer(s, err);
		return;
	}
	s->expired += count;
	for (size_t i = 0; s->events != NULL && i < count; i++)
		tell(s->events, &list[i]);
	if (count >= (uint64_t)s->conf->sessions.sweep_batch) {
		expire(s);
		return;
	}
	if (s->expired > 0)
		log_info("sessions expired count=%llu", (unsigned long long)s->expired);
	retire(s);
}

static void
expire(struct sweeper *s)
{
	int64_t now = clock_wall_ms();

	store_session_expire(s->store, now - (int64_t)s->conf->sessions.idle_expiry_ms, now,
	    (uint32_t)s->conf->sessions.sweep_batch, on_expired, s);
}

/* ---- content ---- */

static void
on_emptied(void *arg, int err, uint64_t left)
{
	struct sweeper *s = arg;

	if (err != 0)
		rest_longer(s, err);
	else if (left > 0)
		store_session_empty(
		    s->store, NULL, (uint32_t)s->conf->sessions.sweep_batch, on_emptied, s);
	else if (s->was_full)
		retire(s);
	else {
		if (s->erased > 0)
			log_info("sessions erased by retention count=%llu",
			    (unsigned long long)s->erased);
		store_session_count_active(s->store, on_counted, s);
	}
}

/* Also what somebody else erased, and did not get to the end with. */
static void
on_retired(void *arg, int err, uint64_t count)
{
	struct sweeper *s = arg;

	if (err != 0) {
		rest_longer(s, err);
		return;
	}
	s->erased += count;
	s->was_full = count >= (uint64_t)s->conf->sessions.sweep_batch;
	store_session_empty(s->store, NULL, (uint32_t)s->conf->sessions.sweep_batch, on_emptied, s);
}

static void
retire(struct sweeper *s)
{
	int64_t now = clock_wall_ms();

	if (s->conf->sessions.retention_ms == 0)
		on_retired(s, 0, 0);
	else
		store_session_retire(s->store, now - (int64_t)s->conf->sessions.retention_ms, now,
		    (uint32_t)s->conf->sessions.sweep_batch, on_retired, s);
}

static void
on_timer(struct loop_timer *timer)
{
	struct sweeper *s = container_of(timer, struct sweeper, timer);

	s->expired = s->erased = 0;
	if (!store_is_elected(s->store)) {
		metric_gauge_set(METRIC_SESSIONS_ACTIVE, 0, 0, 0);
		rest(s);
	} else if (s->conf->sessions.idle_expiry_ms == 0) {
		retire(s);
	} else {
		expire(s);
	}
}

struct sweeper *
sweeper_new(struct loop *loop, const struct conf *conf, struct store *store, struct events *events)
{
	struct sweeper *s = xcalloc(1, sizeof(*s));
	uint64_t first_ms = conf->sessions.sweep_interval_ms;

	s->loop = loop;
	s->conf = conf;
	s->store = store;
	s->events = events;
	s->delay_ms = conf->sessions.sweep_interval_ms;
	s->timer.on_fire = on_timer;
	loop_timer_set(loop, &s->timer, first_ms < FIRST_MS ? first_ms : FIRST_MS);
	return s;
}

void
sweeper_free(struct sweeper **ref)
{
	struct sweeper *s = *ref;

	if (s == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(s->loop, &s->timer);
	free(s);
}
