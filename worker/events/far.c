/*
 * far - other hosts, by Redis. See events.h.
 *
 *   PREFIX evpos           how far each host's log has been passed on (a sorted set: host, number)
 *   PREFIX evage           .. and when: a host that has been silent for a day is forgotten
 *   PREFIX ev:APP\nTOPIC   the last events of a topic, "HOST NUMBER bytes"; expires (events.retain)
 *   PREFIX evsub:..        inboxes that want it, by the time until which they do
 *
 * One worker of each host, the first, reads the log of its host in order and passes each event on
 * by one script: it is put into the topic's list and published to the inboxes that want it, unless
 * that host's position says that it was already. So each host's events arrive in their order, once,
 * whoever passes them on; what Redis has not acknowledged is passed on again. Who subscribes is
 * among the inboxes first and reads the lists then: what it reads and what comes overlap, and
 * numbers tell.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "worker/backplane/inbox.h"
#include "worker/backplane/redis.h"
#include "worker/events/events_impl.h"

enum {
	UNDER_WAY_MAX = 64, /* events on their way to Redis */
	ASKS_MAX = 128,     /* lists that were asked for and have not come */
	WANT_MS = 90000,    /* an inbox wants a topic for so long, and says so again .. */
	WANT_AGAIN_MS = 25000,
	WANT_STEP_MS = 1000, /* .. some at a time */
	WANT_BATCH = 24,     /* topics in one command, which has 32 words at most */
	WANT_ARGS = 5,
	KEYS_MAX = 2 + 2 * EVENT_LOG_KEYS,
	ARGS_MAX = 3 + KEYS_MAX + 7,
	NUMBER_MAX = 24,
};

static const char far_key_name[] = "\nfar";

/* KEYS: positions, ages, then list and inboxes of each topic. ARGV: host, number, entry, how many
 * are kept, how long in ms, message, what its own inboxes contain. */
static const char pass_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local was = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')\n"
    "if tonumber(ARGV[2]) <= was then return 0 end\n"
    "redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])\n"
    "redis.call('ZADD', KEYS[2], now, ARGV[1])\n"
    "for _, h in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - 86400000)) do\n"
    "  redis.call('ZREM', KEYS[1], h)\n"
    "  redis.call('ZREM', KEYS[2], h)\n"
    "end\n"
    "local told = {}\n"
    "for i = 3, #KEYS, 2 do\n"
    "  redis.call('RPUSH', KEYS[i], ARGV[3])\n"
    "  redis.call('LTRIM', KEYS[i], -tonumber(ARGV[4]), -1)\n"
    "  redis.call('PEXPIRE', KEYS[i], ARGV[5])\n"
    "  redis.call('ZREMRANGEBYSCORE', KEYS[i + 1], '-inf', now)\n"
    "  for _, inbox in ipairs(redis.call('ZRANGE', KEYS[i + 1], 0, -1)) do\n"
    "    if not told[inbox] and not string.find(inbox, ARGV[7], 1, true) then\n"
    "      told[inbox] = true\n"
    "      if redis.call('PUBLISH', inbox, ARGV[6]) == 0 then\n"
    "        redis.call('ZREM', KEYS[i + 1], inbox)\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return 1\n";

/* KEYS: inboxes. ARGV: for how long in ms (0: not any more), inbox. */
static const char want_script[] = "local t = redis.call('TIME')\n"
				  "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
				  "for _, key in ipairs(KEYS) do\n"
				  "  if ARGV[1] == '0' then\n"
				  "    redis.call('ZREM', key, ARGV[2])\n"
				  "  else\n"
				  "    redis.call('ZADD', key, now + ARGV[1], ARGV[2])\n"
				  "    redis.call('PEXPIRE', key, ARGV[1])\n"
				  "  end\n"
				  "end\n";

struct far {
	struct events *events;
	struct redis *redis;
	const char *prefix;
	struct buf inbox; /* this worker's channel */
	char host_text[20];
	char sha[2 * SHA1_LEN + 1];
	struct position heard; /* what has come of other hosts */

	bool is_forwarder, is_known_script, is_rewinding;
	uint64_t next; /* to be passed on */
	uint64_t under_way[UNDER_WAY_MAX];
	uint32_t first, count;
	uint64_t tried_ms;

	struct list asks; /* struct far_ask */
	size_t ask_count;
	struct list queue; /* struct events_catch_up by far_node: they ask when others have heard */
	size_t want_cursor; /* in the topics: those from it on say next that they are wanted */
	bool is_behind;     /* Redis did not take some: all say it in the next step */
	struct loop_timer again;
};

/* A question of a catch-up; that may be gone when it is answered. */
struct far_ask {
	struct list node;
	struct far *far;
	uint64_t catch_up;
	bool is_position; /* else a topic's list */
};

static bool
is_up(const struct far *far)
{
	return redis_state(far->redis) == REDIS_UP;
}

static void
add_key(const struct far *far, const char *kind, struct str name, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "%s%s", far->prefix, kind);
	buf_add_str(out, name);
}

/* ---- out: this host's log ---- */

struct pass {
	struct buf keys[KEYS_MAX], entry, message;
	char number[NUMBER_MAX], count[NUMBER_MAX], retain[NUMBER_MAX], key_count[NUMBER_MAX];
	struct str argv[ARGS_MAX];
	size_t argc;
};

static void rewind_passing(struct far *);

static void
on_passed(void *arg, const redisReply *reply)
{
	struct far *far = arg;
	uint64_t number = far->under_way[far->first];

	far->first = (far->first + 1) % UNDER_WAY_MAX;
	far->count--;
	if (reply != NULL && reply->type == REDIS_REPLY_INTEGER && !far->is_rewinding) {
		event_log_set_forwarded(far->events->shm, number);
		events_pump_soon(far->events);
		return;
	}
	far->is_rewinding = true;
	rewind_passing(far);
}

/* From what Redis has acknowledged, when nothing is under way any more. */
static void
rewind_passing(struct far *far)
{
	if (far->count > 0)
		return;
	far->is_rewinding = false;
	far->is_known_script = false;
	far->next = event_log_forwarded(far->events->shm) + 1;
}

static void
put_topic(struct far *far, struct pass *p, size_t *n, struct str app, struct str topic)
{
	struct buf name = BUF_INIT;

	if (topic.len == 0)
		return;
	events_topic_name(app, topic, &name);
	add_key(far, "ev:", buf_str(&name), &p->keys[(*n)++]);
	add_key(far, "evsub:", buf_str(&name), &p->keys[(*n)++]);
	buf_fini(&name);
}

static void
put_pass(struct far *far, struct pass *p, const struct event *e, struct str bytes)
{
	const struct conf_events *conf = &far->events->conf->events;
	struct buf payload = BUF_INIT;
	size_t keys = 0;

	add_key(far, "evpos", STR_NONE, &p->keys[keys++]);
	add_key(far, "evage", STR_NONE, &p->keys[keys++]);
	put_topic(far, p, &keys, e->app, e->topic);
	put_topic(far, p, &keys, e->app, e->also);
	snprintf(p->number, sizeof(p->number), "%llu", (unsigned long long)e->number);
	snprintf(p->count, sizeof(p->count), "%lld", (long long)conf->retain_count);
	snprintf(p->retain, sizeof(p->retain), "%llu", (unsigned long long)conf->retain_ms);
	snprintf(p->key_count, sizeof(p->key_count), "%zu", keys);
	buf_printf(&p->entry, "%s %s ", far->host_text, p->number);
	buf_add_str(&p->entry, bytes);
	backplane_put_u64(&payload, 0); /* a cast */
	backplane_put_u64(&payload, e->number);
	backplane_put_str(&payload, bytes);
	const struct inbox_message m = {
	    backplane_self(far->events->backplane), BACKPLANE_EVENTS_FAR, buf_str(&payload)};
	inbox_format(&m, &p->message);
	buf_fini(&payload);

	p->argv[p->argc++] = far->is_known_script ? STR("EVALSHA") : STR("EVAL");
	p->argv[p->argc++] = str_of(far->is_known_script ? far->sha : pass_script);
	p->argv[p->argc++] = str_of(p->key_count);
	for (size_t i = 0; i < keys; i++)
		p->argv[p->argc++] = buf_str(&p->keys[i]);
	p->argv[p->argc++] = str_of(far->host_text);
	p->argv[p->argc++] = str_of(p->number);
	p->argv[p->argc++] = buf_str(&p->entry);
	p->argv[p->argc++] = str_of(p->count);
	p->argv[p->argc++] = str_of(p->retain);
	p->argv[p->argc++] = buf_str(&p->message);
	p->argv[p->argc++] = str_of(far->host_text);
}

/* False: Redis does not take it now. */
static bool
pass_on(struct far *far, const struct event *e, struct str bytes)
{
	struct pass *p = xcalloc(1, sizeof(*p));
	bool is_sent;

	put_pass(far, p, e, bytes);
	is_sent = redis_command(far->redis, p->argc, p->argv, on_passed, far);
	for (size_t i = 0; i < KEYS_MAX; i++)
		buf_fini(&p->keys[i]);
	buf_fini(&p->entry);
	buf_fini(&p->message);
	free(p);
	if (!is_sent)
		return false;
	far->is_known_script = true;
	far->under_way[(far->first + far->count++) % UNDER_WAY_MAX] = e->number;
	return true;
}

static bool
pass_number(struct far *far, uint64_t number)
{
	struct events *ev = far->events;
	struct buf bytes = BUF_INIT;
	struct event *e = NULL;
	bool is_sent = true;

	if (event_log_read(ev->shm, number, &bytes))
		e = event_parse(buf_str(&bytes), ev->host, number);
	if (e != NULL)
		is_sent = pass_on(far, e, buf_str(&bytes));
	event_unref(&e);
	buf_fini(&bytes);
	return is_sent;
}

/* False: nothing more for now. */
static bool
pass_next(struct far *far)
{
	struct events *ev = far->events;
	uint64_t keys[EVENT_LOG_KEYS];

	switch (event_log_look(ev->shm, far->next, keys)) {
	case EVENT_LOG_EVENT:
		if (!pass_number(far, far->next))
			return false;
		break;
	case EVENT_LOG_NOTHING:
		break;
	case EVENT_LOG_LOST:
		metric_add(METRIC_EVENTS_GAPS, 0, 0, 1);
		log_warn("events not passed on to other hosts reason=too_many");
		far->next = event_log_oldest(ev->shm);
		return true;
	case EVENT_LOG_SOON: /* the hub's look gives up whom nobody writes */
		if (far->next >= ev->cursor)
			return false;
		break;
	case EVENT_LOG_END:
		return false;
	}
	far->next++;
	return true;
}

static void
be_forwarder(struct far *far, bool is_one)
{
	if (far->is_forwarder == is_one)
		return;
	far->is_forwarder = is_one;
	events_want(far->events, event_log_key(STR(far_key_name)), is_one);
	far->next = event_log_forwarded(far->events->shm) + 1;
}

void
far_look(struct far *far)
{
	struct events *ev = far->events;

	be_forwarder(far, shm_is_first(ev->shm, ev->who));
	if (!far->is_forwarder || !is_up(far) || far->is_rewinding)
		return;
	while (far->count < UNDER_WAY_MAX && pass_next(far))
		;
}

/* ---- in: what other hosts say ---- */

static void
on_far_event(void *arg, const struct backplane_call *call)
{
	struct far *far = arg;
	struct str rest = call->payload, bytes;
	uint64_t number;
	struct event *e;

	if (!backplane_take_u64(&rest, &number) || !backplane_take_str(&rest, &bytes) ||
	    call->from.host == far->events->host ||
	    number <= position_get(&far->heard, call->from.host))
		return;
	e = event_parse(bytes, call->from.host, number);
	if (e == NULL) {
		log_warn("event of another host malformed");
		return;
	}
	position_set(&far->heard, call->from.host, number);
	events_queue(far->events, e);
}

/* False: Redis does not take it now. */
static bool
say_wants(struct far *far, const struct buf *keys, size_t count, bool are_wanted)
{
	struct str argv[WANT_BATCH + WANT_ARGS];
	char ms[NUMBER_MAX], key_count[NUMBER_MAX];
	size_t argc = 0;

	check(count <= WANT_BATCH);
	snprintf(ms, sizeof(ms), "%d", are_wanted ? WANT_MS : 0);
	snprintf(key_count, sizeof(key_count), "%zu", count);
	argv[argc++] = STR("EVAL");
	argv[argc++] = str_of(want_script);
	argv[argc++] = str_of(key_count);
	for (size_t i = 0; i < count; i++)
		argv[argc++] = buf_str(&keys[i]);
	argv[argc++] = str_of(ms);
	argv[argc++] = buf_str(&far->inbox);
	return redis_command(far->redis, argc, argv, NULL, NULL);
}

void
far_want(struct far *far, struct events_topic *t, bool is_wanted)
{
	struct buf key = BUF_INIT;

	if (!is_up(far))
		return;
	add_key(far, "evsub:", str_of(t->name), &key);
	if (!say_wants(far, &key, 1, is_wanted) && is_wanted)
		far->is_behind = true;
	buf_fini(&key);
}

/* Of so many topics from the cursor on. Returns of how many; fewer: there are no more. */
static size_t
want_some(struct far *far, size_t *cursor, size_t max)
{
	struct buf keys[WANT_BATCH] = {BUF_INIT};
	struct str name;
	size_t count = 0;
	void *topic;

	while (count < max && strmap_next(far->events->topics, cursor, &name, &topic))
		add_key(far, "evsub:", name, &keys[count++]);
	if (count > 0 && !say_wants(far, keys, count, true))
		far->is_behind = true;
	for (size_t i = 0; i < count; i++)
		buf_fini(&keys[i]);
	return count;
}

static void
want_all(struct far *far)
{
	size_t cursor = 0;

	far->is_behind = false;
	while (is_up(far) && want_some(far, &cursor, WANT_BATCH) == WANT_BATCH)
		;
}

/* The share of one step, so that a worker with very many topics does not fill the queue. */
static void
want_next(struct far *far)
{
	size_t left = strmap_count(far->events->topics) / (WANT_AGAIN_MS / WANT_STEP_MS) + 1;

	while (left > 0) {
		size_t max = left < WANT_BATCH ? left : WANT_BATCH;

		if (want_some(far, &far->want_cursor, max) < max) {
			far->want_cursor = 0;
			return;
		}
		left -= max;
	}
}

static void
on_again(struct loop_timer *t)
{
	struct far *far = container_of(t, struct far, again);

	if (is_up(far) && far->is_behind)
		want_all(far);
	else if (is_up(far))
		want_next(far);
	loop_timer_set(far->events->loop, t, WANT_STEP_MS);
}

/* Messages were lost, and perhaps all that Redis knew. */
static void
on_resumed(void *arg)
{
	struct far *far = arg;

	want_all(far);
	list_for_safe (node, &far->events->subs)
		catch_up_again(list_entry(node, struct events_sub, node));
	events_pump_soon(far->events);
}

/* ---- what was said before ---- */

/* Who was there all the time goes on: when Redis is back all are asked for again. */
static void
set_unanswered(struct events_catch_up *c)
{
	if (c->is_quiet)
		c->is_unanswered = true;
	else
		c->is_gap = c->is_gap || c->is_resumed;
}

static bool
read_entry(struct str entry, uint64_t *ret_host, uint64_t *ret_number)
{
	struct position p;
	char text[POSITION_TEXT_MAX];
	struct str host = str_split(&entry, ' '), number = str_split(&entry, ' ');
	int len;

	if (host.len > 16 || !str_to_u64(number, ret_number))
		return false;
	len = snprintf(text, sizeof(text), "0-%.*s.0", (int)host.len, host.p);
	if (!position_parse(str_sub(text, (size_t)len), &p) || p.count != 1)
		return false;
	*ret_host = p.hosts[0].host;
	return true;
}

/*
 * The list is full, and the first that it has of another host is new: there may have been more. Of
 * a host that the position knows the number says whether it is new, and not the time: what was said
 * while Redis was away is passed on later. Of another one the time does, as positions forget hosts.
 */
static bool
may_miss_some(const struct events_catch_up *c, uint64_t host, uint64_t number, int64_t at_ms)
{
	uint64_t known = position_get(&c->after, host);

	return c->is_resumed && (known > 0 ? number > known : at_ms > c->after.at_ms);
}

/* is_full: until the first of another host has been looked at. */
static void
take_entry(struct far *far, struct events_catch_up *c, struct str entry, bool *is_full)
{
	uint64_t host, number;
	struct event *e;
	struct str rest = entry;

	if (!read_entry(entry, &host, &number) || (host == far->events->host && !c->is_thorough))
		return;
	str_split(&rest, ' ');
	str_split(&rest, ' ');
	e = event_parse(rest, host, number);
	if (e == NULL)
		return;
	if (*is_full && host != far->events->host) {
		*is_full = false;
		c->is_gap = c->is_gap || may_miss_some(c, host, number, e->at_ms);
	}
	if (c->is_resumed ? number > position_get(&c->after, host) : (e->flags & EVENTS_FINAL) != 0)
		catch_up_far_event(c, e);
	else
		event_unref(&e);
}

static void
take_list(struct far *far, struct events_catch_up *c, const redisReply *reply)
{
	bool is_full = reply->elements >= (size_t)far->events->conf->events.retain_count;

	for (size_t i = 0; i < reply->elements; i++) {
		const redisReply *entry = reply->element[i];

		if (entry->type == REDIS_REPLY_STRING)
			take_entry(far, c, str_sub(entry->str, entry->len), &is_full);
	}
}

/* Host, number, host, number.. */
static void
take_positions(struct far *far, struct events_catch_up *c, const redisReply *reply)
{
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		const redisReply *host = reply->element[i], *score = reply->element[i + 1];
		struct buf entry = BUF_INIT;
		uint64_t id, number;

		if (host->type != REDIS_REPLY_STRING || score->type != REDIS_REPLY_STRING)
			continue;
		buf_printf(&entry, "%s %s ", host->str, score->str);
		if (read_entry(buf_str(&entry), &id, &number) && id != far->events->host &&
		    number > position_get(&c->horizon, id))
			position_set(&c->horizon, id, number);
		buf_fini(&entry);
	}
}

static void
ask_free(struct far_ask *a)
{
	a->far->ask_count--;
	list_del(&a->node);
	free(a);
}

static void ask_next(struct far *far);

static void
on_answer(void *arg, const redisReply *reply)
{
	struct far_ask a = *(struct far_ask *)arg;
	struct events_catch_up *c = idmap_get(a.far->events->catch_ups, a.catch_up);

	ask_free(arg);
	ask_next(a.far);
	if (c == NULL)
		return;
	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
		set_unanswered(c);
	else if (a.is_position)
		take_positions(a.far, c, reply);
	else
		take_list(a.far, c, reply);
	catch_up_far_done(c);
}

static void
ask(struct far *far, struct events_catch_up *c, size_t argc, const struct str *argv,
    bool is_position)
{
	struct far_ask *a = xcalloc(1, sizeof(*a));

	a->far = far;
	a->catch_up = c->handle;
	a->is_position = is_position;
	list_add_tail(&far->asks, &a->node);
	far->ask_count++;
	if (redis_command(far->redis, argc, argv, on_answer, a)) {
		c->far_waiting++;
		return;
	}
	ask_free(a);
	set_unanswered(c);
}

static void
ask_all(struct far *far, struct events_catch_up *c)
{
	struct buf key = BUF_INIT;

	if (!is_up(far)) {
		set_unanswered(c);
		return;
	}
	add_key(far, "evpos", STR_NONE, &key);
	const struct str positions[] = {
	    STR("ZRANGE"), buf_str(&key), STR("0"), STR("-1"), STR("WITHSCORES")};
	ask(far, c, ARRAY_LEN(positions), positions, true);
	for (uint16_t i = 0; (c->is_resumed || c->wants_final) && i < c->sub->link_count; i++) {
		add_key(far, "ev:", str_of(c->sub->links[i].topic->name), &key);
		const struct str list[] = {
		    STR("LRANGE"), buf_str(&key), c->is_resumed ? STR("0") : STR("-1"), STR("-1")};
		ask(far, c, ARRAY_LEN(list), list, false);
	}
	buf_fini(&key);
}

/* One that is asked for waits for one answer more, so that it is not done between. */
static void
ask_next(struct far *far)
{
	struct events_catch_up *c;

	while (far->ask_count < ASKS_MAX &&
	       (c = list_first(&far->queue, struct events_catch_up, far_node)) != NULL) {
		list_del(&c->far_node);
		ask_all(far, c);
		catch_up_far_done(c);
	}
}

void
far_catch_up(struct far *far, struct events_catch_up *c)
{
	c->far_waiting++;
	list_add_tail(&far->queue, &c->far_node);
	ask_next(far);
}

/* ---- */

struct far *
far_new(struct events *ev)
{
	struct redis *redis = backplane_redis(ev->backplane);
	uint8_t hash[SHA1_LEN];

	if (redis == NULL)
		return NULL;
	struct far *far = xcalloc(1, sizeof(*far));
	far->events = ev;
	far->redis = redis;
	far->prefix = ev->conf->backplane.key_prefix;
	inbox_channel(far->prefix, backplane_self(ev->backplane), &far->inbox);
	snprintf(far->host_text, sizeof(far->host_text), "%llx", (unsigned long long)ev->host);
	crypto_sha1(str_of(pass_script), hash);
	crypto_hex(hash, sizeof(hash), far->sha);
	list_init(&far->asks);
	list_init(&far->queue);
	backplane_serve(ev->backplane, BACKPLANE_EVENTS_FAR, on_far_event, far);
	backplane_on_resumed(ev->backplane, on_resumed, far);
	far->again.on_fire = on_again;
	loop_timer_set(ev->loop, &far->again, WANT_STEP_MS);
	return far;
}

void
far_free(struct far **ref)
{
	struct far *far = *ref;

	if (far == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(far->events->loop, &far->again);
	redis_forget(far->redis, far);
	list_for_safe (node, &far->asks) {
		struct far_ask *a = list_entry(node, struct far_ask, node);

		redis_forget(far->redis, a);
		ask_free(a);
	}
	buf_fini(&far->inbox);
	free(far);
}
