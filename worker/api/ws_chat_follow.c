/*
 * ws_chat_follow - which sessions a socket follows, and the turns that it is told.
 *
 *   chats.table --> chat_member <-- chat_socket
 *                        |
 *                   chat_follow --> a listener of the turn, its own or its audience's
 *
 * Each socket is told every event after the one it has, once and in order. One that
 * does not take more is detached, and attached again after what it has taken when its
 * queue is empty. What is the same for several sockets is formatted once and shared.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/api/ws_chat_impl.h"

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

	if (s->out == NULL || s->seq != event->seq || s->type != event->type ||
	    !str_eq(id_str(&s->turn_id), id_str(turn_id)))
		return NULL;
	return ws_out_ref(s->out);
}

static void
keep_shared(
    struct chats *c, const struct id *turn_id, const struct turn_event *event, struct ws_out *out)
{
	struct chat_shared *s = shared_slot(c, event);

	ws_out_unref(&s->out);
	*s = (struct chat_shared){*turn_id, event->seq, event->type, ws_out_ref(out)};
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
	struct id session_id = chat_member_session(f->member);
	char connection[17];
	struct chat_frame_of of = {
	    .request_id = f->request_id,
	    .turn_id = f->turn_id.s,
	    .session_id = session_id.s,
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

/* Where the member's list has it; of NULL: its end. */
static struct chat_follow **
link_of(struct chat_member *m, const struct chat_follow *f)
{
	struct chat_follow **at = &m->follows;

	while (*at != f)
		at = &(*at)->next;
	return at;
}

static void
follow_free(struct chat_follow *f)
{
	check(f->listener == 0 && f->audience == NULL);
	f->member->socket->follow_count--;
	*link_of(f->member, f) = f->next;
	free(f->request_id);
	free(f);
}

/* Who is gone takes nothing, but was not slow: its disconnect is still to come. */
bool
chat_follow_tell(struct chat_follow *f, const struct turn_event *event)
{
	enum ws_sent sent = send_answer(f, event);

	if ((sent == WS_SENT || sent == WS_SLOW) && is_told(f, event))
		sent = send_frame(f, frame_of(f, event));
	if (sent == WS_SENT || sent == WS_SLOW)
		f->last_seq = event->seq;
	return sent == WS_SENT || sent == WS_GONE;
}

void
chat_follow_end(struct chat_follow *f, int err)
{
	struct chat_member *m = f->member;
	struct chat_socket *cs = m->socket;
	struct chat_error error = {
	    .err = err, .request_id = f->request_id, .turn_id = f->turn_id.s};
	uint8_t bits[CHAT_ID_BITS];

	if (err != 0) {
		chat_socket_tell_error(cs, &error);
		/* It was not told: who joins again gets it. */
		id_bits(&f->turn_id, bits);
		if (memcmp(m->last_turn, bits, sizeof(bits)) == 0)
			memset(m->last_turn, 0, sizeof(m->last_turn));
	}
	follow_free(f);
	chat_socket_consider_drain(cs);
}

/* False: it has no listener any more. */
static bool
on_event(void *arg, const struct turn_event *event)
{
	struct chat_follow *f = arg;

	if (!chat_follow_tell(f, event)) {
		f->listener = 0;
		return false;
	}
	if (f->last_seq == event->seq && chat_audience_catch_up(f)) {
		/* No disconnect for the owner: the audience is still there. */
		turn_detach(chats_of(f)->api->turns, f->listener, true);
		f->listener = 0;
	}
	return true;
}

static void
on_end(void *arg, int err)
{
	struct chat_follow *f = arg;

	f->listener = 0;
	chat_follow_end(f, err);
}

static const struct turn_listener_handlers handlers = {on_event, on_end};

static void
attach(struct chat_follow *f)
{
	struct turns *turns = chats_of(f)->api->turns;
	struct id session_id = chat_member_session(f->member);

	if (!chat_audience_join(f))
		f->listener = turn_attach(turns, &session_id, &f->turn_id, f->last_seq,
		    f->member->socket->originator, &handlers, f);
}

static void
detach(struct chat_follow *f, bool is_disconnect)
{
	chat_audience_leave(f, is_disconnect);
	if (f->listener != 0)
		turn_detach(chats_of(f)->api->turns, f->listener, is_disconnect);
	f->listener = 0;
}

/* ---- turns ---- */

static struct chat_follow *
find_follow(const struct chat_member *m, const struct id *turn_id)
{
	struct chat_follow *f = m->follows;

	while (f != NULL && !str_eq(id_str(&f->turn_id), id_str(turn_id)))
		f = f->next;
	return f;
}

void
chat_follow(struct chat_member *m, const struct chat_follow_start *start)
{
	struct chat_follow *f = find_follow(m, start->turn_id);

	if (f == NULL) {
		f = xcalloc(1, sizeof(*f));
		f->member = m;
		f->turn_id = *start->turn_id;
		*link_of(m, NULL) = f;
		m->socket->follow_count++;
		ws_socket_stay(&m->socket->ws); /* it was idle: its client may want to cancel */
	}
	detach(f, false);
	free(f->request_id);
	f->request_id = start->request_id != NULL ? xstrdup(start->request_id) : NULL;
	f->last_seq = start->after_seq;
	f->is_own = start->is_own;
	f->is_streamed = start->is_streamed;
	f->has_answer = false;
	id_bits(start->turn_id, m->last_turn);
	attach(f);
}

bool
chat_follow_knows(const struct chat_member *m, const struct id *turn_id)
{
	uint8_t bits[CHAT_ID_BITS];

	id_bits(turn_id, bits);
	return memcmp(m->last_turn, bits, sizeof(bits)) == 0 || find_follow(m, turn_id) != NULL;
}

bool
chat_follow_find(
    struct chat_socket *cs, const char *request_id, struct id *ret_session, struct id *ret_turn)
{
	for (const struct chat_member *m = cs->members; m != NULL; m = m->of_socket) {
		for (const struct chat_follow *f = m->follows; f != NULL; f = f->next) {
			if (f->request_id == NULL || strcmp(f->request_id, request_id) != 0)
				continue;
			*ret_session = chat_member_session(m);
			*ret_turn = f->turn_id;
			return true;
		}
	}
	return false;
}

bool
chat_follow_live(const struct chat_member *m, struct id *ret_turn)
{
	for (const struct chat_follow *f = m->follows; f != NULL; f = f->next)
		*ret_turn = f->turn_id;
	return m->follows != NULL;
}

/* A turn of its own is followed when the request that began it is answered: with that request's
 * id. */
void
chat_turn_begun(
    struct chats *c, const struct id *session_id, const struct id *turn_id, uint64_t originator)
{
	struct chat_follow_start start = {.turn_id = turn_id, .is_streamed = true};
	struct chat_member *m = chat_table_first(&c->table, session_id);

	for (; m != NULL; m = chat_table_next(m)) {
		bool is_own = originator != 0 && originator == m->socket->originator;

		if (!is_own && ws_socket_is_open(&m->socket->ws) && !chat_follow_knows(m, turn_id))
			chat_follow(m, &start);
	}
}

static void
on_turn_begun(void *arg, const struct id *session_id, const struct id *turn_id, uint64_t originator)
{
	chat_hand_turn_begun(arg, session_id, turn_id);
	chat_turn_begun(arg, session_id, turn_id, originator);
}

/* ---- sessions ---- */

struct chat_member *
chat_member_find(struct chat_socket *cs, const struct id *session_id)
{
	struct chat_member *m = cs->members;
	uint8_t bits[CHAT_ID_BITS];

	id_bits(session_id, bits);
	while (m != NULL && memcmp(m->session, bits, sizeof(bits)) != 0)
		m = m->of_socket;
	return m;
}

struct chat_member *
chat_member_new(struct chat_socket *cs, const struct id *session_id)
{
	struct chat_member *m = xcalloc(1, sizeof(*m)), **last = &cs->members;

	m->socket = cs;
	id_bits(session_id, m->session);
	while (*last != NULL)
		last = &(*last)->of_socket;
	*last = m;
	cs->member_count++;
	chat_table_add(&cs->chats->table, m);
	return m;
}

static void
member_free(struct chat_member *m)
{
	struct chats *c = m->socket->chats;

	while (m->follows != NULL) {
		detach(m->follows, !c->is_draining); /* that we go is no disconnect of the user */
		follow_free(m->follows);
	}
	m->socket->member_count--;
	chat_table_remove(&c->table, m);
	free(m);
}

void
chat_members_free(struct chat_socket *cs)
{
	cs->present = NULL;
	for (struct chat_member *m; (m = cs->members) != NULL;) {
		cs->members = m->of_socket;
		member_free(m);
	}
}

static void
add_with_turns(const struct chat_member *m, struct id *ids, size_t *count)
{
	if (m != NULL && m->follows != NULL)
		ids[(*count)++] = chat_member_session(m);
}

size_t
chat_members_with_turns(struct chat_socket *cs, struct id *ret_ids)
{
	size_t count = 0;

	add_with_turns(cs->present, ret_ids, &count);
	for (const struct chat_member *m = cs->members; m != NULL; m = m->of_socket) {
		if (m != cs->present)
			add_with_turns(m, ret_ids, &count);
	}
	return count;
}

void
chat_members_resume(struct chat_socket *cs)
{
	for (const struct chat_member *m = cs->members; m != NULL; m = m->of_socket) {
		for (struct chat_follow *f = m->follows; f != NULL; f = f->next) {
			if (f->listener == 0 && f->audience == NULL)
				attach(f);
		}
	}
}

void
chat_follow_init(struct chats *c)
{
	chat_audiences_init(c);
	c->forget_shared.run = run_forget_shared;
	turns_on_begun(c->api->turns, on_turn_begun, c);
	chat_missed_init(c);
}

void
chat_follow_fini(struct chats *c)
{
	loop_post_cancel(c->api->loop, &c->forget_shared);
	forget_shared(c);
	chat_table_fini(&c->table);
	chat_audiences_fini(c);
}
