/*
 * lost - turns whose owner has died.
 *
 * Listeners here that followed the dead one look for the record (listener.c), again when the
 * master has taken its row: before that its turns may be alive. One
 * living worker, the one in the lowest row, declares all its turns lost, settles that
 * in shared memory and tells other hosts, who cannot know; should it die over that,
 * the next one does, a successor too. Whoever meets such a turn before, a new turn of
 * the session, a listener, a question, declares it lost alone. Turns of another host
 * whose lease is over are declared lost by the store's elected; here listeners hear
 * of it. Where nobody shares the record, the first worker of a host's life does that
 * for the turns of its former lives.
 *
 * A turn of our own may be live in the record without our knowing: the answer to its
 * begin did not come, or too late. Every other worker would believe that we run it, so
 * it is declared lost too, until the record has heard.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/turn/turn_impl.h"

enum {
	LOOK_MS = 50,          /* until the master has taken the dead one's row */
	LOOK_FAST_MS = 5000,   /* so long; then perhaps only the connection broke, and it lives */
	LOOK_SLOW_MS = 1000,   /* after that */
	WRITE_AGAIN_MS = 1000, /* the dead one may have been the writer */
	WRITE_TRIES_WARN = 30,
	UNSURE_MAX = 4096, /* more are lost when this worker meets them again */
};

struct lost_owner {
	struct list node;
	struct turns *turns;
	struct shm_who who;
	uint64_t since_ms, next_ms;
	unsigned tries;
	bool is_writing, is_reaped;
};

struct unsure_turn {
	struct list node;
	struct turns *turns;
	struct id id;
	uint64_t next_ms;
	bool is_writing;
};

static void
lost_free(struct lost_owner *o)
{
	list_del(&o->node);
	free(o);
}

static void
on_lost_all(void *arg, int err, uint64_t count)
{
	struct lost_owner *o = arg;

	o->is_writing = false;
	if (err != 0) {
		if (++o->tries == WRITE_TRIES_WARN)
			log_warn("turns of a dead worker not recorded yet row=%u number=%u err=%s",
			    o->who.row, o->who.number, err_info(err)->name);
		o->next_ms = loop_now_ms(o->turns->loop) + WRITE_AGAIN_MS;
		return;
	}
	if (count > 0)
		log_info("turns lost row=%u number=%u count=%llu", o->who.row, o->who.number,
		    (unsigned long long)count);
	if (count > 0 && o->turns->hooks.on_written != NULL)
		o->turns->hooks.on_written(o->turns->hooks.arg);
	shm_settle(o->turns->shm, o->who);
	backplane_say_gone(o->turns->backplane, o->who);
	lost_free(o);
}

/* Who is the first may change, and the first may die over it: each of the others waits until it is
 * settled. */
static void
look_at(struct lost_owner *o, uint64_t now)
{
	struct turns *ts = o->turns;
	char owner[OWNER_MAX];

	if (!o->is_reaped && !shm_is_alive(ts->shm, o->who)) {
		o->is_reaped = true;
		listener_owner_reaped(ts, o->who);
	}
	if (o->is_writing || now < o->next_ms)
		return;
	o->next_ms = now - o->since_ms < LOOK_FAST_MS ? now : now + LOOK_SLOW_MS;
	if (shm_is_alive(ts->shm, o->who))
		return;
	if (!shm_is_left(ts->shm, o->who)) {
		lost_free(o);
		return;
	}
	if (!shm_is_first(ts->shm, ts->self.who))
		return;
	o->is_writing = true;
	owner_format((struct backplane_addr){ts->self.host, o->who}, owner);
	store_turn_lose_all(ts->store, owner, clock_wall_ms(), on_lost_all, o);
}

/* ---- turns of our own that may have begun ---- */

static void
unsure_free(struct unsure_turn *u)
{
	u->turns->unsure_count--;
	list_del(&u->node);
	free(u);
}

static void
on_unsure_lost(void *arg, int err)
{
	struct unsure_turn *u = arg;

	u->is_writing = false;
	u->next_ms = loop_now_ms(u->turns->loop) + WRITE_AGAIN_MS;
	if (err == E_STORE_UNAVAILABLE)
		return;
	if (err == 0)
		log_info("turn lost turn=%s reason=\"its begin was not answered\"", u->id.s);
	unsure_free(u);
}

static void
lose_unsure(struct unsure_turn *u, uint64_t now)
{
	struct turns *ts = u->turns;

	if (u->is_writing || now < u->next_ms)
		return;
	u->is_writing = true;
	store_turn_lose(ts->store, u->id.s, ts->owner, clock_wall_ms(), on_unsure_lost, u);
}

void
lost_maybe_begun(struct turns *ts, const struct id *turn_id)
{
	struct unsure_turn *u;

	if (ts->unsure_count >= UNSURE_MAX)
		return;
	u = xcalloc(1, sizeof(*u));
	u->turns = ts;
	u->id = *turn_id;
	ts->unsure_count++;
	list_add_tail(&ts->unsure, &u->node);
	if (!loop_timer_is_set(&ts->lost_timer))
		loop_timer_set(ts->loop, &ts->lost_timer, 0);
}

/* ---- all of them ---- */

static void
on_lost_timer(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, lost_timer);
	uint64_t now = loop_now_ms(ts->loop);

	list_for_safe (node, &ts->lost)
		look_at(list_entry(node, struct lost_owner, node), now);
	list_for_safe (node, &ts->unsure)
		lose_unsure(list_entry(node, struct unsure_turn, node), now);
	if (!list_empty(&ts->lost) || !list_empty(&ts->unsure))
		loop_timer_set(ts->loop, timer, LOOK_MS);
}

static void
lost_add(struct turns *ts, struct shm_who who)
{
	struct lost_owner *o = xcalloc(1, sizeof(*o));

	o->turns = ts;
	o->who = who;
	o->since_ms = loop_now_ms(ts->loop);
	list_add_tail(&ts->lost, &o->node);
	if (!loop_timer_is_set(&ts->lost_timer))
		loop_timer_set(ts->loop, &ts->lost_timer, 0);
}

static void
on_peer_gone(void *arg, struct backplane_addr peer)
{
	struct turns *ts = arg;

	if (peer.host == ts->self.host)
		lost_add(ts, peer.who);
	follow_peer_gone(ts, peer);
	listener_peer_gone(ts, peer);
}

static void
on_former_lost(void *arg, int err, uint64_t count)
{
	(void)arg;
	/* Without it they are found when somebody meets them. */
	if (err != 0)
		log_info("turns of a former life not looked for err=%s", err_info(err)->name);
	else if (count > 0)
		log_info("turns of a former life lost count=%llu", (unsigned long long)count);
}

static void
on_host_over(void *arg, uint64_t host)
{
	struct turns *ts = arg;

	if (host != ts->self.host)
		listener_host_over(ts, host);
}

/*
 * The host's number is made anew with its shared memory. In SQLite's record there are no other
 * hosts, so every other number is that of a former life; elsewhere nothing of the kind is known
 * at start.
 */
static void
lose_former_lives(struct turns *ts)
{
	char prefix[OWNER_MAX];

	if (ts->self.who.number != 1 || !store_is_host_over(ts->store, 0))
		return;
	owner_format_host(ts->self, prefix);
	store_turn_lose_former(ts->store, prefix, clock_wall_ms(), on_former_lost, NULL);
}

void
lost_init(struct turns *ts)
{
	list_init(&ts->lost);
	list_init(&ts->unsure);
	ts->lost_timer.on_fire = on_lost_timer;
	backplane_on_peer_gone(ts->backplane, on_peer_gone, ts);
	store_on_host_over(ts->store, on_host_over, ts);
	lose_former_lives(ts);
}

void
lost_fini(struct turns *ts)
{
	loop_timer_stop(ts->loop, &ts->lost_timer);
	list_for_safe (node, &ts->lost)
		free(list_entry(node, struct lost_owner, node));
	list_for_safe (node, &ts->unsure)
		free(list_entry(node, struct unsure_turn, node));
}
