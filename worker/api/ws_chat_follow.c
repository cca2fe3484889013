/*
 * ws_chat_follow - which sessions a socket follows, and the turns that it is told.
 *
 *   chats.sessions --> chat_session --> chat_member <-- chat_socket
 *                                          |
 *                                     chat_follow --> a listener of the turn
 *
 * A follow has a listener of its own, so that each socket is told every event after
 * the one it has, once and in order. One that does not take more is detached, and
 * attached again after what it has taken when its queue is empty. What is the same
 * for several sockets is formatted once and shared.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/api/ws_chat_impl.h"

struct chat_follow {
	struct list node; /* in the member's follows */
	struct chat_member *member;
	struct id turn_id;
	uint64_t listener; /* 0: detached, the socket is slow */
	uint64_t last_seq; /* taken */
	char *request_id;  /* NULL: somebody else's turn */
	bool is_streamed;
	bool has_answer; /* the one chunk of who does not stream is out */
};

static struct chats *
chats_of(const struct chat_follow *f)
{
	return f->member->socket->chats;
}

/* ---- frames that go to many ---- */

static void
forget_shared(struct chats *c)
{
	for (size_t i = 0; i < CHAT_SHARED_MAX; i++)
		ws_out_unref(&c->shared[i].out);
}

static void
run_forget_shared(struct loop_post *post)
{
	forget_shared(container_of(post, struct chats, forget_shared));
}

static struct chat_shared *
shared_slot(struct chats *c, const struct turn_event *event)
{
	return &c->shared[event->seq % CHAT_SHARED_MAX];
}

static struct ws_out *
find_shared(struct chats *c, const struct id *turn_id, const struct turn_event *event)
{
	const struct chat_shared *s = shared_slot(c, event);

	if (s->out == NULL || s->seq != event->seq || !str_eq(id_str(&s->turn_id), id_str(turn_id)))
		return NULL;
	return ws_out_ref(s->out);
}

static void
keep_shared(
    struct chats *c, const struct id *turn_id, const struct turn_event *event, struct ws_out *out)
{
	struct chat_shared *s = shared_slot(c, event);

	ws_out_unref(&s->out);
	*s = (struct chat_shared){*turn_id, event->seq, ws_out_ref(out)};
	loop_post(c->api->loop, &c->forget_shared);
}

/* ---- frames ---- */

typedef bool format_frame(struct buf *, const struct chat_frame_of *, const struct turn_event *);

/* NULL: nothing to send. */
static struct ws_out *
make_frame(struct chat_follow *f, const struct turn_event *event, format_frame *format)
{
	const struct chat_socket *cs = f->member->socket;
	struct buf text = BUF_INIT;
	struct ws_out *out = NULL;
	char connection[17];
	struct chat_frame_of of = {
	    .request_id = f->request_id,
	    .turn_id = f->turn_id.s,
	    .session_id = f->member->session->id.s,
	    .connection = f->request_id != NULL ? connection : NULL,
	};

	snprintf(connection, sizeof(connection), "%016" PRIx64, cs->originator);
	if (format(&text, &of, event))
		out = ws_out_new(WS_OP_TEXT, buf_str(&text));
	buf_fini(&text);
	return out;
}

static struct ws_out *
frame_of(struct chat_follow *f, const struct turn_event *event)
{
	struct chats *c = chats_of(f);
	bool is_shared = f->request_id == NULL;
	struct ws_out *out = is_shared ? find_shared(c, &f->turn_id, event) : NULL;

	if (out != NULL)
		return out;
	out = make_frame(f, event, chat_frame_of_event);
	if (out != NULL && is_shared)
		keep_shared(c, &f->turn_id, event, out);
	return out;
}

/* Who does not stream has no use for the parts. */
static bool
is_told(const struct chat_follow *f, const struct turn_event *event)
{
	return f->is_streamed ||
	       (event->type != TURN_TEXT_DELTA && event->type != TURN_REASONING_DELTA &&
		   event->type != TURN_SNAPSHOT);
}

static enum ws_sent
send_frame(struct chat_follow *f, struct ws_out *out)
{
	enum ws_sent sent = WS_SENT;

	if (out != NULL)
		sent = ws_socket_send(&f->member->socket->ws, out);
	ws_out_unref(&out);
	return sent;
}

static enum ws_sent
send_answer(struct chat_follow *f, const struct turn_event *event)
{
	if (f->is_streamed || f->has_answer || event->type != TURN_COMPLETED)
		return WS_SENT;
	enum ws_sent sent = send_frame(f, make_frame(f, event, chat_frame_of_answer));
	f->has_answer = sent == WS_SENT || sent == WS_SLOW;
	return sent;
}

/* ---- the listener ---- */

static void
follow_free(struct chat_follow *f)
{
	f->member->socket->follow_count--;
	list_del(&f->node);
	free(f->request_id);
	free(f);
}

/* False: it has no listener any more. */
static bool
on_event(void *arg, const struct turn_event *event)
{
	struct chat_follow *f = arg;
	enum ws_sent sent = send_answer(f, event);

	if ((sent == WS_SENT || sent == WS_SLOW) && is_told(f, event))
		sent = send_frame(f, frame_of(f, event));
	if (sent == WS_SENT || sent == WS_SLOW)
		f->last_seq = event->seq;
	if (sent == WS_SENT)
		return true;
	f->listener = 0;
	return false;
}

static void
on_end(void *arg, int err)
{
	struct chat_follow *f = arg;
	struct chat_socket *cs = f->member->socket;
	struct chat_error error = {
	    .err = err, .request_id = f->request_id, .turn_id = f->turn_id.s};

	if (err != 0)
		chat_socket_tell_error(cs, &error);
	follow_free(f);
	chat_socket_consider_drain(cs);
}

static const struct turn_listener_handlers handlers = {on_event, on_end};

static void
attach(struct chat_follow *f)
{
	struct turns *turns = chats_of(f)->api->turns;

	f->listener = turn_attach(turns, &f->member->session->id, &f->turn_id, f->last_seq,
	    f->member->socket->originator, &handlers, f);
}

static void
detach(struct chat_follow *f, bool is_disconnect)
{
	if (f->listener != 0)
		turn_detach(chats_of(f)->api->turns, f->listener, is_disconnect);
	f->listener = 0;
}

/* ---- turns ---- */

static struct chat_follow *
find_follow(const struct chat_member *m, const struct id *turn_id)
{
	list_for (node, &m->follows) {
		struct chat_follow *f = list_entry(node, struct chat_follow, node);

		if (str_eq(id_str(&f->turn_id), id_str(turn_id)))
			return f;
	}
	return NULL;
}

void
chat_follow(struct chat_member *m, const struct chat_follow_start *start)
{
	struct chat_follow *f = find_follow(m, start->turn_id);

	if (f == NULL) {
		f = xcalloc(1, sizeof(*f));
		f->member = m;
		f->turn_id = *start->turn_id;
		list_add_tail(&m->follows, &f->node);
		m->socket->follow_count++;
	}
	detach(f, false);
	free(f->request_id);
	f->request_id = start->request_id != NULL ? xstrdup(start->request_id) : NULL;
	f->last_seq = start->after_seq;
	f->is_streamed = start->is_streamed;
	f->has_answer = false;
	m->last_turn = *start->turn_id;
	attach(f);
}

bool
chat_follow_knows(const struct chat_member *m, const struct id *turn_id)
{
	return str_eq(id_str(&m->last_turn), id_str(turn_id)) || find_follow(m, turn_id) != NULL;
}

bool
chat_follow_find(
    struct chat_socket *cs, const char *request_id, struct id *ret_session, struct id *ret_turn)
{
	list_for (m_node, &cs->members) {
		struct chat_member *m = list_entry(m_node, struct chat_member, of_socket);

		list_for (node, &m->follows) {
			struct chat_follow *f = list_entry(node, struct chat_follow, node);

			if (f->request_id == NULL || strcmp(f->request_id, request_id) != 0)
				continue;
			*ret_session = m->session->id;
			*ret_turn = f->turn_id;
			return true;
		}
	}
	return false;
}

bool
chat_follow_live(const struct chat_member *m, struct id *ret_turn)
{
	if (list_empty(&m->follows))
		return false;
	*ret_turn = list_entry(m->follows.prev, struct chat_follow, node)->turn_id;
	return true;
}

/* A turn of its own is followed when the request that began it is answered: with that request's
 * id. */
static void
on_turn_begun(void *arg, const struct id *session_id, const struct id *turn_id, uint64_t originator)
{
	struct chats *c = arg;
	struct chat_session *s = strmap_get(c->sessions, id_str(session_id));
	struct chat_follow_start start = {.turn_id = turn_id, .is_streamed = true};

	if (s == NULL)
		return;
	list_for (node, &s->members) {
		struct chat_member *m = list_entry(node, struct chat_member, of_session);
		bool is_own = originator != 0 && originator == m->socket->originator;

		if (!is_own && ws_socket_is_open(&m->socket->ws) && !chat_follow_knows(m, turn_id))
			chat_follow(m, &start);
	}
}

/* ---- sessions ---- */

struct chat_member *
chat_member_find(struct chat_socket *cs, const struct id *session_id)
{
	list_for (node, &cs->members) {
		struct chat_member *m = list_entry(node, struct chat_member, of_socket);

		if (str_eq(id_str(&m->session->id), id_str(session_id)))
			return m;
	}
	return NULL;
}

static struct chat_session *
get_session(struct chats *c, const struct id *session_id)
{
	struct chat_session *s = strmap_get(c->sessions, id_str(session_id));

	if (s != NULL)
		return s;
	s = xcalloc(1, sizeof(*s));
	s->id = *session_id;
	list_init(&s->members);
	strmap_set(c->sessions, id_str(&s->id), s);
	return s;
}

struct chat_member *
chat_member_new(struct chat_socket *cs, const struct id *session_id)
{
	struct chat_member *m = xcalloc(1, sizeof(*m));

	m->socket = cs;
	m->session = get_session(cs->chats, session_id);
	list_init(&m->follows);
	list_add_tail(&m->session->members, &m->of_session);
	list_add_tail(&cs->members, &m->of_socket);
	cs->member_count++;
	return m;
}

static void
member_free(struct chat_member *m)
{
	struct chats *c = m->socket->chats;
	struct chat_session *s = m->session;

	list_for_safe (node, &m->follows) {
		struct chat_follow *f = list_entry(node, struct chat_follow, node);

		/* That we go is no disconnect of the user. */
		detach(f, !c->is_draining);
		follow_free(f);
	}
	m->socket->member_count--;
	list_del(&m->of_session);
	list_del(&m->of_socket);
	free(m);
	if (!list_empty(&s->members))
		return;
	strmap_del(c->sessions, id_str(&s->id));
	free(s);
}

void
chat_members_free(struct chat_socket *cs)
{
	cs->present = NULL;
	list_for_safe (node, &cs->members)
		member_free(list_entry(node, struct chat_member, of_socket));
}

static void
add_with_turns(const struct chat_member *m, struct id *ids, size_t *count)
{
	if (m != NULL && !list_empty(&m->follows))
		memcpy(ids[(*count)++].s, m->session->id.s, sizeof(ids[0].s));
}

size_t
chat_members_with_turns(struct chat_socket *cs, struct id *ret_ids)
{
	size_t count = 0;

	add_with_turns(cs->present, ret_ids, &count);
	list_for_safe (node, &cs->members) {
		const struct chat_member *m = list_entry(node, struct chat_member, of_socket);

		if (m != cs->present)
			add_with_turns(m, ret_ids, &count);
	}
	return count;
}

void
chat_members_resume(struct chat_socket *cs)
{
	list_for (m_node, &cs->members) {
		struct chat_member *m = list_entry(m_node, struct chat_member, of_socket);

		list_for (node, &m->follows) {
			struct chat_follow *f = list_entry(node, struct chat_follow, node);

			if (f->listener == 0)
				attach(f);
		}
	}
}

void
chat_follow_init(struct chats *c)
{
	c->sessions = strmap_new();
	c->forget_shared.run = run_forget_shared;
	turns_on_begun(c->api->turns, on_turn_begun, c);
}

void
chat_follow_fini(struct chats *c)
{
	check(strmap_count(c->sessions) == 0);
	loop_post_cancel(c->api->loop, &c->forget_shared);
	forget_shared(c);
	strmap_free(&c->sessions);
}
