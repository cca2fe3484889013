/*
 * ws_chat_missed - turns that other hosts began while they were not heard: when they are reached
 * again, the sessions of this worker's sockets are looked up in the record, a few at a time.
 *
 * A turn that has begun and ended meanwhile is not told: its messages are in the session.
 */
#include "worker/api/ws_chat_impl.h"
#include "worker/backplane/owner.h"

enum { AT_A_TIME = 8 };

static void look_on(struct chats *c);

/* Within this host nothing was missed. */
static bool
is_elsewhere(const struct chats *c, const struct store_turn *turn)
{
	struct backplane_addr owner;

	return owner_parse(turn->owner, &owner) &&
	       owner.host != backplane_self(c->api->backplane).host;
}

static void
on_live(void *arg, int err, const struct store_turn *turn)
{
	struct chats *c = arg;
	struct id session_id, turn_id;

	c->missed.under_way--;
	if (err == 0 && is_elsewhere(c, turn) &&
	    id_parse(str_of(turn->session_id), "sess", &session_id) &&
	    id_parse(str_of(turn->id), "turn", &turn_id))
		chat_turn_begun(c, &session_id, &turn_id, 0);
	look_on(c);
}

/* A session that several sockets follow is asked for by the first of them. */
static void
look_at(struct chats *c, const struct chat_socket *cs)
{
	for (const struct chat_member *m = cs->members; m != NULL; m = m->of_socket) {
		struct id session_id = chat_member_session(m);

		if (chat_table_first(&c->table, &session_id) != m)
			continue;
		c->missed.under_way++;
		store_turn_live(c->api->store, session_id.s, on_live, c);
	}
}

static void
look_on(struct chats *c)
{
	const struct chat_socket *cs;

	while (c->missed.is_looking && c->missed.under_way < AT_A_TIME && !c->is_draining) {
		cs = idmap_next(c->sockets, &c->missed.cursor);
		if (cs != NULL)
			look_at(c, cs);
		else
			c->missed.is_looking = false;
	}
}

/* Again from the beginning, when it has not come to the end. */
static void
on_resumed(void *arg)
{
	struct chats *c = arg;

	c->missed.is_looking = true;
	c->missed.cursor = 0;
	look_on(c);
}

void
chat_missed_init(struct chats *c)
{
	backplane_on_resumed(c->api->backplane, on_resumed, c);
}
