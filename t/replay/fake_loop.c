/* fake_loop - rounds of posts, descriptors and timers under a virtual clock. */
#include "t/replay/fake_loop.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"

enum { TIMERS_MAX = 65536, WATCHES_MAX = 4096, EVENTS = 64, LOOPS_MAX = 16 };

struct loop {
	int epoll_fd, wake_fd;
	pthread_mutex_t mutex; /* posts */
	struct list posts;
	struct loop_timer **timers; /* in the order in which they were set */
	uint32_t timer_count;
	struct {
		struct loop_watch *watch; /* NULL: free */
		uint32_t generation;
	} watches[WATCHES_MAX];
	unsigned watch_count;
	bool is_stopped;
	struct admission admission;
};

static struct loop *loops[LOOPS_MAX];
static uint64_t now_ms = 1000000;

struct loop *
loop_new(void)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
	unsigned i = 0;

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	check(l->epoll_fd >= 0 && l->wake_fd >= 0);
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) == 0);
	pthread_mutex_init(&l->mutex, NULL);
	list_init(&l->posts);
	admission_init(&l->admission, 0, 1);
	l->timers = xcalloc(TIMERS_MAX, sizeof(*l->timers));
	while (i < LOOPS_MAX && loops[i] != NULL)
		i++;
	check(i < LOOPS_MAX);
	loops[i] = l;
	return l;
}

void
loop_free(struct loop **at)
{
	struct loop *l = *at;

	if (l == NULL)
		return;
	for (unsigned i = 0; i < LOOPS_MAX; i++) {
		if (loops[i] == l)
			loops[i] = NULL;
	}
	close(l->epoll_fd);
	close(l->wake_fd);
	pthread_mutex_destroy(&l->mutex);
	free(l->timers);
	free(l);
	*at = NULL;
}

/* Everything is admitted. */
struct admission *
loop_admission(struct loop *l)
{
	return &l->admission;
}

uint64_t
loop_now_ms(const struct loop *l)
{
	(void)l;
	return now_ms;
}

void
loop_timer_stop(struct loop *l, struct loop_timer *t)
{
	if (t->heap_index == 0)
		return;
	for (uint32_t i = t->heap_index; i < l->timer_count; i++) {
		l->timers[i - 1] = l->timers[i];
		l->timers[i - 1]->heap_index = i;
	}
	l->timer_count--;
	t->heap_index = 0;
}

void
loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t delay_ms)
{
	loop_timer_stop(l, t);
	check(l->timer_count < TIMERS_MAX && t->on_fire != NULL);
	t->due_ms = now_ms + delay_ms;
	l->timers[l->timer_count++] = t;
	t->heap_index = l->timer_count;
}

void
loop_watch_start(struct loop *l, struct loop_watch *w, int fd, uint32_t events)
{
	uint32_t i = 0;

	check(!w->is_active && w->on_ready != NULL);
	while (i < WATCHES_MAX && l->watches[i].watch != NULL)
		i++;
	check(i < WATCHES_MAX);
	l->watches[i].watch = w;
	l->watches[i].generation++;
	l->watch_count++;
	w->fd = fd;
	w->events = events;
	w->is_active = true;
	w->index = i;
	struct epoll_event ev = {
	    .events = events, .data.u64 = (uint64_t)l->watches[i].generation << 32 | i};
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0);
}

void
loop_watch_change(struct loop *l, struct loop_watch *w, uint32_t events)
{
	check(w->is_active);
	struct epoll_event ev = {.events = events,
	    .data.u64 = (uint64_t)l->watches[w->index].generation << 32 | w->index};
	w->events = events;
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) == 0);
}

void
loop_watch_stop(struct loop *l, struct loop_watch *w)
{
	if (!w->is_active)
		return;
	check(epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL) == 0);
	l->watches[w->index].watch = NULL;
	l->watch_count--;
	w->is_active = false;
}

void
loop_post(struct loop *l, struct loop_post *p)
{
	uint64_t one = 1;

	pthread_mutex_lock(&l->mutex);
	if (!list_linked(&p->node)) {
		list_add_tail(&l->posts, &p->node);
		check(write(l->wake_fd, &one, sizeof(one)) == sizeof(one));
	}
	pthread_mutex_unlock(&l->mutex);
}

void
loop_post_cancel(struct loop *l, struct loop_post *p)
{
	pthread_mutex_lock(&l->mutex);
	list_del(&p->node);
	pthread_mutex_unlock(&l->mutex);
}

static struct loop_post *
take_post(struct loop *l)
{
	pthread_mutex_lock(&l->mutex);
	struct loop_post *p = list_first(&l->posts, struct loop_post, node);
	if (p != NULL)
		list_del(&p->node);
	pthread_mutex_unlock(&l->mutex);
	return p;
}

static bool
run_watches(struct loop *l)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(l->epoll_fd, events, EVENTS, 0);
	bool did = false;
	uint64_t count;

	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == UINT64_MAX) {
			check(read(l->wake_fd, &count, sizeof(count)) > 0);
			continue;
		}
		uint32_t at = (uint32_t)events[i].data.u64;
		struct loop_watch *w = l->watches[at].watch;

		if (w == NULL || l->watches[at].generation != events[i].data.u64 >> 32)
			continue;
		w->on_ready(w, events[i].events);
		did = true;
	}
	return did;
}

static bool
run_timers(struct loop *l)
{
	bool did = false;

	for (;;) {
		struct loop_timer *first = NULL;

		for (uint32_t i = 0; i < l->timer_count; i++) {
			if (first == NULL || l->timers[i]->due_ms < first->due_ms)
				first = l->timers[i];
		}
		if (first == NULL || first->due_ms > now_ms)
			return did;
		loop_timer_stop(l, first);
		first->on_fire(first);
		did = true;
	}
}

/* One round of one loop; false: there was nothing to do. */
static bool
run_round(struct loop *l)
{
	struct loop_post *p;
	bool did = run_watches(l);

	for (int i = 0; i < 1000 && (p = take_post(l)) != NULL; i++) {
		p->run(p);
		did = true;
	}
	return run_timers(l) || did;
}

static bool
run_all(void)
{
	bool did = false;

	for (unsigned i = 0; i < LOOPS_MAX; i++) {
		if (loops[i] != NULL)
			did = run_round(loops[i]) || did;
	}
	return did;
}

void
fake_loop_settle(void)
{
	unsigned rounds = 0;

	while (run_all())
		check(++rounds < 1000000);
}

/* When the next timer is due, at most `until`. */
static uint64_t
next_due_ms(uint64_t until_ms)
{
	for (unsigned i = 0; i < LOOPS_MAX; i++) {
		for (uint32_t t = 0; loops[i] != NULL && t < loops[i]->timer_count; t++) {
			if (loops[i]->timers[t]->due_ms < until_ms)
				until_ms = loops[i]->timers[t]->due_ms;
		}
	}
	return until_ms;
}

void
fake_loop_advance(uint64_t ms)
{
	uint64_t until_ms = now_ms + ms;

	fake_loop_settle();
	while (now_ms < until_ms) {
		now_ms = next_due_ms(until_ms);
		fake_loop_settle();
	}
}

/* Waits up to a tenth of a second of the real clock for a descriptor or a post. */
static void
wait_for_any(void)
{
	struct pollfd fds[LOOPS_MAX];
	nfds_t n = 0;

	for (unsigned i = 0; i < LOOPS_MAX; i++) {
		if (loops[i] != NULL)
			fds[n++] = (struct pollfd){.fd = loops[i]->epoll_fd, .events = POLLIN};
	}
	poll(fds, n, 100);
}

bool
fake_loop_run_until(bool (*is_true)(void *arg), void *arg)
{
	uint64_t until_ms = clock_mono_ms() + 10000;

	while (!is_true(arg)) {
		if (clock_mono_ms() > until_ms)
			return false;
		if (!run_all())
			wait_for_any();
	}
	return true;
}

void
loop_run(struct loop *l)
{
	l->is_stopped = false;
	while (!l->is_stopped) {
		if (run_all())
			continue;
		uint64_t due_ms = next_due_ms(UINT64_MAX);
		if (due_ms != UINT64_MAX)
			now_ms = due_ms;
		else
			wait_for_any();
	}
}

void
loop_stop(struct loop *l)
{
	l->is_stopped = true;
}

unsigned
fake_loop_timers(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LOOPS_MAX; i++)
		n += loops[i] != NULL ? loops[i]->timer_count : 0;
	return n;
}

unsigned
fake_loop_watches(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LOOPS_MAX; i++)
		n += loops[i] != NULL ? loops[i]->watch_count : 0;
	return n;
}
