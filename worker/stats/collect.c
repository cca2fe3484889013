/* collect - see collect.h. */
#include "worker/stats/collect.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"

struct collect {
	struct redis *redis;
	const char *key_prefix;
	const struct collect_handlers *handlers;
	void *arg;
	uint64_t began_us;
	struct collect_result result;
	uint64_t *names; /* of the registry, ascending */
	size_t count, asked, told;
	size_t in_flight;                 /* commands */
	int err;                          /* what is still answered is of no use */
	unsigned region;                  /* of the one that is told next */
	struct collect_instance instance; /* likewise */
	struct buf key;
};

static void
collect_free(struct collect *c)
{
	free(c->names);
	buf_fini(&c->key);
	free(c);
}

void
collect_cancel(struct collect **ref)
{
	struct collect *c = *ref;

	if (c == NULL)
		return;
	*ref = NULL;
	redis_forget(c->redis, c);
	collect_free(c);
}

static void
end(struct collect *c)
{
	const struct collect_handlers *handlers = c->handlers;
	struct collect_result result = c->result;
	void *arg = c->arg;
	int err = c->err;

	result.took_us = clock_mono_us() - c->began_us;
	collect_free(c);
	handlers->on_done(arg, err, &result);
}

static bool
ask(struct collect *c, size_t argc, const struct str *argv, command_on_reply *on_reply)
{
	if (!redis_command(c->redis, argc, argv, on_reply, c))
		return false;
	c->in_flight++;
	return true;
}

/* When a connection ends all that is under way is answered by NULL. False: nothing of use. */
static bool
answered(struct collect *c, const redisReply *reply)
{
	c->in_flight--;
	if (reply == NULL)
		c->err = E_UNAVAILABLE;
	if (c->err == 0)
		return true;
	if (c->in_flight == 0)
		end(c);
	return false;
}

static void
fail(struct collect *c)
{
	c->err = E_UNAVAILABLE;
	if (c->in_flight == 0)
		end(c);
}

/* ---- reports ---- */

static void on_report(void *arg, const redisReply *);

static bool
ask_text(struct collect *c, const char *of, unsigned region, command_on_reply *on_reply)
{
	char last[16];

	snprintf(last, sizeof(last), "%d", REPORT_BYTES_MAX); /* one more than may be */
	buf_clear(&c->key);
	buf_printf(&c->key, "%sstats:%s:%s", c->key_prefix, of, region_name(region));
	const struct str argv[] = {STR("GETRANGE"), buf_str(&c->key), STR("0"), str_of(last)};
	return ask(c, ARRAY_LEN(argv), argv, on_reply);
}

static bool
ask_instance(struct collect *c, uint64_t host)
{
	char name[STATS_NAME_LEN + 1];

	snprintf(name, sizeof(name), "%016" PRIx64, host);
	for (unsigned region = 0; region < REGION_COUNT; region++)
		if (!ask_text(c, name, region, on_report))
			return false;
	return true;
}

static void
ask_on(struct collect *c)
{
	while (c->asked < c->count && c->asked - c->told < COLLECT_DEPTH) {
		if (!ask_instance(c, c->names[c->asked])) {
			fail(c);
			return;
		}
		c->asked++;
	}
	if (c->told == c->count)
		end(c);
}

static void
take_report(struct collect *c, const redisReply *reply)
{
	struct report r;

	if (reply->type == REDIS_REPLY_STRING && reply->len == 0)
		return; /* none, or its time is over */
	if (reply->type != REDIS_REPLY_STRING ||
	    !report_parse(str_sub(reply->str, (size_t)reply->len), &r)) {
		c->result.rejected++;
		return;
	}
	/* It should have expired. */
	if (r.at_ms + r.interval_ms + STATS_GRACE_MS < c->result.now_ms)
		return;
	c->instance.known |= 1U << c->region;
	c->instance.reports[c->region] = r;
}

static void
tell_instance(struct collect *c)
{
	if (c->instance.known != 0) {
		snprintf(
		    c->instance.name, sizeof(c->instance.name), "%016" PRIx64, c->names[c->told]);
		c->result.instances++;
		c->handlers->on_instance(c->arg, &c->result, &c->instance);
	} else {
		c->result.stale++;
	}
	c->instance.known = 0;
	c->region = 0;
	c->told++;
}

static void
on_report(void *arg, const redisReply *reply)
{
	struct collect *c = arg;

	if (!answered(c, reply))
		return;
	take_report(c, reply);
	if (++c->region < REGION_COUNT)
		return;
	tell_instance(c);
	ask_on(c);
}

/* ---- the registry ---- */

static bool
parse_name(const redisReply *r, uint64_t *ret)
{
	uint64_t v = 0;

	if (r->type != REDIS_REPLY_STRING || r->len != STATS_NAME_LEN)
		return false;
	for (int i = 0; i < STATS_NAME_LEN; i++) {
		char d = r->str[i];

		if (!(d >= '0' && d <= '9') && !(d >= 'a' && d <= 'f'))
			return false;
		v = v << 4 | (uint64_t)(d <= '9' ? d - '0' : d - 'a' + 10);
	}
	*ret = v;
	return true;
}

static int
compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Names and until when they count, by turns. */
static void
take_registry(struct collect *c, const redisReply *reply)
{
	size_t n = reply->elements / 2;

	if (n > REPORT_INSTANCES_MAX) {
		n = REPORT_INSTANCES_MAX;
		c->result.is_cut = true;
	}
	c->names = xcalloc(n > 0 ? n : 1, sizeof(*c->names));
	for (size_t i = 0; i < n; i++) {
		const redisReply *until = reply->element[2 * i + 1];

		if (!parse_name(reply->element[2 * i], &c->names[c->count]))
			c->result.rejected++;
		else if (until->type == REDIS_REPLY_STRING &&
			 strtod(until->str, NULL) > (double)c->result.now_ms)
			c->count++;
		else
			c->result.stale++;
	}
	qsort(c->names, c->count, sizeof(*c->names), compare);
}

static void
on_registry(void *arg, const redisReply *reply)
{
	struct collect *c = arg;

	if (!answered(c, reply))
		return;
	if (reply->type != REDIS_REPLY_ARRAY || c->result.now_ms == 0) {
		fail(c);
		return;
	}
	take_registry(c, reply);
	c->region = 0; /* of reports now */
	ask_on(c);
}

/* Seconds and microseconds, as texts. When it is something else on_registry() sees no time. */
static void
on_time(void *arg, const redisReply *reply)
{
	struct collect *c = arg;
	uint64_t s, us;

	if (!answered(c, reply))
		return;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
	    reply->element[0]->type == REDIS_REPLY_STRING &&
	    reply->element[1]->type == REDIS_REPLY_STRING &&
	    str_to_u64(str_of(reply->element[0]->str), &s) &&
	    str_to_u64(str_of(reply->element[1]->str), &us))
		c->result.now_ms = s * 1000 + us / 1000;
}

void
stored_take(struct stored *s, const redisReply *reply)
{
	s->state = STORED_NONE;
	if (reply->type == REDIS_REPLY_NIL ||
	    (reply->type == REDIS_REPLY_STRING && reply->len == 0))
		return;
	s->state = reply->type == REDIS_REPLY_STRING &&
			   aggregate_parse(str_sub(reply->str, (size_t)reply->len), &s->sums)
		       ? STORED_OK
		       : STORED_GARBAGE;
}

static void
on_stored(void *arg, const redisReply *reply)
{
	struct collect *c = arg;

	if (answered(c, reply))
		stored_take(&c->result.stored[c->region++], reply);
}

static bool
ask_first(struct collect *c)
{
	char last[16];

	snprintf(last, sizeof(last), "%d", REPORT_INSTANCES_MAX); /* one more than may be */
	const struct str time[] = {STR("TIME")};
	if (!ask(c, ARRAY_LEN(time), time, on_time))
		return false;
	for (unsigned region = 0; region < REGION_COUNT; region++)
		if (!ask_text(c, "aggregated", region, on_stored))
			return false;
	buf_clear(&c->key);
	buf_printf(&c->key, "%sinstances", c->key_prefix);
	const struct str range[] = {
	    STR("ZRANGE"), buf_str(&c->key), STR("0"), str_of(last), STR("WITHSCORES")};
	return ask(c, ARRAY_LEN(range), range, on_registry);
}

struct collect *
collect_start(
    struct redis *redis, const char *key_prefix, const struct collect_handlers *handlers, void *arg)
{
	struct collect *c = xcalloc(1, sizeof(*c));

	c->redis = redis;
	c->key_prefix = key_prefix;
	c->handlers = handlers;
	c->arg = arg;
	c->began_us = clock_mono_us();
	if (ask_first(c))
		return c;
	collect_cancel(&c);
	return NULL;
}
