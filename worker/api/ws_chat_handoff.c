/*
 * ws_chat_handoff - the idle sockets of a worker that drains go to its successor: descriptor
 * and record over a socket between the two; the client notices nothing.
 *
 *   giver: open --SOCKET, with the descriptor--> given --TAKEN--> let go
 *                                                  +----REFUSED, or the successor is gone--> open
 * again, and told to go
 *
 * The giver reads nothing from the moment it sends a socket, and keeps its descriptor until it is
 * told that the other has it: whoever dies in between, one of the two has it, at worst closed.
 *
 * Who drains in its turn takes and passes on, and stays for it as long as its predecessor does.
 *
 * A turn that begins meanwhile must be told. Both hear of it, in any order. So the giver passes on
 * what it hears, behind the sockets that it has sent before; and the taker remembers what it has
 * heard lately, and looks for the sessions of each socket that comes. What it has heard itself
 * it does not take from the giver.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/metric.h"
#include "worker/api/ws_chat_impl.h"

enum {
	HAND_VERSION = 1,    /* of what follows: another release may be at the other end */
	UNDER_WAY_MAX = 128, /* descriptors in flight count against a limit of the system */
	MEMBERS_MAX = 1024,
	HEARD_MAX = 4096, /* turns; of BEFORE_MS, and as long as sockets are on their way */
	BEFORE_MS = 5000, /* the giver may have heard of a turn so much later than we: no worker's
			     loop is silent for longer */
	PACKETS_PER_WAKE = 256,
};

enum hand_kind { HAND_SOCKET = 1, HAND_TAKEN, HAND_REFUSED, HAND_TURN };

struct hand_head {
	uint32_t version, kind;
	uint64_t socket; /* the giver's handle */
};

struct hand_member {
	uint8_t session[CHAT_ID_BITS], last_turn[CHAT_ID_BITS];
};

struct hand_socket {
	struct hand_head head;
	uint8_t key_hash[SHA256_LEN];
	uint64_t sent_ms; /* of the monotonic clock, which all processes of the host share */
	uint64_t originator;
	struct limiter_key rate_own;
	uint32_t member_count, present; /* which of them; UINT32_MAX: none */
};

struct hand_turn {
	struct hand_head head;
	uint8_t session[CHAT_ID_BITS], turn[CHAT_ID_BITS];
};

enum { PACKET_MAX = sizeof(struct hand_socket) + MEMBERS_MAX * sizeof(struct hand_member) };

/* One end. */
struct chat_hand {
	struct list node; /* the taker's */
	struct chats *chats;
	struct loop_watch watch;
	struct list out; /* struct note: what did not fit */
	struct loop_post end;
	uint32_t under_way; /* given, not answered; being taken: their keys are looked up */
	uint32_t done, refused;
	bool is_ended;
};

struct note {
	struct list node;
	size_t len;
	uint8_t bytes[];
};

struct chat_heard {
	uint64_t at_ms;
	uint8_t session[CHAT_ID_BITS], turn[CHAT_ID_BITS];
};

/* ---- packets ---- */

/* 0, or -errno. */
static int
send_packet(int to, const void *bytes, size_t len, int fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} rights = {.bytes = {0}};
	struct iovec iov = {(void *)(uintptr_t)bytes, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		rights.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
		    .cmsg_level = SOL_SOCKET,
		    .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&rights.head), &fd, sizeof(fd));
		msg.msg_control = &rights;
		msg.msg_controllen = sizeof(rights);
	}
	do
		n = sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* In order; what does not fit waits. */
static void
say(struct chat_hand *h, const void *bytes, size_t len)
{
	if (h->is_ended || (list_empty(&h->out) && send_packet(h->watch.fd, bytes, len, -1) == 0))
		return;
	struct note *note = xmalloc(sizeof(*note) + len);
	note->len = len;
	memcpy(note->bytes, bytes, len);
	list_add_tail(&h->out, &note->node);
	loop_watch_change(h->chats->api->loop, &h->watch, EPOLLIN | EPOLLOUT);
}

static void
say_notes(struct chat_hand *h)
{
	struct note *note;

	while ((note = list_first(&h->out, struct note, node)) != NULL) {
		if (send_packet(h->watch.fd, note->bytes, note->len, -1) == -EAGAIN)
			return;
		list_del(&note->node);
		free(note);
	}
	loop_watch_change(h->chats->api->loop, &h->watch, EPOLLIN);
}

static void
answer(struct chat_hand *h, uint64_t socket, enum hand_kind kind)
{
	struct hand_head head = {HAND_VERSION, kind, socket};

	say(h, &head, sizeof(head));
}

/* ---- what is given ---- */

static size_t
write_record(const struct chat_socket *cs, uint8_t *packet)
{
	struct hand_socket s = {.head = {HAND_VERSION, HAND_SOCKET, cs->handle},
	    .sent_ms = loop_now_ms(cs->chats->api->loop),
	    .originator = cs->originator,
	    .rate_own = cs->rate_own,
	    .present = UINT32_MAX};
	uint8_t *at = packet + sizeof(s);

	memcpy(s.key_hash, cs->key->hash, sizeof(s.key_hash));
	for (const struct chat_member *m = cs->members; m != NULL; m = m->of_socket) {
		struct hand_member hm;

		memcpy(hm.session, m->session, sizeof(hm.session));
		memcpy(hm.last_turn, m->last_turn, sizeof(hm.last_turn));
		memcpy(at, &hm, sizeof(hm));
		at += sizeof(hm);
		if (m == cs->present)
			s.present = s.member_count;
		s.member_count++;
	}
	memcpy(packet, &s, sizeof(s));
	return (size_t)(at - packet);
}

static bool
may_go(const struct chat_socket *cs)
{
	return cs->follow_count == 0 && cs->ask_count == 0 && !cs->is_opening_session &&
	       !cs->has_waiting && cs->key->void_reason == NULL && cs->member_count <= MEMBERS_MAX;
}

enum chat_given
chat_hand_give(struct chat_socket *cs)
{
	struct chat_hand *h = cs->chats->giving;
	uint8_t packet[PACKET_MAX];

	if (h == NULL || h->is_ended || !may_go(cs))
		return CHAT_NOT_GIVEN;
	if (h->under_way >= UNDER_WAY_MAX || !list_empty(&h->out)) {
		ws_socket_part(&cs->ws);
		return CHAT_GIVE_LATER;
	}
	int fd = ws_socket_give(&cs->ws);
	if (fd < 0)
		return fd == WS_GIVE_LATER ? CHAT_GIVE_WHEN_IDLE : CHAT_NOT_GIVEN;
	int err = send_packet(h->watch.fd, packet, write_record(cs, packet), fd);
	if (err != 0) {
		ws_socket_take_back(&cs->ws);
		return err == -EAGAIN ? CHAT_GIVE_LATER : CHAT_NOT_GIVEN;
	}
	h->under_way++;
	return CHAT_GIVEN;
}

static void
on_answer(struct chat_hand *h, const struct hand_head *head)
{
	struct chats *c = h->chats;
	struct chat_socket *cs = idmap_get(c->sockets, head->socket);

	if (cs == NULL || cs->ws.state != WS_SOCKET_GIVEN)
		return;
	check(h->under_way > 0);
	h->under_way--;
	if (head->kind == HAND_TAKEN) {
		h->done++;
		ws_socket_let_go(&cs->ws);
	} else {
		h->refused++;
		ws_socket_take_back(&cs->ws);
		chat_socket_say_goodbye(cs);
	}
	chats_drain_on(c);
}

/* The successor is gone: what it has not answered is ours again. */
static void
take_all_back(struct chat_hand *h)
{
	struct chats *c = h->chats;
	uint32_t cursor = 0;

	for (struct chat_socket *cs; (cs = idmap_next(c->sockets, &cursor)) != NULL;) {
		if (cs->ws.state == WS_SOCKET_GIVEN)
			ws_socket_take_back(&cs->ws);
	}
	log_info("websockets not given any more given=%u refused=%u came_back=%u", h->done,
	    h->refused, h->under_way);
	h->under_way = 0;
	c->is_giving = false;
	c->is_giving_wanted = true;
	chats_drain_on(c);
}

/* ---- what is taken ---- */

struct taking {
	struct chat_hand *hand;
	int fd;
	struct hand_socket *record; /* with its members behind it */
};

static const struct hand_member *
member_of(const struct hand_socket *s, uint32_t i)
{
	return (const struct hand_member *)(const void *)(s + 1) + i;
}

static bool
has_told_all_since(const struct chat_heard *e, const struct chat_member *m)
{
	return memcmp(e->turn, m->last_turn, sizeof(e->turn)) == 0;
}

/* Turns of its session that have begun while it was on its way: those after the last that it was
 * told, the oldest first. */
static void
tell_heard(struct chats *c, struct chat_member *m, uint64_t sent_ms)
{
	const struct chat_heard *found[8];
	size_t n = 0;

	for (uint64_t i = c->heard_count; i > 0 && i + HEARD_MAX > c->heard_count; i--) {
		const struct chat_heard *e = &c->heard[(i - 1) % HEARD_MAX];

		if (e->at_ms + BEFORE_MS < sent_ms || n == ARRAY_LEN(found))
			break;
		if (memcmp(e->session, m->session, sizeof(e->session)) != 0)
			continue;
		if (has_told_all_since(e, m))
			break;
		found[n++] = e;
	}
	while (n > 0) {
		struct id turn_id = id_of_bits("turn", found[--n]->turn);
		struct chat_follow_start start = {.turn_id = &turn_id, .is_streamed = true};

		chat_follow(m, &start);
	}
}

static bool
adopt(const struct taking *t, const struct principal *who)
{
	const struct hand_socket *s = t->record;
	struct chat_socket *cs = chat_socket_adopt(t->hand->chats, t->fd, who);

	if (cs == NULL)
		return false;
	cs->originator = s->originator;
	cs->rate_own = s->rate_own;
	for (uint32_t i = 0; i < s->member_count; i++) {
		struct id session_id = id_of_bits("sess", member_of(s, i)->session);
		struct chat_member *m = chat_member_new(cs, &session_id);

		memcpy(m->last_turn, member_of(s, i)->last_turn, sizeof(m->last_turn));
		if (i == s->present)
			cs->present = m;
	}
	for (struct chat_member *m = cs->members; m != NULL; m = m->of_socket)
		tell_heard(t->hand->chats, m, s->sent_ms);
	metric_add(METRIC_WEBSOCKET_TAKEN, 0, 0, 1);
	chat_socket_consider_drain(cs);
	return true;
}

/* A worker that drains itself takes what it can pass on to its own successor. */
static bool
can_pass_on(const struct chats *c)
{
	return c->giving != NULL && !c->giving->is_ended;
}

bool
chats_are_idle(const struct chats *c)
{
	return !can_pass_on(c) || list_empty(&c->takings);
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct taking *t = arg;
	struct chat_hand *h = t->hand;
	bool may_take = !h->chats->is_draining || can_pass_on(h->chats);
	bool is_taken = err == 0 && may_take && adopt(t, who);

	if (!is_taken)
		close(t->fd);
	h->done += is_taken;
	answer(h, t->record->head.socket, is_taken ? HAND_TAKEN : HAND_REFUSED);
	free(t->record);
	free(t);
	h->under_way--;
	if (h->is_ended && h->under_way == 0)
		loop_post(h->chats->api->loop, &h->end);
}

static bool
is_whole(const struct hand_socket *s, size_t len)
{
	return len >= sizeof(*s) && s->member_count <= MEMBERS_MAX &&
	       len == sizeof(*s) + s->member_count * sizeof(struct hand_member);
}

static void
on_socket(struct chat_hand *h, const struct hand_socket *s, size_t len, int fd)
{
	/* No descriptor: this process has no room for one. */
	if (fd < 0 || s->head.version != HAND_VERSION || !is_whole(s, len)) {
		if (fd >= 0)
			close(fd);
		answer(h, s->head.socket, HAND_REFUSED);
		return;
	}
	struct taking *t = xmalloc(sizeof(*t));
	*t = (struct taking){h, fd, xmalloc(len)};
	memcpy(t->record, s, len);
	h->under_way++;
	keys_check_hash(h->chats->api->keys, t->record->key_hash, on_principal, t);
}

static bool
has_heard(const struct chats *c, const uint8_t *turn)
{
	for (uint64_t i = c->heard_count; i > 0 && i + HEARD_MAX > c->heard_count; i--) {
		if (memcmp(c->heard[(i - 1) % HEARD_MAX].turn, turn, CHAT_ID_BITS) == 0)
			return true;
	}
	return false;
}

static void
on_turn(struct chat_hand *h, const struct hand_turn *t)
{
	struct id session_id = id_of_bits("sess", t->session);
	struct id turn_id = id_of_bits("turn", t->turn);

	if (!has_heard(h->chats, t->turn))
		chat_turn_begun(h->chats, &session_id, &turn_id, 0);
}

void
chat_hand_turn_begun(struct chats *c, const struct id *session_id, const struct id *turn_id)
{
	struct hand_turn t = {.head = {HAND_VERSION, HAND_TURN, 0}};

	id_bits(session_id, t.session);
	id_bits(turn_id, t.turn);
	if (c->giving != NULL && c->is_draining)
		say(c->giving, &t, sizeof(t));
	if (c->heard == NULL)
		return;
	struct chat_heard *e = &c->heard[c->heard_count++ % HEARD_MAX];
	e->at_ms = loop_now_ms(c->api->loop);
	memcpy(e->session, t.session, sizeof(e->session));
	memcpy(e->turn, t.turn, sizeof(e->turn));
}

/* ---- the socket between ---- */

static void
hand_free(struct chat_hand *h)
{
	struct chats *c = h->chats;

	list_for_safe (node, &h->out) {
		list_del(node);
		free(list_entry(node, struct note, node));
	}
	loop_post_cancel(c->api->loop, &h->end);
	list_del(&h->node);
	if (c->giving == h)
		c->giving = NULL;
	loop_watch_stop(c->api->loop, &h->watch);
	close(h->watch.fd);
	free(h);
}

/* Not below a callback of its own. */
static void
run_end(struct loop_post *post)
{
	struct chat_hand *h = container_of(post, struct chat_hand, end);

	if (h->chats->giving == h)
		take_all_back(h);
	else if (h->done > 0)
		log_info("websockets taken count=%u", h->done);
	hand_free(h);
}

static void
end(struct chat_hand *h)
{
	h->is_ended = true;
	loop_watch_stop(h->chats->api->loop, &h->watch);
	if (h->chats->giving == h || h->under_way == 0)
		loop_post(h->chats->api->loop, &h->end);
}

static int
fd_of(struct msghdr *msg)
{
	struct cmsghdr *head = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (head != NULL && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}

static void
take_packet(struct chat_hand *h, const void *packet, size_t len, int fd)
{
	const struct hand_head *head = packet;

	if (len < sizeof(*head)) {
		if (fd >= 0)
			close(fd);
	} else if (head->kind == HAND_SOCKET) {
		on_socket(h, packet, len, fd);
	} else if (head->kind == HAND_TURN && len == sizeof(struct hand_turn)) {
		on_turn(h, packet);
	} else if (head->kind == HAND_TAKEN || head->kind == HAND_REFUSED) {
		on_answer(h, head);
	}
}

/* False: there is none now. */
static bool
recv_packet(struct chat_hand *h)
{
	_Alignas(16) static uint8_t packet[PACKET_MAX]; /* one loop, one packet */
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} rights;
	struct iovec iov = {packet, sizeof(packet)};
	struct msghdr msg = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = &rights,
	    .msg_controllen = sizeof(rights)};
	ssize_t n = recvmsg(h->watch.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		end(h);
		return false;
	}
	take_packet(h, packet, (size_t)n, fd_of(&msg));
	return !h->is_ended;
}

static void
on_ready(struct loop_watch *w, uint32_t events)
{
	struct chat_hand *h = container_of(w, struct chat_hand, watch);

	if (events & EPOLLOUT)
		say_notes(h);
	for (int i = 0; i < PACKETS_PER_WAKE && recv_packet(h); i++)
		;
}

static struct chat_hand *
hand_new(struct chats *c, int fd)
{
	struct chat_hand *h = xcalloc(1, sizeof(*h));

	h->chats = c;
	list_init(&h->out);
	h->end.run = run_end;
	h->watch.on_ready = on_ready;
	loop_watch_start(c->api->loop, &h->watch, fd, EPOLLIN);
	return h;
}

void
chats_give(struct chats *c, int fd)
{
	if (c->giving != NULL || c->is_draining) {
		close(fd);
		return;
	}
	c->giving = hand_new(c, fd);
}

void
chats_take(struct chats *c, int fd)
{
	struct chat_hand *h = hand_new(c, fd);

	list_add_tail(&c->takings, &h->node);
}

/* ---- life ---- */

void
chat_hands_init(struct chats *c)
{
	list_init(&c->takings);
	c->heard = xcalloc(HEARD_MAX, sizeof(*c->heard));
}

void
chat_hands_fini(struct chats *c)
{
	if (c->giving != NULL) {
		if (c->giving->done > 0)
			log_info("websockets given count=%u refused=%u", c->giving->done,
			    c->giving->refused);
		hand_free(c->giving);
	}
	list_for_safe (node, &c->takings)
		hand_free(list_entry(node, struct chat_hand, node));
	free(c->heard);
}
