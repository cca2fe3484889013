/*
 * backplane - a worker's life among the others: whom it hears, who is gone, who is told.
 */
#include "worker/backplane/backplane_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"

/* Peers without a connection to us are looked at in the table, twice before they are called gone:
 * the end of a connection, which comes first when there is one, tells more. */
enum { LOOK_MS = 400 };

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

struct backplane_addr
backplane_self(const struct backplane *b)
{
	return backplane_addr_of(b, b->me);
}

static void
on_message(void *arg, struct shm_who from, uint16_t method, struct str payload)
{
	struct backplane *b = arg;

	backplane_calls_take_message(b, backplane_addr_of(b, from), method, payload);
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

	backplane_calls_drop(b, backplane_addr_of(b, peer));
	if (seen->told >= peer.number)
		return;
	seen->told = peer.number;
	tell_gone(b, backplane_addr_of(b, peer));
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
	backplane_calls_drop(b, peer);
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
	hosts_sign_off(b->hosts, backplane_addr_of(b, dead));
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
	backplane_calls_take_message(arg, from, method, payload);
}

static void
on_undelivered(void *arg, uint64_t call_id)
{
	backplane_calls_undelivered(arg, call_id);
}

static void
on_far_gone(void *arg, struct backplane_addr peer)
{
	struct backplane *b = arg;

	if (peer.host == shm_host_id(b->shm)) /* of ours the shared memory knows first */
		return;
	backplane_calls_drop(b, peer);
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
backplane_on_peer_gone(
    struct backplane *b, void (*on_gone)(void *arg, struct backplane_addr), void *arg)
{
	struct gone_watcher *w = xcalloc(1, sizeof(*w));

	w->on_gone = on_gone;
	w->arg = arg;
	list_add_tail(&b->watchers, &w->node);
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
	backplane_calls_init(b);
	b->seen = xcalloc(shm_rows(shm), sizeof(*b->seen));
	backplane_lookups_init(b);
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
backplane_leave(struct backplane *b)
{
	if (b->hosts != NULL)
		hosts_leave(b->hosts);
}

void
backplane_free(struct backplane **at)
{
	struct backplane *b = *at;

	if (b == NULL)
		return;
	hosts_free(&b->hosts);
	loop_timer_stop(b->loop, &b->look);
	loop_watch_stop(b->loop, &b->watch);
	backplane_calls_fini(b);
	backplane_lookups_fini(b);
	free_lists(b);
	bus_free(&b->bus);
	buf_fini(&b->message);
	free(b->seen);
	free(b);
	*at = NULL;
}
