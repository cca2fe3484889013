/*
 * follow - the owner's side of a turn's listeners: who follows, how far each has
 * come, and whether the user is still there.
 *
 * Delivery runs from the loop, never from inside what made the event. A follower
 * gets the events after the last it was sent; one snapshot when the feed does not
 * hold them any more. One in another worker gets batches over the backplane, and
 * every second the number of the last event: so it notices what was lost.
 */
#include <stdlib.h>

#include "common/log.h"
#include "worker/turn/turn_impl.h"

enum { BATCH_BYTES = 128 << 10, BATCH_EVENTS = 256 };

static struct turns *
turns_of(const struct follower *f)
{
	return f->turn->turns;
}

/* ---- who follows ---- */

bool
follow_has_originator(const struct turn *t)
{
	list_for (node, &t->followers) {
		const struct follower *f = list_entry(node, struct follower, node);

		if (!f->is_gone && f->originator != 0 && f->originator == t->originator)
			return true;
	}
	return false;
}

static size_t *
count_of(struct turn *t, bool is_waiter)
{
	return is_waiter ? &t->waiter_count : &t->listener_count;
}

/* Not found any more, nor counted; it stays in the list of its turn. */
static void
forget(struct follower *f)
{
	check(!f->is_gone);
	f->is_gone = true;
	--*count_of(f->turn, f->is_waiter);
	follower_index_del(&turns_of(f)->followers, f);
	if (list_linked(&f->far_node))
		list_del(&f->far_node);
}

/* It stays in the list, marked, until no delivery walks over it. */
static void
retire(struct follower *f)
{
	forget(f);
	follow_flush_soon(f->turn);
}

static void
reap_gone(struct turn *t)
{
	list_for_safe (node, &t->followers) {
		struct follower *f = list_entry(node, struct follower, node);

		if (!f->is_gone)
			continue;
		list_del(node);
		free(f);
	}
}

/* ---- the disconnect policy ---- */

static void
on_user_gone(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, gone_timer);

	log_info("turn cancelled reason=disconnect turn=%s", t->id.s);
	turn_stop(t);
}

void
follow_consider_user_gone(struct turn *t)
{
	if (!t->is_cancelled_on_disconnect || !turn_is_live(t) || t->is_away_slow ||
	    t->listener_count > 0)
		return;
	t->gone_timer.on_fire = on_user_gone;
	loop_timer_set(t->turns->loop, &t->gone_timer, t->turns->conf->turns.disconnect_grace_ms);
}

static void
detached(struct follower *f, bool is_disconnect)
{
	struct turn *t = f->turn;
	bool is_user = !f->is_waiter;

	retire(f);
	if (!is_user)
		return;
	if (is_disconnect)
		follow_consider_user_gone(t);
	else
		t->is_away_slow = true;
}

/* ---- delivery ---- */

static void
format_live_snapshot(struct turn *t, struct buf *out)
{
	if (t->calls_json != NULL) {
		feed_format_snapshot(
		    out, t->feed.head - 1, feed_told_text(&t->feed), str_of(t->calls_json));
		return;
	}
	json_t *calls = turn_format_calls(t);
	char *text = json_dumps(calls, JSON_COMPACT);

	check(text != NULL);
	feed_format_snapshot(out, t->feed.head, feed_told_text(&t->feed), str_of(text));
	free(text);
	json_decref(calls);
}

/*
 * The next event for a follower; false: none. A snapshot stands for all that it has not been sent,
 * but not for the last event of a turn. Its text is in *snapshot.
 */
static bool
next_event(struct follower *f, struct buf *snapshot, struct turn_event *ret)
{
	struct turn *t = f->turn;

	if (f->sent_seq >= t->feed.head)
		return false;
	if (feed_get(&t->feed, f->sent_seq + 1, ret))
		return true;
	buf_clear(snapshot);
	format_live_snapshot(t, snapshot);
	uint64_t seq = turn_has_ended(t) ? t->feed.head - 1 : t->feed.head;
	*ret = (struct turn_event){TURN_SNAPSHOT, seq, buf_str(snapshot)};
	return true;
}

static void
deliver_here(struct follower *f)
{
	struct turns *ts = turns_of(f);
	struct buf snapshot = BUF_INIT;
	struct turn_event event;

	while (!f->is_gone && !f->is_waiter && next_event(f, &snapshot, &event)) {
		f->sent_seq = event.seq;
		if (!listener_take(ts, f->listener, &event) && !f->is_gone)
			detached(f, false);
	}
	buf_fini(&snapshot);
	if (!f->is_gone && turn_has_ended(f->turn)) {
		retire(f);
		listener_end(ts, f->listener, 0, f->rank);
	}
}

static void
put_head(struct follower *f, struct buf *out, bool is_end)
{
	backplane_put_u64(out, f->listener);
	backplane_put_u64(out, f->attach_no);
	backplane_put_u64(out, f->turn->feed.head);
	backplane_put_u64(out, is_end ? 1 : 0);
	backplane_put_u64(out, f->rank);
}

static bool
cast_to(struct follower *f, struct buf *message)
{
	struct turns *ts = turns_of(f);
	int err = backplane_cast(ts->backplane, f->addr, BACKPLANE_TURN_EVENTS, buf_str(message));

	if (err == E_GONE)
		detached(f, true);
	return err == 0;
}

/* One message with as many events as fit. False: it did not go out, sent_seq stays. */
static bool
send_batch(struct follower *f)
{
	struct buf message = BUF_INIT, events = BUF_INIT, snapshot = BUF_INIT;
	uint64_t before = f->sent_seq, count = 0;
	struct turn_event event;

	while (count < BATCH_EVENTS && events.len < BATCH_BYTES && !f->is_waiter &&
	       next_event(f, &snapshot, &event)) {
		backplane_put_u64(&events, event.type);
		backplane_put_u64(&events, event.seq);
		backplane_put_str(&events, event.data);
		f->sent_seq = event.seq;
		count++;
	}
	bool is_end =
	    turn_has_ended(f->turn) && (f->is_waiter || f->sent_seq >= f->turn->feed.head);
	put_head(f, &message, is_end);
	backplane_put_u64(&message, count);
	buf_add_str(&message, buf_str(&events));
	bool is_sent = cast_to(f, &message);
	if (is_sent)
		f->is_end_sent = is_end;
	else
		f->sent_seq = before; /* the queue is full: again with the next repetition */
	buf_fini(&message);
	buf_fini(&events);
	buf_fini(&snapshot);
	return is_sent;
}

static bool
has_news(const struct follower *f)
{
	if (f->is_gone)
		return false;
	if (turn_has_ended(f->turn) && !f->is_end_sent)
		return true;
	return !f->is_waiter && f->sent_seq < f->turn->feed.head;
}

static void
deliver_far(struct follower *f)
{
	while (has_news(f) && send_batch(f))
		;
}

/* Those that wait for the end, in the order in which they came. */
static void
rank_waiters(struct turn *t)
{
	list_for (a, &t->followers) {
		struct follower *f = list_entry(a, struct follower, node);

		f->rank = 0;
		if (!f->is_waiter)
			continue;
		list_for (b, &t->followers) {
			const struct follower *other = list_entry(b, struct follower, node);

			f->rank += other->is_waiter && !other->is_gone && other->ticket < f->ticket;
		}
	}
}

/* What a callback detaches is marked, what it attaches stands at the end and is reached too. */
static void
run_flush(struct loop_post *post)
{
	struct turn *t = container_of(post, struct turn, flush);

	feed_settle(&t->feed);
	if (turn_has_ended(t))
		rank_waiters(t);
	list_for (node, &t->followers) {
		struct follower *f = list_entry(node, struct follower, node);

		if (f->is_gone)
			continue;
		if (f->is_far)
			deliver_far(f);
		else
			deliver_here(f);
	}
	reap_gone(t);
	ask_answer_due(t);
}

void
follow_flush_soon(struct turn *t)
{
	t->flush.run = run_flush;
	loop_post(t->turns->loop, &t->flush);
}

static void
on_head_timer(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, head_timer);

	list_for_safe (node, &ts->far_followers) {
		struct follower *f = list_entry(node, struct follower, far_node);

		feed_settle(&f->turn->feed);
		if (has_news(f))
			deliver_far(f);
		else
			send_batch(f);
	}
	if (!list_empty(&ts->far_followers))
		loop_timer_set(ts->loop, timer, ts->conf->turns.head_interval_ms);
}

/* ---- come and go ---- */

static void
watch_far(struct turns *ts, struct follower *f)
{
	list_add_tail(&ts->far_followers, &f->far_node);
	if (!loop_timer_is_set(&ts->head_timer))
		loop_timer_set(ts->loop, &ts->head_timer, ts->conf->turns.head_interval_ms);
}

static int
refuses(struct turn *t, const struct follow_request *r)
{
	int64_t listeners_max = t->turns->conf->turns.max_listeners;
	int64_t waiting_max = t->turns->conf->turns.max_waiting;
	size_t count = *count_of(t, r->is_waiter);

	if (r->is_waiter)
		return waiting_max > 0 && count >= (size_t)waiting_max ? E_TURN_IN_PROGRESS : 0;
	return listeners_max > 0 && count >= (size_t)listeners_max ? E_AT_CAPACITY : 0;
}

int
follow_add(struct turn *t, const struct follow_request *r)
{
	struct turns *ts = t->turns;
	struct follower *f =
	    follower_index_find(&ts->followers, r->is_far ? &r->addr : NULL, r->listener);
	int err;

	if (f != NULL)
		retire(f); /* it attaches again: the new one counts */
	err = refuses(t, r);
	if (err != 0)
		return err;
	f = xcalloc(1, sizeof(*f));
	f->turn = t;
	f->sent_seq =
	    r->after_seq; /* may be ahead of what there is: then it waits for what comes after */
	f->originator = r->originator;
	f->is_waiter = r->is_waiter;
	f->ticket = r->ticket;
	f->listener = r->listener;
	f->is_far = r->is_far;
	f->addr = r->addr;
	f->attach_no = r->attach_no;
	list_add_tail(&t->followers, &f->node);
	++*count_of(t, f->is_waiter);
	follower_index_add(&ts->followers, f);
	if (f->is_far)
		watch_far(ts, f);
	if (!f->is_waiter) {
		t->is_away_slow = false;
		loop_timer_stop(ts->loop, &t->gone_timer);
	}
	follow_flush_soon(t);
	return 0;
}

void
follow_remove(struct turn *t, uint64_t listener, bool is_disconnect)
{
	struct follower *f = follower_index_find(&t->turns->followers, NULL, listener);

	if (f != NULL && f->turn == t)
		detached(f, is_disconnect);
}

void
follow_drop_all(struct turn *t)
{
	list_for (node, &t->followers) {
		struct follower *f = list_entry(node, struct follower, node);

		if (!f->is_gone)
			forget(f);
	}
	reap_gone(t);
}

void
follow_peer_gone(struct turns *ts, struct backplane_addr peer)
{
	list_for_safe (node, &ts->far_followers) {
		struct follower *f = list_entry(node, struct follower, far_node);

		if (owner_equal(f->addr, peer))
			detached(f, true);
	}
}

/* ---- from other workers ---- */

static bool
take_attach(struct str rest, struct id *session_id, struct id *turn_id, struct follow_request *r)
{
	struct str session, turn;
	uint64_t is_waiter;

	if (!backplane_take_str(&rest, &session) || !backplane_take_str(&rest, &turn) ||
	    !backplane_take_u64(&rest, &r->listener) || !backplane_take_u64(&rest, &r->attach_no) ||
	    !backplane_take_u64(&rest, &r->after_seq) ||
	    !backplane_take_u64(&rest, &r->originator) || !backplane_take_u64(&rest, &is_waiter) ||
	    !backplane_take_u64(&rest, &r->ticket))
		return false;
	r->is_waiter = is_waiter != 0;
	return id_parse(session, "sess", session_id) && id_parse(turn, "turn", turn_id);
}

static void
on_attach(void *arg, const struct backplane_call *call)
{
	struct turns *ts = arg;
	struct follow_request r = {.is_far = true, .addr = call->from};
	struct id session_id, turn_id;
	struct turn *t = NULL;
	int err = E_NOT_FOUND;

	if (take_attach(call->payload, &session_id, &turn_id, &r))
		t = turn_by_id(ts, &session_id, &turn_id);
	if (t != NULL)
		err = follow_add(t, &r);
	backplane_reply(ts->backplane, call->from, call->call_id, err, STR_NONE);
}

/* By the listener alone: who detaches may have forgotten the turn. */
static void
on_detach(void *arg, const struct backplane_call *call)
{
	struct turns *ts = arg;
	struct str rest = call->payload;
	uint64_t listener, attach_no, is_disconnect;

	if (!backplane_take_u64(&rest, &listener) || !backplane_take_u64(&rest, &attach_no) ||
	    !backplane_take_u64(&rest, &is_disconnect))
		return;
	struct follower *f = follower_index_find(&ts->followers, &call->from, listener);
	if (f != NULL && f->attach_no == attach_no)
		detached(f, is_disconnect != 0);
}

void
follow_init(struct turns *ts)
{
	list_init(&ts->far_followers);
	ts->head_timer.on_fire = on_head_timer;
	backplane_serve(ts->backplane, BACKPLANE_TURN_ATTACH, on_attach, ts);
	backplane_serve(ts->backplane, BACKPLANE_TURN_DETACH, on_detach, ts);
}

void
follow_fini(struct turns *ts)
{
	check(list_empty(&ts->far_followers));
	loop_timer_stop(ts->loop, &ts->head_timer);
	follower_index_fini(&ts->followers);
}
