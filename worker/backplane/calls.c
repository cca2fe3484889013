/*
 * calls - requests and answers between workers, over the bus of this host, and over Redis (hosts.h)
 * to those of others.
 *
 * On either a message's type is its method; its payload begins with the call's id
 * (0: a cast), a reply's goes on with the error (0, or its negative). A call waits in the map
 * `calls` with a timer of its own until it is settled, which happens once: by the
 * answer, the peer's end, or the timer. What fails inside a verb is settled by a post.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/backplane/backplane_impl.h"
#include "worker/backplane/owner.h"

struct call {
	struct backplane *backplane;
	uint64_t id; /* in backplane->calls */
	struct backplane_addr to;
	struct loop_timer timer;
	struct loop_post post; /* failed at once */
	int err;
	backplane_on_reply *on_reply;
	void *arg;
};

/* An unknown host is one of a former life, unless there is a way to others. */
static int
send_there(struct backplane *b, struct backplane_addr to, uint16_t method, uint64_t call_id)
{
	if (to.host == shm_host_id(b->shm))
		return bus_send(b->bus, to.who, method, buf_str(&b->message));
	if (b->hosts == NULL)
		return E_GONE;
	return hosts_send(b->hosts, to, method, buf_str(&b->message), call_id);
}

/* Sends head (in b->message) and payload. call_id 0: nobody hears when it cannot be delivered. */
static int
send_message(struct backplane *b, struct backplane_addr to, uint16_t method, struct str payload,
    uint64_t call_id)
{
	buf_add_str(&b->message, payload);
	int err = send_there(b, to, method, call_id);
	/* A large one is not held on to. */
	if (b->message.cap > 64 << 10)
		buf_fini(&b->message);
	if (err == 0)
		metric_add(METRIC_BACKPLANE_MESSAGES, DIRECTION_OUT, 0, 1);
	return err;
}

static int
send_head(struct backplane *b, struct backplane_addr to, uint16_t method, uint64_t call_id,
    struct str payload)
{
	buf_clear(&b->message);
	backplane_put_u64(&b->message, call_id);
	return send_message(b, to, method, payload, call_id);
}

static void
call_free(struct call *c)
{
	idmap_remove(c->backplane->calls, c->id);
	metric_gauge(METRIC_BACKPLANE_CALLS, 0, 0, -1);
	loop_timer_stop(c->backplane->loop, &c->timer);
	loop_post_cancel(c->backplane->loop, &c->post);
	free(c);
}

static void
call_settle(struct call *c, int err, struct str payload)
{
	backplane_on_reply *on_reply = c->on_reply;
	void *arg = c->arg;

	call_free(c);
	on_reply(arg, err, payload);
}

static void
on_call_timeout(struct loop_timer *timer)
{
	call_settle(container_of(timer, struct call, timer), E_OWNER_UNAVAILABLE, STR_NONE);
}

static void
on_call_failed(struct loop_post *post)
{
	struct call *c = container_of(post, struct call, post);

	call_settle(c, c->err, STR_NONE);
}

void
backplane_send_call(struct backplane *b, struct backplane_addr to, enum backplane_method method,
    struct str payload, uint32_t timeout_ms, backplane_on_reply *on_reply, void *arg)
{
	struct call *c = xcalloc(1, sizeof(*c));

	check(method > BACKPLANE_REPLY && method < BACKPLANE_METHOD_COUNT && on_reply != NULL);
	c->backplane = b;
	c->id = idmap_add(b->calls, c);
	metric_gauge(METRIC_BACKPLANE_CALLS, 0, 0, 1);
	c->to = to;
	c->timer.on_fire = on_call_timeout;
	c->post.run = on_call_failed;
	c->on_reply = on_reply;
	c->arg = arg;
	c->err = send_head(b, to, (uint16_t)method, c->id, payload);
	if (c->err != 0)
		loop_post(b->loop, &c->post);
	else
		loop_timer_set(b->loop, &c->timer, timeout_ms);
}

int
backplane_cast(
    struct backplane *b, struct backplane_addr to, enum backplane_method method, struct str payload)
{
	check(method > BACKPLANE_REPLY && method < BACKPLANE_METHOD_COUNT);
	return send_head(b, to, (uint16_t)method, 0, payload);
}

struct missed {
	const struct backplane *backplane;
	backplane_on_missed *on_missed;
	void *arg;
};

static void
on_busy(void *arg, struct shm_who who)
{
	struct missed *m = arg;

	if (m->on_missed != NULL)
		m->on_missed(m->arg, backplane_addr_of(m->backplane, who));
}

void
backplane_broadcast(struct backplane *b, enum backplane_method method, struct str payload,
    backplane_on_missed *on_missed, void *arg)
{
	struct missed missed = {b, on_missed, arg};

	check(method > BACKPLANE_REPLY && method < BACKPLANE_METHOD_COUNT);
	buf_clear(&b->message);
	backplane_put_u64(&b->message, 0);
	buf_add_str(&b->message, payload);
	int n = bus_broadcast(b->bus, (uint16_t)method, buf_str(&b->message), on_busy, &missed);
	if (b->hosts != NULL) {
		hosts_broadcast(b->hosts, (uint16_t)method, buf_str(&b->message));
		n++;
	}
	metric_add(METRIC_BACKPLANE_MESSAGES, DIRECTION_OUT, 0, (uint64_t)n);
}

void
backplane_reply(
    struct backplane *b, struct backplane_addr to, uint64_t call_id, int err, struct str payload)
{
	check(err <= 0);
	if (call_id == 0)
		return;
	buf_clear(&b->message);
	backplane_put_u64(&b->message, call_id);
	backplane_put_u64(&b->message, (uint64_t)-err);
	/* Who cannot be answered has gone, or is told by his timer. */
	(void)send_message(b, to, BACKPLANE_REPLY, payload, 0);
}

static bool
on_reply(struct backplane *b, struct backplane_addr from, struct str rest)
{
	uint64_t id, err;

	if (!backplane_take_u64(&rest, &id) || !backplane_take_u64(&rest, &err) || err > ERR_COUNT)
		return false;
	struct call *c = idmap_get(b->calls, id);
	/* NULL: late, its caller was told something else. */
	if (c != NULL && owner_equal(c->to, from))
		call_settle(c, -(int)err, rest);
	return true;
}

static bool
on_request(struct backplane *b, struct backplane_addr from, uint16_t method, struct str rest)
{
	struct backplane_call call = {.from = from};

	if (method >= BACKPLANE_METHOD_COUNT || !backplane_take_u64(&rest, &call.call_id))
		return false;
	call.payload = rest;
	struct service *s = &b->services[method];
	if (s->handler != NULL)
		s->handler(s->arg, &call);
	else
		backplane_reply(b, call.from, call.call_id, E_UNAVAILABLE, STR_NONE);
	return true;
}

/* Of this host it would be our mistake; what comes from others may be anything. */
void
backplane_calls_take_message(
    struct backplane *b, struct backplane_addr from, uint16_t method, struct str payload)
{
	bool is_own = from.host == shm_host_id(b->shm);

	metric_add(METRIC_BACKPLANE_MESSAGES, DIRECTION_IN, 0, 1);
	if (!(method == BACKPLANE_REPLY ? on_reply(b, from, payload)
					: on_request(b, from, method, payload)))
		log_at(is_own ? LOG_ERROR : LOG_WARN,
		    "backplane message not understood from=%u/%u method=%u", from.who.row,
		    from.who.number, method);
}

void
backplane_calls_drop(struct backplane *b, struct backplane_addr peer)
{
	uint32_t cursor = 0;
	struct call *c;

	while ((c = idmap_next(b->calls, &cursor)) != NULL) {
		if (owner_equal(c->to, peer) && c->err == 0)
			call_settle(c, E_GONE, STR_NONE);
	}
}

void
backplane_calls_undelivered(struct backplane *b, uint64_t call_id)
{
	struct call *c = idmap_get(b->calls, call_id);

	if (c != NULL)
		call_settle(c, E_GONE, STR_NONE);
}

void
backplane_serve(
    struct backplane *b, enum backplane_method method, backplane_handler *handler, void *arg)
{
	check(method > BACKPLANE_REPLY && method < BACKPLANE_METHOD_COUNT &&
	      b->services[method].handler == NULL);
	b->services[method] = (struct service){handler, arg};
}

void
backplane_calls_init(struct backplane *b)
{
	b->calls = idmap_new();
}

void
backplane_calls_fini(struct backplane *b)
{
	uint32_t cursor = 0;
	struct call *c;

	while ((c = idmap_next(b->calls, &cursor)) != NULL)
		call_free(c);
	idmap_free(&b->calls);
}
