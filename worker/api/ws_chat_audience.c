/*
 * ws_chat_audience - the sockets of this worker that are told somebody else's turn:
 * one listener for all of them.
 *
 *   chats.audiences --> chat_audience --> chat_follow ..
 *                            |
 *                       a listener of the turn, which is as far as the farthest of them
 *
 * Each keeps its own place in the sequence: what it has it is not told again. One
 * that does not take more leaves alone; it comes back with a listener of its own,
 * for what it has not been told, and joins when it is as far as the others.
 */
#include <stdlib.h>

#include "worker/api/ws_chat_impl.h"

struct chat_audience {
	struct chats *chats;
	struct id turn_id;
	uint64_t listener;
	uint64_t last_seq;   /* given to all that had not had it */
	struct list follows; /* never empty */
	bool has_begun;      /* its listener has been told something */
	bool has_slow;       /* one has left because it was slow, and is not back */
};

static struct chats *
chats_of(const struct chat_follow *f)
{
	return f->member->socket->chats;
}

static struct chat_audience *
find(const struct chats *c, const struct id *turn_id)
{
	return strmap_get(c->audiences, id_str(turn_id));
}

static void
audience_free(struct chat_audience *a)
{
	check(list_empty(&a->follows));
	strmap_del(a->chats->audiences, id_str(&a->turn_id));
	free(a);
}

static void
take_out(struct chat_follow *f)
{
	list_del(&f->of_audience);
	f->audience = NULL;
}

/* False: there is no audience any more, and no listener of it. */
static bool
on_event(void *arg, const struct turn_event *event)
{
	struct chat_audience *a = arg;

	a->last_seq = event->seq;
	a->has_begun = true;
	list_for_safe (node, &a->follows) {
		struct chat_follow *f = list_entry(node, struct chat_follow, of_audience);

		if (f->last_seq >= event->seq || chat_follow_tell(f, event))
			continue;
		take_out(f);
		a->has_slow = true;
	}
	if (!list_empty(&a->follows))
		return true;
	audience_free(a);
	return false;
}

static void
on_end(void *arg, int err)
{
	struct chat_audience *a = arg;
	struct list follows = LIST_INIT(follows);

	list_for_safe (node, &a->follows) {
		struct chat_follow *f = list_entry(node, struct chat_follow, of_audience);

		take_out(f);
		list_add_tail(&follows, node);
	}
	audience_free(a);
	for (struct chat_follow *f;
	     (f = list_first(&follows, struct chat_follow, of_audience)) != NULL;) {
		list_del(&f->of_audience);
		chat_follow_end(f, err);
	}
}

static const struct turn_listener_handlers handlers = {on_event, on_end};

static struct chat_audience *
audience_new(const struct chat_follow *f)
{
	struct chat_audience *a = xcalloc(1, sizeof(*a));
	struct id session_id = chat_member_session(f->member);

	a->chats = chats_of(f);
	a->turn_id = f->turn_id;
	a->last_seq = f->last_seq;
	list_init(&a->follows);
	strmap_set(a->chats->audiences, id_str(&a->turn_id), a);
	a->listener = turn_attach(
	    a->chats->api->turns, &session_id, &a->turn_id, a->last_seq, 0, &handlers, a);
	return a;
}

static bool
admit(struct chat_audience *a, struct chat_follow *f)
{
	check(f->audience == NULL);
	a->has_slow = false; /* as the turn's owner forgets it when somebody attaches */
	if (f->last_seq < a->last_seq)
		return false;
	f->audience = a;
	list_add_tail(&a->follows, &f->of_audience);
	return true;
}

bool
chat_audience_join(struct chat_follow *f)
{
	struct chat_audience *a = find(chats_of(f), &f->turn_id);

	if (f->is_own)
		return false;
	return admit(a != NULL ? a : audience_new(f), f);
}

bool
chat_audience_catch_up(struct chat_follow *f)
{
	struct chat_audience *a = f->is_own ? NULL : find(chats_of(f), &f->turn_id);

	return a != NULL && a->has_begun && admit(a, f);
}

void
chat_audience_leave(struct chat_follow *f, bool is_disconnect)
{
	struct chat_audience *a = f->audience;

	if (a == NULL)
		return;
	take_out(f);
	if (!list_empty(&a->follows))
		return;
	turn_detach(a->chats->api->turns, a->listener, is_disconnect && !a->has_slow);
	audience_free(a);
}

void
chat_audiences_init(struct chats *c)
{
	c->audiences = strmap_new();
}

void
chat_audiences_fini(struct chats *c)
{
	check(strmap_count(c->audiences) == 0);
	strmap_free(&c->audiences);
}
