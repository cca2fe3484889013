/* hosts - see hosts.h. */
#include "worker/backplane/hosts.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/backplane/inbox.h"
#include "worker/backplane/members.h"
#include "worker/backplane/owner.h"
#include "worker/backplane/reconnect.h"

/* KEYS: the registry. ARGV: who is alive, how many ms of silence are a death. All that are
 * registered. */
static const char beat_script[] = "local t = redis.call('TIME') "
				  "local now = t[1] * 1000 + math.floor(t[2] / 1000) "
				  "redis.call('ZADD', KEYS[1], now, ARGV[1]) "
				  "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2]) "
				  "return redis.call('ZRANGE', KEYS[1], 0, -1)";

/* A question to Redis whose answer somebody waits for. */
struct asked {
	struct list node;
	struct hosts *hosts;
	uint64_t call_id; /* of a message */
	backplane_on_owner *on_owner;
	void *arg;
};

struct hosts {
	struct loop *loop;
	const struct conf_backplane *conf;
	struct shm *shm;
	struct backplane_addr self;
	const struct hosts_handlers *handlers;
	void *arg;
	struct redis *redis;
	struct buf own_channel, channel_of_all, registry;
	struct buf channel, message, key; /* being put together */
	char name[OWNER_MAX];
	struct list asked;
	struct members members;
	struct loop_timer beat;
	bool is_beating, was_up;
	uint64_t beat_ms;  /* when the heartbeat under way was sent */
	uint64_t since_ms; /* the first one since Redis is there; 0: none */
};

/* ---- heartbeats ---- */

/* Whose connection has broken comes back as late as its back-off lets it: that is no death. */
static uint64_t
silence_ms(const struct hosts *h)
{
	return h->conf->lease_ms + RECONNECT_MAX_MS;
}

/* A registry that may just have been emptied tells nothing until everybody had time to come back.
 */
static bool
is_trusted(const struct hosts *h, uint64_t now_ms)
{
	return h->since_ms != 0 && now_ms - h->since_ms > silence_ms(h) &&
	       now_ms - h->members.asked_ms < silence_ms(h);
}

static void
take_members(struct hosts *h, const redisReply *reply)
{
	size_t max = reply->elements < MEMBERS_MAX ? reply->elements : MEMBERS_MAX, count = 0;
	struct backplane_addr *list = xcalloc(max > 0 ? max : 1, sizeof(*list));

	for (size_t i = 0; i < max; i++) {
		const redisReply *r = reply->element[i];

		if (r->type == REDIS_REPLY_STRING && owner_parse(r->str, &list[count]))
			count++;
	}
	bool is_told = is_trusted(h, loop_now_ms(h->loop));
	members_replace(
	    &h->members, list, count, h->beat_ms, is_told ? h->handlers->on_gone : NULL, h->arg);
	free(list);
}

static void
on_beaten(void *arg, const redisReply *reply)
{
	struct hosts *h = arg;

	h->is_beating = false;
	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
		return;
	if (h->since_ms == 0)
		h->since_ms = h->beat_ms;
	take_members(h, reply);
}

static void
beat(struct hosts *h)
{
	char silence[24];

	if (h->is_beating)
		return;
	snprintf(silence, sizeof(silence), "%llu", (unsigned long long)silence_ms(h));
	const struct str argv[] = {STR("EVAL"), str_of(beat_script), STR("1"),
	    buf_str(&h->registry), str_of(h->name), str_of(silence)};
	h->beat_ms = loop_now_ms(h->loop);
	h->is_beating = redis_command(h->redis, ARRAY_LEN(argv), argv, on_beaten, h);
}

static void
on_beat(struct loop_timer *timer)
{
	struct hosts *h = container_of(timer, struct hosts, beat);

	loop_timer_set(h->loop, timer, h->conf->lease_ms / 3);
	beat(h);
}

size_t
hosts_count(const struct hosts *h)
{
	return h->members.count;
}

/* ---- how Redis is ---- */

/* One worker of the host says it for all. */
static void
tell_away(struct hosts *h, enum redis_state is, const char *reason)
{
	uint64_t nobody = 0;

	if (atomic_compare_exchange_strong(shm_word(h->shm, SHM_WORD_BACKPLANE_AWAY), &nobody, 1))
		log_warn("backplane degraded to local state=%s reason=%s",
		    is == REDIS_FULL ? "full" : "away", log_quote(str_of(reason)).s);
	else
		log_debug("backplane away reason=%s", log_quote(str_of(reason)).s);
}

uint32_t
hosts_workers_away(const struct shm *shm)
{
	uint32_t away = 0;

	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		struct shm_row_info row;

		if (shm_row_get(shm, i, &row) && row.state == SHM_READY)
			away += metric_of_row(shm, i, METRIC_BACKPLANE_UP, 0, 0) == 0;
	}
	return away;
}

/* The last one to come back says it, or those that are not yet would warn again. */
static void
tell_up(struct hosts *h)
{
	if (hosts_workers_away(h->shm) == 0 &&
	    atomic_exchange(shm_word(h->shm, SHM_WORD_BACKPLANE_AWAY), 0) != 0)
		log_info("backplane is back mode=redis");
	else if (!h->was_up)
		log_info("backplane connected mode=redis");
}

static void
on_state(void *arg, enum redis_state was, enum redis_state is, const char *reason)
{
	struct hosts *h = arg;

	metric_gauge_set(METRIC_BACKPLANE_UP, 0, 0, is == REDIS_UP);
	if (is == REDIS_AWAY) {
		loop_timer_stop(h->loop, &h->beat);
		h->since_ms = 0;
	}
	if (is != REDIS_UP) {
		tell_away(h, is, reason);
		return;
	}
	tell_up(h);
	on_beat(&h->beat);
	if (was == REDIS_AWAY && h->was_up)
		h->handlers->on_resumed(h->arg);
	h->was_up = true;
}

/* ---- messages ---- */

static void
on_inbox(void *arg, struct str text)
{
	struct hosts *h = arg;
	struct inbox_message m;

	if (!inbox_parse(text, &m)) {
		log_warn("message of another host not understood bytes=%zu", text.len);
		return;
	}
	if (m.from.host == h->self.host) /* said to all, and heard over the bus */
		return;
	h->handlers->on_message(h->arg, m.from, m.method, m.payload);
}

static struct asked *
asked_new(struct hosts *h, void *arg)
{
	struct asked *a = xcalloc(1, sizeof(*a));

	a->hosts = h;
	a->arg = arg;
	list_add_tail(&h->asked, &a->node);
	return a;
}

static void
asked_free(struct asked *a)
{
	list_del(&a->node);
	free(a);
}

static void
on_published(void *arg, const redisReply *reply)
{
	struct asked *a = arg;
	struct hosts *h = a->hosts;
	uint64_t call_id = a->call_id;

	asked_free(a);
	if (reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer == 0)
		h->handlers->on_undelivered(h->arg, call_id);
}

static bool
publish(struct hosts *h, struct str channel, uint16_t method, struct str payload,
    command_on_reply *on_reply, void *arg)
{
	const struct inbox_message m = {h->self, method, payload};

	buf_clear(&h->message);
	inbox_format(&m, &h->message);
	const struct str argv[] = {STR("PUBLISH"), channel, buf_str(&h->message)};
	bool is_sent = redis_command(h->redis, ARRAY_LEN(argv), argv, on_reply, arg);
	if (h->message.cap > 64 << 10)
		buf_fini(&h->message);
	return is_sent;
}

int
hosts_send(struct hosts *h, struct backplane_addr to, uint16_t method, struct str payload,
    uint64_t call_id)
{
	struct asked *a = NULL;

	inbox_channel(h->conf->key_prefix, to, &h->channel);
	if (call_id != 0) {
		a = asked_new(h, NULL);
		a->call_id = call_id;
	}
	if (publish(h, buf_str(&h->channel), method, payload, a != NULL ? on_published : NULL, a))
		return 0;
	if (a != NULL)
		asked_free(a);
	return E_BUSY;
}

void
hosts_broadcast(struct hosts *h, uint16_t method, struct str payload)
{
	publish(h, buf_str(&h->channel_of_all), method, payload, NULL, NULL);
}

/* ---- owners ---- */

static struct str
owned_key(struct hosts *h, const struct id *id)
{
	buf_clear(&h->key);
	buf_printf(&h->key, "%sown:%s", h->conf->key_prefix, id->s);
	return buf_str(&h->key);
}

void
hosts_own(struct hosts *h, const struct id *id)
{
	char seconds[16];

	if (redis_state(h->redis) != REDIS_UP)
		return;
	snprintf(seconds, sizeof(seconds), "%d", HOSTS_OWNED_S);
	const struct str argv[] = {
	    STR("SET"), owned_key(h, id), str_of(h->name), STR("EX"), str_of(seconds)};
	redis_command(h->redis, ARRAY_LEN(argv), argv, NULL, NULL);
}

void
hosts_disown(struct hosts *h, const struct id *id)
{
	const struct str argv[] = {STR("DEL"), owned_key(h, id)};

	redis_command(h->redis, ARRAY_LEN(argv), argv, NULL, NULL);
}

static void
on_found(void *arg, const redisReply *reply)
{
	struct asked a = *(struct asked *)arg;
	struct backplane_addr addr = {0, {0, 0}};

	asked_free(arg);
	/* What this host owned it would have found itself. */
	bool is_found = reply != NULL && reply->type == REDIS_REPLY_STRING &&
			owner_parse(reply->str, &addr) && addr.host != a.hosts->self.host;
	a.on_owner(a.arg, is_found ? 0 : E_NOT_FOUND, addr);
}

bool
hosts_find_owner(struct hosts *h, const struct id *id, backplane_on_owner *on_owner, void *arg)
{
	struct asked *a;

	if (redis_state(h->redis) == REDIS_AWAY)
		return false;
	a = asked_new(h, arg);
	a->on_owner = on_owner;
	const struct str argv[] = {STR("GET"), owned_key(h, id)};
	if (redis_command(h->redis, ARRAY_LEN(argv), argv, on_found, a))
		return true;
	asked_free(a);
	return false;
}

/* ---- life ---- */

struct redis *
hosts_redis(struct hosts *h)
{
	return h->redis;
}

static void
free_all(struct hosts *h)
{
	redis_free(&h->redis);
	list_for_safe (node, &h->asked)
		asked_free(list_entry(node, struct asked, node));
	buf_fini(&h->own_channel);
	buf_fini(&h->channel_of_all);
	buf_fini(&h->registry);
	buf_fini(&h->channel);
	buf_fini(&h->message);
	buf_fini(&h->key);
	members_fini(&h->members);
	free(h);
}

struct hosts *
hosts_new(struct loop *loop, const struct conf_backplane *conf, struct shm *shm,
    struct backplane_addr self, const struct hosts_handlers *handlers, void *arg)
{
	static const struct redis_handlers redis_handlers = {on_state, on_inbox};
	struct hosts *h = xcalloc(1, sizeof(*h));

	h->loop = loop;
	h->conf = conf;
	h->shm = shm;
	h->self = self;
	h->handlers = handlers;
	h->arg = arg;
	list_init(&h->asked);
	owner_format(self, h->name);
	inbox_channel(conf->key_prefix, self, &h->own_channel);
	inbox_channel_of_all(conf->key_prefix, &h->channel_of_all);
	buf_printf(&h->registry, "%sworkers", conf->key_prefix);
	h->beat.on_fire = on_beat;
	h->redis =
	    redis_new(loop, conf, h->own_channel.data, h->channel_of_all.data, &redis_handlers, h);
	if (h->redis == NULL) {
		free_all(h);
		return NULL;
	}
	metric_gauge_set(METRIC_BACKPLANE_UP, 0, 0, 0);
	return h;
}

void
hosts_sign_off(struct hosts *h, struct backplane_addr addr)
{
	char name[OWNER_MAX];

	owner_format(addr, name);
	const struct str argv[] = {STR("ZREM"), buf_str(&h->registry), str_of(name)};
	redis_command(h->redis, ARRAY_LEN(argv), argv, NULL, NULL);
}

void
hosts_leave(struct hosts *h)
{
	hosts_sign_off(h, h->self);
	redis_say_last(h->redis);
}

void
hosts_free(struct hosts **ref)
{
	struct hosts *h = *ref;

	if (h == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(h->loop, &h->beat);
	hosts_sign_off(h, h->self); /* what runs here ends with this worker */
	free_all(h);
}
