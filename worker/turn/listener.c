/*
 * listener - one listener of this worker, wherever its turn is.
 *
 *   SEARCH --here--> HERE        follow.c delivers
 *     ^ |  --peer--> ATTACH --> FAR    batches come over the backplane
 *     | +--record--> (snapshot, last event, end)
 *     +-- a gap, silence, the peer's death
 *
 * The sequence is checked here: an event that was seen is dropped, one that is
 * missing makes it attach again after the last it has. A listener whose owner is
 * gone hears turn.failed worker_lost within a second, also when the record cannot
 * be asked.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/turn/turn_impl.h"

enum {
	FIND_MS = 3000,    /* a new listener: then the owner is unavailable */
	RESUME_MS = 10000, /* one that has followed: a stalled owner is replaced before that, */
			   /* a dead host's turns are lost so long after its lease at most */
	LOST_MS = 900,     /* after the owner's death */
	SILENT_HEADS = 3,  /* repetitions of the head that may fail to come */
};

enum listener_state { LISTENER_SEARCH, LISTENER_HERE, LISTENER_ATTACH, LISTENER_FAR };

struct listener {
	struct turns *turns;
	uint64_t handle;
	enum listener_state state;
	struct id session_id, turn_id;
	uint64_t last_seq, originator, ticket, attach_no;
	bool is_waiter, has_followed, is_owner_gone, is_record_only;
	const struct turn_listener_handlers *handlers;
	listener_on_turn_ended *on_turn_ended; /* of a waiter */
	void *arg;
	struct backplane_addr owner;
	uint32_t tries; /* of this search */
	struct loop_post kick;
	struct loop_timer timer;    /* the next try, or the owner's silence */
	struct loop_timer deadline; /* of the search */
};

static void start_search(struct listener *l);

/* ---- come and go ---- */

/* The loop has let go of a timer or a post before it calls. */
static void
listener_free(struct listener *l)
{
	struct loop *loop = l->turns->loop;

	idmap_remove(l->turns->listeners, l->handle);
	loop_post_cancel(loop, &l->kick);
	loop_timer_stop(loop, &l->timer);
	loop_timer_stop(loop, &l->deadline);
	free(l);
}

static void
tell_end(struct listener *l, int err, uint32_t rank)
{
	listener_on_turn_ended *on_turn_ended = l->on_turn_ended;
	const struct turn_listener_handlers *handlers = l->handlers;
	void *arg = l->arg;
	bool is_waiter = l->is_waiter;

	listener_free(l);
	if (is_waiter)
		on_turn_ended(arg, err, rank);
	else
		handlers->on_end(arg, err);
}

static void
cast_detach(struct turns *ts, struct backplane_addr owner, uint64_t listener, uint64_t attach_no,
    bool is_disconnect)
{
	struct buf message = BUF_INIT;

	backplane_put_u64(&message, listener);
	backplane_put_u64(&message, attach_no);
	backplane_put_u64(&message, is_disconnect ? 1 : 0);
	/* When it does not get there, the answer to the owner's next batch says it again. */
	backplane_cast(ts->backplane, owner, BACKPLANE_TURN_DETACH, buf_str(&message));
	buf_fini(&message);
}

/* The owner's side learns that it is gone. */
static void
let_go(struct listener *l, bool is_disconnect)
{
	struct turns *ts = l->turns;
	struct turn *t = turn_by_id(ts, &l->session_id, &l->turn_id);

	if (l->state == LISTENER_HERE && t != NULL)
		follow_remove(t, l->handle, is_disconnect);
	else if (l->state == LISTENER_FAR || l->state == LISTENER_ATTACH)
		cast_detach(ts, l->owner, l->handle, l->attach_no, is_disconnect);
}

/* ---- what reaches the client; false: the listener is gone ---- */

static bool
give(struct listener *l, const struct turn_event *event)
{
	struct turns *ts = l->turns;
	uint64_t handle = l->handle;

	l->last_seq = event->seq;
	bool takes_more = l->handlers->on_event(l->arg, event);
	l = idmap_get(ts->listeners, handle);
	if (l == NULL)
		return false;
	if (takes_more)
		return true;
	if (l->state != LISTENER_HERE)
		let_go(l, false);
	listener_free(l);
	return false;
}

bool
listener_take(struct turns *ts, uint64_t handle, const struct turn_event *event)
{
	struct listener *l = idmap_get(ts->listeners, handle);

	if (l == NULL)
		return false;
	check(event->seq > l->last_seq);
	return give(l, event);
}

void
listener_end(struct turns *ts, uint64_t handle, int err, uint32_t rank)
{
	struct listener *l = idmap_get(ts->listeners, handle);

	if (l != NULL)
		tell_end(l, err, rank);
}

/* ---- the end of a turn that nobody runs ---- */

static void
tell_lost(struct listener *l)
{
	struct turns *ts = l->turns;
	uint64_t handle = l->handle;
	json_t *data = json_pack("{s:o}", "error", turn_format_error(E_WORKER_LOST, NULL));
	char *text = json_dumps(data, JSON_COMPACT);
	struct turn_event event = {TURN_FAILED, l->last_seq + 1, str_of(text)};

	check(text != NULL);
	if (l->is_waiter || give(l, &event))
		listener_end(ts, handle, 0, 0);
	free(text);
	json_decref(data);
}

static bool
give_record_snapshot(struct listener *l, const struct store_turn *r, uint64_t seq)
{
	struct buf data = BUF_INIT;

	turn_record_snapshot(r, seq, &data);
	struct turn_event event = {TURN_SNAPSHOT, seq, buf_str(&data)};
	bool is_here = give(l, &event);
	buf_fini(&data);
	return is_here;
}

static bool
give_record_end(struct listener *l, const struct store_turn *r, uint64_t seq)
{
	struct buf data = BUF_INIT;
	enum turn_event_type type = turn_record_end(r, &data);
	struct turn_event event = {type, seq, buf_str(&data)};
	bool is_here = give(l, &event);

	buf_fini(&data);
	return is_here;
}

/*
 * last_seq of a recorded turn is its last event's. Of a lost one it is the last that was recorded
 * while it ran: the listener may have seen more, and nobody has numbered the failure.
 */
static void
end_by_record(struct listener *l, const struct store_turn *r)
{
	struct turns *ts = l->turns;
	uint64_t handle = l->handle, last = r->last_seq;
	bool is_lost = r->error_code != NULL && strcmp(r->error_code, "worker_lost") == 0;
	uint64_t snapshot_seq = is_lost || last == 0 ? last : last - 1;
	uint64_t end_seq = is_lost && l->last_seq > last ? l->last_seq + 1 : snapshot_seq + 1;
	bool is_here = true;

	if (!l->is_waiter && l->last_seq < snapshot_seq)
		is_here = give_record_snapshot(l, r, snapshot_seq);
	if (is_here && !l->is_waiter && l->last_seq < end_seq)
		is_here = give_record_end(l, r, end_seq);
	if (is_here)
		listener_end(ts, handle, 0, 0);
}

/* ---- SEARCH ---- */

static void
search_later(struct listener *l, uint64_t delay_ms)
{
	l->state = LISTENER_SEARCH;
	loop_timer_set(l->turns->loop, &l->timer, delay_ms);
}

static void
search_again(struct listener *l)
{
	search_later(l, turn_route_retry_ms(l->tries++));
}

static void
attach_here(struct listener *l)
{
	struct turn *t = turn_by_id(l->turns, &l->session_id, &l->turn_id);
	struct follow_request r = {
	    .listener = l->handle,
	    .after_seq = l->last_seq,
	    .originator = l->originator,
	    .is_waiter = l->is_waiter,
	    .ticket = l->ticket,
	};

	check(t != NULL);
	int err = follow_add(t, &r);
	if (err != 0) {
		tell_end(l, err, 0);
		return;
	}
	l->state = LISTENER_HERE;
	l->has_followed = true;
	loop_timer_stop(l->turns->loop, &l->deadline);
}

static void
follow_far(struct listener *l)
{
	struct turns *ts = l->turns;

	l->state = LISTENER_FAR;
	l->has_followed = true;
	l->is_record_only = l->is_owner_gone = false;
	loop_timer_stop(ts->loop, &l->deadline);
	loop_timer_set(ts->loop, &l->timer, SILENT_HEADS * ts->conf->turns.head_interval_ms + 500);
}

static void
on_attached(void *arg, int err, struct str payload)
{
	uint64_t attach_no = ((struct turn_gap *)arg)->extra, handle;
	struct turns *ts = turn_gap_close(arg, &handle);
	struct listener *l = idmap_get(ts->listeners, handle);

	(void)payload;
	if (l == NULL || l->state != LISTENER_ATTACH || l->attach_no != attach_no)
		return;
	switch (err) {
	case 0:
		follow_far(l);
		break;
	case E_AT_CAPACITY:
	case E_TURN_IN_PROGRESS:
		tell_end(l, err, 0);
		break;
	case E_NOT_FOUND: /* it is not kept there, any more or ever: only the record knows */
		if (l->is_record_only)
			search_again(l);
		else
			search_later(l, 0);
		l->is_record_only = true;
		break;
	case E_GONE: /* another host's may only not have been listening: the record says */
		l->is_owner_gone |= l->owner.host == ts->self.host || owner_is_dead(ts, l->owner);
		l->is_record_only = true;
		search_again(l);
		break;
	default:
		search_again(l);
	}
}

static void
attach_far(struct listener *l, struct backplane_addr owner)
{
	struct turns *ts = l->turns;
	struct buf message = BUF_INIT;
	struct turn_gap *gap = turn_gap_open(ts, l->handle);

	l->state = LISTENER_ATTACH;
	l->owner = owner;
	gap->extra = ++l->attach_no;
	backplane_put_str(&message, id_str(&l->session_id));
	backplane_put_str(&message, id_str(&l->turn_id));
	backplane_put_u64(&message, l->handle);
	backplane_put_u64(&message, l->attach_no);
	backplane_put_u64(&message, l->last_seq);
	backplane_put_u64(&message, l->originator);
	backplane_put_u64(&message, l->is_waiter ? 1 : 0);
	backplane_put_u64(&message, l->ticket);
	backplane_send_call(ts->backplane, owner, BACKPLANE_TURN_ATTACH, buf_str(&message),
	    (uint32_t)ts->conf->backplane.call_timeout_ms, on_attached, gap);
	buf_fini(&message);
}

static void
on_route(void *arg, struct turns *ts, uint64_t handle, const struct route *r)
{
	struct listener *l = idmap_get(ts->listeners, handle);

	(void)arg;
	if (l == NULL || l->state != LISTENER_SEARCH)
		return;
	switch (r->kind) {
	case ROUTE_HERE:
		attach_here(l);
		break;
	case ROUTE_PEER:
		attach_far(l, r->peer);
		break;
	case ROUTE_RECORD:
		end_by_record(l, r->record);
		break;
	case ROUTE_FAILED:
		if (r->err == E_STORE_UNAVAILABLE && l->has_followed)
			search_again(l);
		else
			tell_end(l, r->err, 0);
	}
}

static void
run_search(struct listener *l)
{
	check(l->state == LISTENER_SEARCH);
	turn_route_find(
	    l->turns, &l->session_id, &l->turn_id, l->is_record_only, on_route, l->handle, NULL);
}

static void
run_kick(struct loop_post *post)
{
	run_search(container_of(post, struct listener, kick));
}

static void
on_deadline(struct loop_timer *timer)
{
	struct listener *l = container_of(timer, struct listener, deadline);

	if (l->is_owner_gone && l->has_followed)
		tell_lost(l);
	else
		tell_end(l, E_OWNER_UNAVAILABLE, 0);
}

static void
on_timer(struct loop_timer *timer)
{
	struct listener *l = container_of(timer, struct listener, timer);

	if (l->state == LISTENER_FAR) {
		log_debug("turn owner silent turn=%s", l->turn_id.s);
		start_search(l);
	} else if (l->state == LISTENER_SEARCH) {
		run_search(l);
	}
}

/* A listener that has followed another host's turn waits until that host is known to be dead. */
static uint64_t
patience_ms(const struct listener *l)
{
	const struct turns *ts = l->turns;

	if (l->is_owner_gone)
		return LOST_MS;
	if (!l->has_followed)
		return FIND_MS;
	return l->owner.host == ts->self.host || l->owner.host == 0
		   ? RESUME_MS
		   : ts->conf->backplane.lease_ms + RESUME_MS;
}

/* From the beginning; never calls back from inside. */
static void
start_search(struct listener *l)
{
	uint64_t limit_ms = patience_ms(l);

	l->tries = 0;
	l->state = LISTENER_SEARCH;
	l->kick.run = run_kick;
	loop_post(l->turns->loop, &l->kick);
	loop_timer_stop(l->turns->loop, &l->timer);
	loop_timer_set(l->turns->loop, &l->deadline, limit_ms);
}

/* Of another host's only the record can say that its turns are lost: it may live, and only be cut
 * off from Redis. */
void
listener_peer_gone(struct turns *ts, struct backplane_addr peer)
{
	bool is_ours = peer.host == ts->self.host;
	uint32_t cursor = 0;

	for (struct listener *l; (l = idmap_next(ts->listeners, &cursor)) != NULL;) {
		if (l->state == LISTENER_HERE || !owner_equal(l->owner, peer) || l->is_owner_gone)
			continue;
		l->is_owner_gone = is_ours;
		l->is_record_only = true; /* what else knows of it names the dead one */
		if (l->has_followed || l->state == LISTENER_FAR)
			start_search(l);
	}
}

/* Until now the record's owner was perhaps alive. No listener waits for its own next look. */
void
listener_owner_reaped(struct turns *ts, struct shm_who who)
{
	struct backplane_addr owner = {ts->self.host, who};
	uint32_t cursor = 0;

	for (struct listener *l; (l = idmap_next(ts->listeners, &cursor)) != NULL;) {
		if (l->is_owner_gone && l->state == LISTENER_SEARCH && owner_equal(l->owner, owner))
			search_later(l, 0);
	}
}

void
listener_host_over(struct turns *ts, uint64_t host)
{
	uint32_t cursor = 0;

	for (struct listener *l; (l = idmap_next(ts->listeners, &cursor)) != NULL;) {
		if (l->state == LISTENER_HERE || l->owner.host != host)
			continue;
		l->is_owner_gone = l->is_record_only = true;
		start_search(l);
	}
}

/* ---- EVENTS from the owner ---- */

struct batch {
	uint64_t listener, attach_no, head, is_end, rank, count;
	struct str events;
};

static bool
take_batch(struct str payload, struct batch *b)
{
	b->events = payload;
	return backplane_take_u64(&b->events, &b->listener) &&
	       backplane_take_u64(&b->events, &b->attach_no) &&
	       backplane_take_u64(&b->events, &b->head) &&
	       backplane_take_u64(&b->events, &b->is_end) &&
	       backplane_take_u64(&b->events, &b->rank) &&
	       backplane_take_u64(&b->events, &b->count);
}

static bool
take_event(struct str *rest, struct turn_event *ret)
{
	uint64_t type;

	if (!backplane_take_u64(rest, &type) || !backplane_take_u64(rest, &ret->seq) ||
	    !backplane_take_str(rest, &ret->data) || type >= TURN_EVENT_COUNT)
		return false;
	ret->type = (enum turn_event_type)type;
	return true;
}

enum taken { TAKEN_ALL, TAKEN_GAP, TAKEN_GONE };

static enum taken
take_events(struct listener *l, struct batch *b)
{
	struct turn_event event;

	for (uint64_t i = 0; i < b->count; i++) {
		if (!take_event(&b->events, &event))
			return TAKEN_GAP;
		if (event.seq <= l->last_seq)
			continue;
		if (event.seq != l->last_seq + 1 && event.type != TURN_SNAPSHOT)
			return TAKEN_GAP;
		if (!give(l, &event))
			return TAKEN_GONE;
	}
	/* A repetition of the head that tells of events which never came. */
	return b->count == 0 && !l->is_waiter && b->head > l->last_seq ? TAKEN_GAP : TAKEN_ALL;
}

static void
on_events(void *arg, const struct backplane_call *call)
{
	struct turns *ts = arg;
	struct batch b;

	if (!take_batch(call->payload, &b)) {
		log_error("turn events malformed");
		return;
	}
	struct listener *l = idmap_get(ts->listeners, b.listener);
	if (l == NULL) {
		/* It went, and the owner has not heard. */
		cast_detach(ts, call->from, b.listener, b.attach_no, true);
		return;
	}
	if (l->attach_no != b.attach_no || !owner_equal(l->owner, call->from) ||
	    (l->state != LISTENER_FAR && l->state != LISTENER_ATTACH))
		return; /* of an attachment that is no more */
	follow_far(l);
	switch (take_events(l, &b)) {
	case TAKEN_GONE:
		return;
	case TAKEN_GAP:
		log_debug("turn events missing turn=%s", l->turn_id.s);
		start_search(l);
		return;
	case TAKEN_ALL:
		break;
	}
	if (b.is_end != 0 && (l->is_waiter || l->last_seq >= b.head)) {
		cast_detach(ts, l->owner, l->handle, l->attach_no, false);
		tell_end(l, 0, (uint32_t)b.rank);
	}
}

/* ---- the verbs ---- */

static struct listener *
listener_new(struct turns *ts, const struct id *session_id, const struct id *turn_id)
{
	struct listener *l = xcalloc(1, sizeof(*l));

	l->turns = ts;
	l->handle = idmap_add(ts->listeners, l);
	l->session_id = *session_id;
	l->turn_id = *turn_id;
	l->timer.on_fire = on_timer;
	l->deadline.on_fire = on_deadline;
	return l;
}

uint64_t
turn_attach(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    uint64_t after_seq, uint64_t originator, const struct turn_listener_handlers *handlers,
    void *arg)
{
	struct listener *l = listener_new(ts, session_id, turn_id);

	l->last_seq = after_seq;
	l->originator = originator;
	l->handlers = handlers;
	l->arg = arg;
	start_search(l);
	return l->handle;
}

uint64_t
listener_wait(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    uint64_t ticket, listener_on_turn_ended *on_turn_ended, void *arg)
{
	struct listener *l = listener_new(ts, session_id, turn_id);

	l->is_waiter = true;
	l->ticket = ticket;
	l->on_turn_ended = on_turn_ended;
	l->arg = arg;
	start_search(l);
	return l->handle;
}

void
turn_detach(struct turns *ts, uint64_t handle, bool is_disconnect)
{
	struct listener *l = idmap_get(ts->listeners, handle);

	if (l == NULL)
		return;
	let_go(l, is_disconnect);
	listener_free(l);
}

void
listener_init(struct turns *ts)
{
	backplane_serve(ts->backplane, BACKPLANE_TURN_EVENTS, on_events, ts);
}

/* Silently: their owners are being freed too. */
void
listener_fini(struct turns *ts)
{
	uint32_t cursor = 0;

	for (struct listener *l; (l = idmap_next(ts->listeners, &cursor)) != NULL;)
		listener_free(l);
}
