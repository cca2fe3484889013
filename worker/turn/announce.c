/*
 * announce - tells this worker, and the others of the host, that a turn has begun:
 * who follows a session attaches to its next turn wherever that runs.
 *
 * One that could not take it is told again, until it has or is gone, or the turn is
 * forgotten here: also when the turn has ended meanwhile, for its events are kept.
 * So each hears of a turn once. What is told to whom waits in the turns themselves.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/events/events.h"
#include "worker/turn/turn_impl.h"

enum { AGAIN_MS = 100 }; /* a queue of 64 MiB that was full needs some time */

static void
tell_here(
    struct turns *ts, const struct id *session_id, const struct id *turn_id, uint64_t originator)
{
	if (ts->on_turn_begun != NULL)
		ts->on_turn_begun(ts->on_turn_begun_arg, session_id, turn_id, originator);
}

static void
put_announcement(struct buf *message, const struct turn *t)
{
	backplane_put_str(message, id_str(&t->session_id));
	backplane_put_str(message, id_str(&t->id));
}

/* ---- those that could not take it ---- */

static void
on_missed(void *arg, struct backplane_addr peer)
{
	struct turn *t = arg;
	struct turns *ts = t->turns;

	t->unheard = xrealloc(t->unheard, (t->unheard_count + 1) * sizeof(t->unheard[0]));
	t->unheard[t->unheard_count++] = peer;
	if (!list_linked(&t->unheard_node))
		list_add_tail(&ts->unheard, &t->unheard_node);
	if (!loop_timer_is_set(&ts->unheard_timer))
		loop_timer_set(ts->loop, &ts->unheard_timer, AGAIN_MS);
}

void
announce_forget(struct turn *t)
{
	if (list_linked(&t->unheard_node))
		list_del(&t->unheard_node);
	free(t->unheard);
	t->unheard = NULL;
	t->unheard_count = 0;
}

static void
tell_again(struct turn *t)
{
	struct backplane *backplane = t->turns->backplane;
	struct buf message = BUF_INIT;
	uint32_t left = 0;

	put_announcement(&message, t);
	for (uint32_t i = 0; i < t->unheard_count; i++) {
		struct backplane_addr peer = t->unheard[i];

		if (backplane_cast(backplane, peer, BACKPLANE_SESSION_TURN, buf_str(&message)) ==
		    E_BUSY)
			t->unheard[left++] = peer;
	}
	t->unheard_count = left;
	buf_fini(&message);
	if (left == 0)
		announce_forget(t);
}

static void
on_again(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, unheard_timer);

	list_for_safe (node, &ts->unheard)
		tell_again(list_entry(node, struct turn, unheard_node));
	if (!list_empty(&ts->unheard))
		loop_timer_set(ts->loop, timer, AGAIN_MS);
}

/* ---- to who hears events of its session ---- */

void
turn_tell_events(const struct turn *t, const char *name)
{
	char topic[sizeof("session:") + ID_MAX];
	struct buf payload = BUF_INIT;

	if (t->turns->events == NULL || t->app_id == NULL)
		return;
	snprintf(topic, sizeof(topic), "session:%s", t->session_id.s);
	buf_printf(&payload, "{\"session_id\":\"%s\",\"turn_id\":\"%s\"", t->session_id.s, t->id.s);
	if (turn_has_ended(t) && t->err != 0)
		buf_printf(&payload, ",\"code\":\"%s\"", err_info(t->err)->code);
	buf_add_char(&payload, '}');
	const struct events_news news = {
	    .topic = topic, .app_id = t->app_id, .name = name, .payload = buf_str(&payload)};
	events_publish(t->turns->events, &news);
	buf_fini(&payload);
}

/* ---- out and in ---- */

void
turn_announce(struct turn *t)
{
	struct turns *ts = t->turns;
	struct buf message = BUF_INIT;

	put_announcement(&message, t);
	backplane_broadcast(ts->backplane, BACKPLANE_SESSION_TURN, buf_str(&message), on_missed, t);
	buf_fini(&message);
	tell_here(ts, &t->session_id, &t->id, t->originator);
	turn_tell_events(t, "turn.started");
}

static void
on_session_turn(void *arg, const struct backplane_call *call)
{
	struct turns *ts = arg;
	struct str rest = call->payload, session, turn;
	struct id session_id, turn_id;

	if (!backplane_take_str(&rest, &session) || !backplane_take_str(&rest, &turn) ||
	    !id_parse(session, "sess", &session_id) || !id_parse(turn, "turn", &turn_id)) {
		log_error("announcement of a turn malformed");
		return;
	}
	tell_here(ts, &session_id, &turn_id, 0);
}

void
turns_on_begun(struct turns *ts, turns_on_turn_begun *on_begun, void *arg)
{
	check(ts->on_turn_begun == NULL);
	ts->on_turn_begun = on_begun;
	ts->on_turn_begun_arg = arg;
}

void
announce_init(struct turns *ts)
{
	list_init(&ts->unheard);
	ts->unheard_timer.on_fire = on_again;
	backplane_serve(ts->backplane, BACKPLANE_SESSION_TURN, on_session_turn, ts);
}

void
announce_fini(struct turns *ts)
{
	check(list_empty(&ts->unheard));
	loop_timer_stop(ts->loop, &ts->unheard_timer);
}
