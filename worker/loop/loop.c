/*
 * loop - h2o's evloop with our descriptors, timers and posts around it.
 *
 *   round:  h2o_evloop_run   its sockets, and ours: the nested epoll is one of them
 *           timers           what is due
 *           posts            what is posted, and what that posts, a few times over
 *
 * About once a millisecond we make a descriptor ready before a round. The time to the end of
 * the round that handles it is how long ready work waits (admission.h): of one round when all that
 * is ready fits into one, of several when not.
 *
 * Rule of h2o: its pending list must be empty when h2o_evloop_run() is entered, or
 * an assertion ends the process. What it calls itself is drained by it; after each
 * of our own callbacks outside of it we drain (loop_drain_h2o).
 */
#include "worker/loop/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/loop/h2o_loop.h"

enum {
	LOOP_EVENTS_PER_ROUND = 256, /* of the nested epoll; the rest stays ready */
	LOOP_WAIT_MAX_MS = 60 * 1000,
	LOOP_POST_STEPS = 8,
	LOOP_MEASURE_US = 1000,           /* between two measurements, or as long as one takes */
	LOOP_MEASURE_CALM_US = 10 * 1000, /* while nothing waits long: each costs five calls */
};

/* One place of the table that epoll events point into: a place that was given back has another
 * generation, so an event fetched before finds nothing. */
struct loop_slot {
	struct loop_watch *watch; /* NULL: free */
	uint32_t generation;
	uint32_t next_free; /* + 1; 0: last */
};

struct loop {
	h2o_loop_t *h2o;
	h2o_socket_t *epoll_socket;
	int epoll_fd;
	pthread_t thread;
	bool is_stopping;
	uint64_t now_ms;
	uint64_t h2o_now_seen; /* h2o's own clock when now_ms was read */

	struct loop_slot *slots;
	uint32_t slot_count, slot_free; /* slot_free: + 1 */

	struct loop_timer **heap; /* binary, earliest first */
	uint32_t heap_len, heap_cap;
	uint32_t round; /* of timers, counted from its beginning */

	pthread_mutex_t posts_lock; /* protects posts and the nodes in it */
	struct list posts;
	struct loop_watch wake; /* an eventfd: written by other threads */

	struct admission admission;
	struct loop_watch probe;
	bool is_measuring, is_probe_out;        /* begun; not yet handled */
	uint64_t measured_us, measured_core_us; /* when the last measurement began */
	bool has_waited_long;                   /* above the target, since an interval ended */
	bool is_calm;                           /* nothing has, in the last whole interval */
};

h2o_loop_t *
loop_h2o(struct loop *l)
{
	return l->h2o;
}

struct admission *
loop_admission(struct loop *l)
{
	return &l->admission;
}

static void
loop_read_clock(struct loop *l)
{
	l->h2o_now_seen = h2o_now(l->h2o);
	l->now_ms = clock_mono_ms();
}

/* h2o reads its clock when it returns from waiting: that it has moved tells us that ours is old. */
uint64_t
loop_now_ms(const struct loop *cl)
{
	struct loop *l = (struct loop *)cl;

	if (l->h2o_now_seen != h2o_now(l->h2o))
		loop_read_clock(l);
	return l->now_ms;
}

static void
loop_drain_h2o(struct loop *l)
{
	h2o_timeout__do_post_callback(l->h2o);
}

/* ---- timers ---- */

static void
heap_put(struct loop *l, uint32_t i, struct loop_timer *t)
{
	l->heap[i] = t;
	t->heap_index = i + 1;
}

static void
heap_up(struct loop *l, uint32_t i, struct loop_timer *t)
{
	while (i > 0 && l->heap[(i - 1) / 2]->due_ms > t->due_ms) {
		heap_put(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(l, i, t);
}

static void
heap_down(struct loop *l, uint32_t i, struct loop_timer *t)
{
	for (uint32_t child; (child = 2 * i + 1) < l->heap_len; i = child) {
		if (child + 1 < l->heap_len && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
			child++;
		if (l->heap[child]->due_ms >= t->due_ms)
			break;
		heap_put(l, i, l->heap[child]);
	}
	heap_put(l, i, t);
}

void
loop_timer_stop(struct loop *l, struct loop_timer *t)
{
	uint32_t i = t->heap_index - 1;
	struct loop_timer *last;

	if (!loop_timer_is_set(t))
		return;
	check(i < l->heap_len && l->heap[i] == t);
	t->heap_index = 0;
	last = l->heap[--l->heap_len];
	if (last == t)
		return;
	if (i > 0 && last->due_ms < l->heap[(i - 1) / 2]->due_ms)
		heap_up(l, i, last);
	else
		heap_down(l, i, last);
}

void
loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ms)
{
	check(t->on_fire != NULL);
	loop_timer_stop(l, t);
	t->due_ms = loop_now_ms(l) + delay_ms;
	t->round = l->round;
	if (l->heap_len == l->heap_cap) {
		l->heap_cap = l->heap_cap > 0 ? 2 * l->heap_cap : 64;
		l->heap = xrealloc(l->heap, l->heap_cap * sizeof(l->heap[0]));
	}
	l->heap_len++;
	heap_up(l, l->heap_len - 1, t);
}

/* One that is set meanwhile waits for the next round, and so do those that are due after it. */
static void
loop_run_timers(struct loop *l)
{
	l->round++;
	while (l->heap_len > 0) {
		struct loop_timer *t = l->heap[0];

		if (t->due_ms > l->now_ms || t->round == l->round)
			break;
		loop_timer_stop(l, t);
		t->on_fire(t);
		loop_drain_h2o(l);
	}
}

/* ---- descriptors ---- */

static uint32_t
loop_slot_take(struct loop *l)
{
	uint32_t i;

	if (l->slot_free == 0) {
		uint32_t count = l->slot_count > 0 ? 2 * l->slot_count : 64;

		l->slots = xrealloc(l->slots, count * sizeof(l->slots[0]));
		for (i = count; i-- > l->slot_count;) {
			l->slots[i] = (struct loop_slot){NULL, 0, l->slot_free};
			l->slot_free = i + 1;
		}
		l->slot_count = count;
	}
	i = l->slot_free - 1;
	l->slot_free = l->slots[i].next_free;
	return i;
}

static void
loop_slot_give(struct loop *l, uint32_t i)
{
	l->slots[i] = (struct loop_slot){NULL, l->slots[i].generation + 1, l->slot_free};
	l->slot_free = i + 1;
}

static struct epoll_event
loop_watch_event(const struct loop *l, const struct loop_watch *w)
{
	uint64_t generation = l->slots[w->index].generation;

	return (struct epoll_event){.events = w->events, .data.u64 = generation << 32 | w->index};
}

void
loop_watch_start(struct loop *l, struct loop_watch *w, int fd, uint32_t events)
{
	struct epoll_event ev;

	check(!w->is_active && w->on_ready != NULL && fd >= 0);
	w->fd = fd;
	w->events = events;
	w->index = loop_slot_take(l);
	w->is_active = true;
	l->slots[w->index].watch = w;
	ev = loop_watch_event(l, w);
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0);
}

void
loop_watch_change(struct loop *l, struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev;

	check(w->is_active);
	if (w->events == events)
		return;
	w->events = events;
	ev = loop_watch_event(l, w);
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) == 0);
}

void
loop_watch_stop(struct loop *l, struct loop_watch *w)
{
	if (!w->is_active)
		return;
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL) == 0);
	loop_watch_forget(l, w);
}

void
loop_watch_forget(struct loop *l, struct loop_watch *w)
{
	if (!w->is_active)
		return;
	check(l->slots[w->index].watch == w);
	loop_slot_give(l, w->index);
	w->is_active = false;
}

/* h2o found the nested epoll readable. It drains its own pending list after us. */
static void
loop_on_epoll(h2o_socket_t *sock, const char *err)
{
	struct loop *l = sock->data;
	struct epoll_event events[LOOP_EVENTS_PER_ROUND];
	int n;

	(void)err;
	n = epoll_wait(l->epoll_fd, events, LOOP_EVENTS_PER_ROUND, 0);
	for (int i = 0; i < n; i++) {
		uint32_t index = (uint32_t)events[i].data.u64;
		struct loop_slot *slot = &l->slots[index];

		if (slot->watch != NULL && slot->generation == events[i].data.u64 >> 32)
			slot->watch->on_ready(slot->watch, events[i].events);
	}
}

/* ---- posts ---- */

static void
loop_on_wake(struct loop_watch *w, uint32_t events)
{
	uint64_t count;

	(void)events;
	/* It only ends the wait; the posts run at the end of the round. */
	while (read(w->fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

void
loop_post(struct loop *l, struct loop_post *p)
{
	uint64_t one = 1;
	bool is_new;

	check(p->run != NULL);
	pthread_mutex_lock(&l->posts_lock);
	is_new = !list_linked(&p->node);
	if (is_new)
		list_add_tail(&l->posts, &p->node);
	pthread_mutex_unlock(&l->posts_lock);
	if (is_new && !pthread_equal(l->thread, pthread_self())) {
		while (write(l->wake.fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	}
}

void
loop_post_cancel(struct loop *l, struct loop_post *p)
{
	pthread_mutex_lock(&l->posts_lock);
	list_del(&p->node);
	pthread_mutex_unlock(&l->posts_lock);
}

static struct loop_post *
loop_take_post(struct loop *l, struct list *batch)
{
	struct loop_post *p;

	pthread_mutex_lock(&l->posts_lock);
	p = list_first(batch, struct loop_post, node);
	if (p != NULL)
		list_del(&p->node);
	pthread_mutex_unlock(&l->posts_lock);
	return p;
}

/* False: there were none. */
static bool
loop_run_posts_once(struct loop *l)
{
	struct list batch = LIST_INIT(batch);
	struct loop_post *p;

	pthread_mutex_lock(&l->posts_lock);
	list_for_safe (node, &l->posts) {
		list_del(node);
		list_add_tail(&batch, node);
	}
	if (list_empty(&batch)) {
		pthread_mutex_unlock(&l->posts_lock);
		return false;
	}
	pthread_mutex_unlock(&l->posts_lock);
	while ((p = loop_take_post(l, &batch)) != NULL) {
		p->run(p);
		loop_drain_h2o(l);
	}
	return true;
}

/*
 * What they post runs at once, too: a request takes several steps by posts, each of which would
 * otherwise wait for a whole round, and rounds are long when there is much to do. But only a few
 * times, or two that post each other would hold us.
 */
static void
loop_run_posts(struct loop *l)
{
	for (int i = 0; i < LOOP_POST_STEPS && loop_run_posts_once(l); i++)
		;
}

/* ---- the round ---- */

static int32_t
loop_wait_ms(struct loop *l)
{
	uint64_t now_ms = clock_mono_ms();
	bool has_posts;

	pthread_mutex_lock(&l->posts_lock);
	has_posts = !list_empty(&l->posts);
	pthread_mutex_unlock(&l->posts_lock);
	if (has_posts)
		return 0;
	if (l->heap_len == 0 || l->heap[0]->due_ms > now_ms + LOOP_WAIT_MAX_MS)
		return LOOP_WAIT_MAX_MS;
	return l->heap[0]->due_ms > now_ms ? (int32_t)(l->heap[0]->due_ms - now_ms) : 0;
}

/* ---- how long ready work waits ---- */

static void
loop_on_probe(struct loop_watch *w, uint32_t events)
{
	struct loop *l = container_of(w, struct loop, probe);

	(void)events;
	l->is_probe_out = false;
}

/* The probe's descriptor is always readable: arming it makes it ready, behind what is ready. */
static void
loop_consider_measuring(struct loop *l)
{
	uint64_t now_us = clock_mono_us();
	struct epoll_event ev;

	if (l->is_measuring || l->admission.target_us == 0 ||
	    now_us - l->measured_us < (l->is_calm ? LOOP_MEASURE_CALM_US : LOOP_MEASURE_US))
		return;
	ev = loop_watch_event(l, &l->probe);
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, l->probe.fd, &ev) == 0);
	l->is_measuring = l->is_probe_out = true;
	l->measured_us = now_us;
	l->measured_core_us = clock_core_us();
}

static void
loop_end_measuring(struct loop *l)
{
	struct admission *a = &l->admission;
	bool was_limited = admission_is_limited(a);
	uint64_t now_us = clock_mono_us();

	if (!l->is_measuring || l->is_probe_out)
		return;
	l->is_measuring = false;
	if (now_us - l->measured_us > a->target_us) {
		l->has_waited_long = true;
		l->is_calm = false;
	}
	if (!admission_waited(
		a, now_us - l->measured_us, clock_core_us() - l->measured_core_us, now_us))
		return;
	l->is_calm = !l->has_waited_long;
	l->has_waited_long = false;
	metric_gauge_set(METRIC_LOOP_DELAY, 0, 0, (int64_t)a->delay_us);
	metric_gauge_set(METRIC_WORK_MAX, 0, 0, admission_is_limited(a) ? a->limit : 0);
	if (was_limited != admission_is_limited(a))
		log_info("overload %s delay_us=%llu live=%u", was_limited ? "is over" : "begins",
		    (unsigned long long)a->delay_us, a->live);
}

void
loop_run(struct loop *l)
{
	l->is_stopping = false;
	loop_drain_h2o(l); /* what was sent before the loop ran */
	while (!l->is_stopping) {
		loop_consider_measuring(l);
		/* -1: a signal ended the wait */
		h2o_evloop_run(l->h2o, l->is_measuring ? 0 : loop_wait_ms(l));
		loop_read_clock(l);
		loop_run_timers(l);
		loop_run_posts(l);
		loop_end_measuring(l);
	}
}

void
loop_stop(struct loop *l)
{
	l->is_stopping = true;
}

struct loop *
loop_new(void)
{
	struct loop *l = xcalloc(1, sizeof(*l));

	l->thread = pthread_self();
	check(pthread_mutex_init(&l->posts_lock, NULL) == 0);
	list_init(&l->posts);
	l->h2o = h2o_evloop_create();
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	check(l->epoll_fd >= 0);
	l->epoll_socket = h2o_evloop_socket_create(l->h2o, l->epoll_fd, H2O_SOCKET_FLAG_DONT_READ);
	l->epoll_socket->data = l;
	h2o_socket_read_start(l->epoll_socket, loop_on_epoll);
	loop_read_clock(l);
	admission_init(&l->admission, 0, 1);

	l->wake.on_ready = loop_on_wake;
	l->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	check(l->wake.fd >= 0);
	loop_watch_start(l, &l->wake, l->wake.fd, EPOLLIN);
	l->probe.on_ready = loop_on_probe;
	l->probe.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	check(l->probe.fd >= 0);
	loop_watch_start(l, &l->probe, l->probe.fd, EPOLLIN | EPOLLONESHOT);
	return l;
}

/* h2o's own epoll descriptor is private to it and stays open: a worker has one loop, and ends. */
void
loop_free(struct loop **lp)
{
	struct loop *l = *lp;

	if (l == NULL)
		return;
	*lp = NULL;
	loop_watch_stop(l, &l->wake);
	close(l->wake.fd);
	loop_watch_stop(l, &l->probe);
	close(l->probe.fd);
	h2o_socket_close(l->epoll_socket); /* closes epoll_fd */
	loop_drain_h2o(l);
	h2o_evloop_destroy(l->h2o);
	pthread_mutex_destroy(&l->posts_lock);
	free(l->slots);
	free(l->heap);
	free(l);
}
