/*
 * backplane - calls between workers: over the bus of this host, and over Redis (hosts.h) to those
 * of others.
 *
 * On either a message's type is its method; its payload begins with the call's id
 * (0: a cast), a reply's goes on with the error (0, or its negative). A call waits in the map
 * `calls` with a timer of its own until it is settled, which happens once: by the
 * answer, the peer's end, or the timer. What fails inside a verb is settled by a post.
 */
#include "worker/backplane/backplane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/check.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/log.h"
#include "common/metric.h"
#include "common/owners.h"
#include "worker/backplane/hosts.h"
#include "worker/backplane/owner.h"

/* Peers without a connection to us are looked at in the table, twice before they are called gone:
 * the end of a connection, which comes first when there is one, tells more. */
enum { LOOK_MS = 400 };

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

struct lookup {
	struct list node;
	struct loop_post post;
	int err;
	struct backplane_addr addr;
	backplane_on_owner *on_owner;
	void *arg;
};

struct resumer {
	struct list node;
	void (*on_resumed)(void *arg);
	void *arg;
};

struct gone_watcher {
	struct list node;
	void (*on_gone)(void *arg, struct backplane_addr);
	void *arg;
};

struct service {
	backplane_handler *handler;
	void *arg;
};

struct seen {                  /* a row, as it was looked at last */
	uint32_t number, told; /* told: newest number that the watchers know to be gone */
	bool is_missed;
};

struct backplane {
	struct loop *loop;
	struct shm *shm;
	struct shm_who me;
	struct bus *bus;
	struct loop_watch watch;
	struct loop_timer look;
	struct service services[BACKPLANE_METHOD_COUNT];
	struct idmap *calls;
	struct hosts *hosts; /* NULL: there are no others */
	struct list lookups, watchers, resumers;
	struct seen *seen;  /* by row */
	struct buf message; /* the one being put together */
};

static struct backplane_addr
addr_of(const struct backplane *b, struct shm_who who)
{
	return (struct backplane_addr){shm_host_id(b->shm), who};
}

struct backplane_addr
backplane_self(const struct backplane *b)
{
	return addr_of(b, b->me);
}

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
		m->on_missed(m->arg, addr_of(m->backplane, who));
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
static void
take_message(struct backplane *b, struct backplane_addr from, uint16_t method, struct str payload)
{
	bool is_own = from.host == shm_host_id(b->shm);

	metric_add(METRIC_BACKPLANE_MESSAGES, DIRECTION_IN, 0, 1);
	if (!(method == BACKPLANE_REPLY ? on_reply(b, from, payload)
					: on_request(b, from, method, payload)))
		log_at(is_own ? LOG_ERROR : LOG_WARN,
		    "backplane message not understood from=%u/%u method=%u", from.who.row,
		    from.who.number, method);
}

static void
on_message(void *arg, struct shm_who from, uint16_t method, struct str payload)
{
	struct backplane *b = arg;

	take_message(b, addr_of(b, from), method, payload);
}

static void
drop_calls(struct backplane *b, struct backplane_addr peer)
{
	uint32_t cursor = 0;
	struct call *c;

	while ((c = idmap_next(b->calls, &cursor)) != NULL) {
		if (owner_equal(c->to, peer) && c->err == 0)
			call_settle(c, E_GONE, STR_NONE);
	}
}

static void
tell_gone(struct backplane *b, struct backplane_addr peer)
{
	list_for (node, &b->watchers) {
		struct gone_watcher *w = list_entry(node, struct gone_watcher, node);

		w->on_gone(w->arg, peer);
	}
}

static void
on_peer_gone(void *arg, struct shm_who peer)
{
	struct backplane *b = arg;
	struct seen *seen = &b->seen[peer.row];

	drop_calls(b, addr_of(b, peer));
	if (seen->told >= peer.number)
		return;
	seen->told = peer.number;
	tell_gone(b, addr_of(b, peer));
}

/* By another host, of a worker of its own. */
static void
on_said_gone(void *arg, const struct backplane_call *call)
{
	struct backplane *b = arg;
	struct str rest = call->payload;
	uint64_t row, number;

	if (call->from.host == shm_host_id(b->shm) || !backplane_take_u64(&rest, &row) ||
	    !backplane_take_u64(&rest, &number) || row > UINT32_MAX || number > UINT32_MAX)
		return;
	struct backplane_addr peer = {call->from.host, {(uint32_t)row, (uint32_t)number}};
	drop_calls(b, peer);
	tell_gone(b, peer);
}

void
backplane_say_gone(struct backplane *b, struct shm_who dead)
{
	if (b->hosts == NULL)
		return;
	buf_clear(&b->message);
	backplane_put_u64(&b->message, 0);
	backplane_put_u64(&b->message, dead.row);
	backplane_put_u64(&b->message, dead.number);
	hosts_sign_off(b->hosts, addr_of(b, dead));
	hosts_broadcast(b->hosts, BACKPLANE_PEER_GONE, buf_str(&b->message));
	metric_add(METRIC_BACKPLANE_MESSAGES, DIRECTION_OUT, 0, 1);
}

static void
look_at_row(struct backplane *b, uint32_t row)
{
	struct seen *seen = &b->seen[row];
	struct shm_who was = {row, seen->number};
	struct shm_row_info info;

	if (seen->number != 0 && !shm_is_alive(b->shm, was)) {
		if (!seen->is_missed) {
			seen->is_missed = true;
			return;
		}
		seen->number = 0;
		on_peer_gone(b, was);
	}
	seen->is_missed = false;
	if (seen->number == 0 && shm_row_get(b->shm, row, &info) && info.state != SHM_DEAD)
		seen->number = info.who.number;
}

/* Also those whom we have never seen: they lived too short, or before us. */
static void
look_for_dead(struct backplane *b, uint32_t row)
{
	struct shm_who dead;

	while (shm_row_left(b->shm, row, b->seen[row].told, &dead))
		on_peer_gone(b, dead);
}

static void
on_look(struct loop_timer *timer)
{
	struct backplane *b = container_of(timer, struct backplane, look);

	loop_timer_set(b->loop, &b->look, LOOK_MS);
	for (uint32_t row = 0; row < shm_rows_used(b->shm); row++) {
		look_for_dead(b, row);
		if (row != b->me.row)
			look_at_row(b, row);
	}
}

static void
on_bus_ready(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	bus_step(container_of(watch, struct backplane, watch)->bus);
}

/* ---- other hosts ---- */

static void
on_far_message(void *arg, struct backplane_addr from, uint16_t method, struct str payload)
{
	take_message(arg, from, method, payload);
}

static void
on_undelivered(void *arg, uint64_t call_id)
{
	struct backplane *b = arg;
	struct call *c = idmap_get(b->calls, call_id);

	if (c != NULL)
		call_settle(c, E_GONE, STR_NONE);
}

static void
on_far_gone(void *arg, struct backplane_addr peer)
{
	struct backplane *b = arg;

	if (peer.host == shm_host_id(b->shm)) /* of ours the shared memory knows first */
		return;
	drop_calls(b, peer);
	tell_gone(b, peer);
}

static void
on_far_resumed(void *arg)
{
	struct backplane *b = arg;

	list_for (node, &b->resumers) {
		struct resumer *r = list_entry(node, struct resumer, node);

		r->on_resumed(r->arg);
	}
}

int
backplane_reach(struct backplane *b, const struct conf_backplane *conf)
{
	static const struct hosts_handlers handlers = {
	    on_far_message, on_undelivered, on_far_gone, on_far_resumed};

	check(b->hosts == NULL);
	if (conf->url[0] == '\0')
		return 0;
	b->hosts = hosts_new(b->loop, conf, b->shm, backplane_self(b), &handlers, b);
	return b->hosts != NULL ? 0 : E_UNAVAILABLE;
}

struct redis *
backplane_redis(struct backplane *b)
{
	return b->hosts != NULL ? hosts_redis(b->hosts) : NULL;
}

void
backplane_on_resumed(struct backplane *b, void (*on_resumed)(void *arg), void *arg)
{
	struct resumer *r = xcalloc(1, sizeof(*r));

	r->on_resumed = on_resumed;
	r->arg = arg;
	list_add_tail(&b->resumers, &r->node);
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
backplane_on_peer_gone(
    struct backplane *b, void (*on_gone)(void *arg, struct backplane_addr), void *arg)
{
	struct gone_watcher *w = xcalloc(1, sizeof(*w));

	w->on_gone = on_gone;
	w->arg = arg;
	list_add_tail(&b->watchers, &w->node);
}

bool
backplane_own(struct backplane *b, const struct id *id)
{
	if (b->hosts != NULL)
		hosts_own(b->hosts, id);
	return owners_add(b->shm, b->me, id);
}

void
backplane_disown(struct backplane *b, const struct id *id)
{
	if (b->hosts != NULL)
		hosts_disown(b->hosts, id);
	owners_remove(b->shm, b->me, id);
}

static void
on_lookup_done(struct loop_post *post)
{
	struct lookup l = *container_of(post, struct lookup, post);

	list_del(&container_of(post, struct lookup, post)->node);
	free(container_of(post, struct lookup, post));
	l.on_owner(l.arg, l.err, l.addr);
}

void
backplane_find_owner(
    struct backplane *b, const struct id *id, backplane_on_owner *on_owner, void *arg)
{
	struct shm_who who = {0, 0};
	bool is_here = owners_find(b->shm, id, &who);

	if (!is_here && b->hosts != NULL && hosts_find_owner(b->hosts, id, on_owner, arg))
		return;
	struct lookup *l = xcalloc(1, sizeof(*l));
	l->err = is_here ? 0 : E_NOT_FOUND;
	l->addr = addr_of(b, who);
	l->on_owner = on_owner;
	l->arg = arg;
	l->post.run = on_lookup_done;
	list_add_tail(&b->lookups, &l->node);
	loop_post(b->loop, &l->post);
}

struct backplane *
backplane_new(struct loop *loop, struct shm *shm, struct shm_who me)
{
	const struct bus_handlers handlers = {on_message, on_peer_gone};
	struct backplane *b = xcalloc(1, sizeof(*b));

	b->loop = loop;
	b->shm = shm;
	b->me = me;
	b->bus = bus_new(shm, me, &handlers, b);
	if (b->bus == NULL) {
		log_error("bus not opened errno=%d", errno);
		free(b);
		return NULL;
	}
	b->calls = idmap_new();
	b->seen = xcalloc(shm_rows(shm), sizeof(*b->seen));
	list_init(&b->lookups);
	list_init(&b->watchers);
	list_init(&b->resumers);
	b->watch.on_ready = on_bus_ready;
	loop_watch_start(loop, &b->watch, bus_fd(b->bus), EPOLLIN);
	b->look.on_fire = on_look;
	loop_timer_set(loop, &b->look, 0); /* when its watchers have come */
	backplane_serve(b, BACKPLANE_PEER_GONE, on_said_gone, b);
	metric_gauge_set(METRIC_BACKPLANE_UP, 0, 0, 1);
	return b;
}

static void
free_lists(struct backplane *b)
{
	list_for_safe (node, &b->lookups) {
		struct lookup *l = list_entry(node, struct lookup, node);

		loop_post_cancel(b->loop, &l->post);
		list_del(node);
		free(l);
	}
	list_for_safe (node, &b->watchers) {
		list_del(node);
		free(list_entry(node, struct gone_watcher, node));
	}
	list_for_safe (node, &b->resumers) {
		list_del(node);
		free(list_entry(node, struct resumer, node));
	}
}

void
backplane_free(struct backplane **at)
{
	struct backplane *b = *at;
	uint32_t cursor = 0;
	struct call *c;

	if (b == NULL)
		return;
	hosts_free(&b->hosts);
	loop_timer_stop(b->loop, &b->look);
	loop_watch_stop(b->loop, &b->watch);
	while ((c = idmap_next(b->calls, &cursor)) != NULL)
		call_free(c);
	free_lists(b);
	idmap_free(&b->calls);
	bus_free(&b->bus);
	buf_fini(&b->message);
	free(b->seen);
	free(b);
	*at = NULL;
}
