/*
 * announce - tells this worker, and the others of the host, that a turn has begun:
 * who follows a session attaches to its next turn wherever that runs.
 *
 * A hint, not a promise: one that is lost costs a follower that turn, until it asks.
 */
#include "common/log.h"
#include "worker/turn/turn_impl.h"

static void
tell_here(
    struct turns *ts, const struct id *session_id, const struct id *turn_id, uint64_t originator)
{
	if (ts->on_turn_begun != NULL)
		ts->on_turn_begun(ts->on_turn_begun_arg, session_id, turn_id, originator);
}

void
turn_announce(struct turn *t)
{
	struct turns *ts = t->turns;
	struct buf message = BUF_INIT;

	backplane_put_str(&message, id_str(&t->session_id));
	backplane_put_str(&message, id_str(&t->id));
	backplane_broadcast(ts->backplane, BACKPLANE_SESSION_TURN, buf_str(&message));
	buf_fini(&message);
	tell_here(ts, &t->session_id, &t->id, t->originator);
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
	backplane_serve(ts->backplane, BACKPLANE_SESSION_TURN, on_session_turn, ts);
}
