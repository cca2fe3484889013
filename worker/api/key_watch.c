/* key_watch - see key_watch.h. */
#include "worker/api/key_watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"

enum {
	AGAIN_MS = 1000,                 /* when the record could not be asked */
	RECHECKS_MAX = 64,               /* under way */
	RECHECK_BATCH = 256,             /* in one round, of those that are answered at once */
	EXPIRY_LOOK_MS = 60 * 60 * 1000, /* the wall clock may be set meanwhile */
};

struct key_watch {
	struct loop *loop;
	struct keys *keys;
	struct wheel *wheel;
	struct list holds, stale; /* struct key_hold by node, by stale */
	struct list rechecks;
	size_t recheck_count;
	struct loop_timer timer;
};

/* A question about a key; who asked may be gone when it is answered. */
struct key_recheck {
	struct list node;
	struct key_watch *watch;
	struct key_hold *hold; /* NULL: gone */
};

static void
go_on(struct key_watch *w, uint64_t delay_ms)
{
	if (!list_empty(&w->stale) && !loop_timer_is_set(&w->timer))
		loop_timer_set(w->loop, &w->timer, delay_ms);
}

static void
recheck_free(struct key_recheck *r)
{
	r->watch->recheck_count--;
	list_del(&r->node);
	free(r);
}

static void
on_rechecked(void *arg, int err, const struct principal *who)
{
	struct key_recheck *r = arg;
	struct key_watch *w = r->watch;
	struct key_hold *h = r->hold;

	(void)who;
	recheck_free(r);
	if (h != NULL) {
		h->recheck = NULL;
		if (err != 0 && err != E_UNAUTHORIZED && !list_linked(&h->stale))
			list_add_tail(&w->stale, &h->stale);
	}
	go_on(w, err != 0 && err != E_UNAUTHORIZED ? AGAIN_MS : 0);
	if (h != NULL && err == E_UNAUTHORIZED)
		h->on_void(h);
}

static void
recheck(struct key_watch *w, struct key_hold *h)
{
	struct key_recheck *r = xcalloc(1, sizeof(*r));

	r->watch = w;
	r->hold = h;
	h->recheck = r;
	list_add_tail(&w->rechecks, &r->node);
	w->recheck_count++;
	keys_check_hash(w->keys, h->hash, on_rechecked, r);
}

static void
on_timer(struct loop_timer *timer)
{
	struct key_watch *w = container_of(timer, struct key_watch, timer);
	struct key_hold *h;

	for (int i = 0; i < RECHECK_BATCH && w->recheck_count < RECHECKS_MAX &&
			(h = list_first(&w->stale, struct key_hold, stale)) != NULL;
	     i++) {
		list_del(&h->stale);
		/* What is under way may have been read before the change. */
		if (h->recheck != NULL)
			h->recheck->hold = NULL;
		recheck(w, h);
	}
	if (w->recheck_count < RECHECKS_MAX)
		go_on(w, 0);
}

static void
on_keys_changed(void *arg)
{
	struct key_watch *w = arg;

	list_for (node, &w->holds) {
		struct key_hold *h = list_entry(node, struct key_hold, node);

		if (!list_linked(&h->stale))
			list_add_tail(&w->stale, &h->stale);
	}
	go_on(w, 0);
}

static void
await_expiry(struct key_hold *h)
{
	int64_t left_ms = h->expires_at - clock_wall_ms();

	if (left_ms < 0)
		left_ms = 0;
	wheel_set(h->watch->wheel, &h->expiry,
	    left_ms < EXPIRY_LOOK_MS ? (uint64_t)left_ms : EXPIRY_LOOK_MS);
}

static void
on_expiry(struct wheel_entry *e)
{
	struct key_hold *h = container_of(e, struct key_hold, expiry);

	if (h->expires_at > clock_wall_ms())
		await_expiry(h);
	else
		h->on_void(h);
}

void
key_hold(struct key_watch *w, struct key_hold *h, const uint8_t hash[32], int64_t expires_at,
    void (*on_void)(struct key_hold *))
{
	memset(h, 0, sizeof(*h));
	h->watch = w;
	h->on_void = on_void;
	h->expires_at = expires_at;
	h->expiry.on_fire = on_expiry;
	memcpy(h->hash, hash, sizeof(h->hash));
	list_add_tail(&w->holds, &h->node);
	if (expires_at != 0)
		await_expiry(h);
}

void
key_release(struct key_hold *h)
{
	list_del(&h->node);
	if (list_linked(&h->stale))
		list_del(&h->stale);
	if (h->recheck != NULL)
		h->recheck->hold = NULL;
	if (h->expires_at != 0)
		wheel_stop(h->watch->wheel, &h->expiry);
}

struct key_watch *
key_watch_new(struct loop *loop, struct keys *keys, struct wheel *wheel)
{
	struct key_watch *w = xcalloc(1, sizeof(*w));

	w->loop = loop;
	w->keys = keys;
	w->wheel = wheel;
	list_init(&w->holds);
	list_init(&w->stale);
	list_init(&w->rechecks);
	w->timer.on_fire = on_timer;
	keys_on_change(keys, on_keys_changed, w);
	return w;
}

/* The keys, which are freed later, drop what waits for them without a word. */
void
key_watch_free(struct key_watch **ref)
{
	struct key_watch *w = *ref;

	if (w == NULL)
		return;
	*ref = NULL;
	check(list_empty(&w->holds));
	loop_timer_stop(w->loop, &w->timer);
	list_for_safe (node, &w->rechecks)
		recheck_free(list_entry(node, struct key_recheck, node));
	free(w);
}
