/*
 * bus - peers, their connections, and the step that serves them.
 *
 * Whoever is found gone (the end of either connection, a refused connect, a newer
 * inhabitant of its row) goes into the list `leaving`; the end of a step reads
 * what it still had sent, closes its connections and tells the handler, once.
 */
#include "common/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bus_link.h"
#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"

enum {
	EVENTS_PER_STEP = 64,
	PACKETS_PER_LINK = 64, /* per step: the others get their turn */
	STRANGERS_MAX = 64,    /* accepted, no hello yet */
	NOTES_PER_STEP = 256,
	LAST_WORDS_MAX = 4096, /* packets read of one that is gone; a socket holds some hundreds */
};

enum link_kind { LINK_LISTENER, LINK_WAKE, LINK_IN, LINK_OUT };

struct link {
	enum link_kind kind;
	int fd;            /* -1: closed, to be freed at the end of the step */
	struct peer *peer; /* IN before its hello: NULL */
	struct bus_reassembly reassembly;
	struct list node; /* in bus->links, or in bus->closed */
};

struct peer {
	struct shm_who who;
	struct link *in, *out;
	struct bus_queue queue;
	bool is_writable_awaited;
	bool is_leaving;
	struct list node; /* in bus->leaving until its turn comes */
};

struct note { /* a message to oneself */
	struct list node;
	size_t len;
	uint16_t type;
	char bytes[];
};

struct bus {
	struct shm *shm;
	struct shm_who me;
	struct bus_handlers handlers;
	void *arg;
	int epoll_fd;
	struct link listener, wake;
	bool is_finishing;       /* finish_leaving() is under way */
	bool is_listener_paused; /* no descriptors left: until the next step */
	struct list links, closed;
	unsigned strangers;
	struct peer **peers;    /* by row; NULL: nothing to do with that row's inhabitant */
	uint32_t *gone_numbers; /* by row: the newest number that is known to be gone */
	struct list leaving;
	struct list notes;
	size_t note_bytes;
	char packet[BUS_PACKET_MAX];
};

static void
watch(struct bus *bus, struct link *link, uint32_t events, int op)
{
	struct epoll_event ev = {.events = events, .data.ptr = link};

	check(epoll_ctl(bus->epoll_fd, op, link->fd, &ev) == 0);
}

static struct link *
link_new(struct bus *bus, enum link_kind kind, int fd, struct peer *peer, uint32_t events)
{
	struct link *link = xcalloc(1, sizeof(*link));

	link->kind = kind;
	link->fd = fd;
	link->peer = peer;
	list_add_tail(&bus->links, &link->node);
	watch(bus, link, events, EPOLL_CTL_ADD);
	return link;
}

/* Its memory stays until the end of the step: the events at hand may name it. */
static void
link_close(struct bus *bus, struct link *link)
{
	if (link == NULL)
		return;
	if (link->kind == LINK_IN && link->peer == NULL)
		bus->strangers--;
	close(link->fd);
	link->fd = -1;
	bus_reassembly_fini(&link->reassembly);
	list_del(&link->node);
	list_add_tail(&bus->closed, &link->node);
}

static void
wake(struct bus *bus)
{
	uint64_t one = 1;

	check(write(bus->wake.fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
}

static void
peer_leaves(struct bus *bus, struct peer *peer)
{
	if (peer->is_leaving)
		return;
	peer->is_leaving = true;
	list_add_tail(&bus->leaving, &peer->node);
	wake(bus);
}

/* NULL: it was gone before. One that is leaving is still found: its last words may be under way. */
static struct peer *
peer_get(struct bus *bus, struct shm_who who)
{
	struct peer *peer = bus->peers[who.row];

	if (peer != NULL && peer->who.number == who.number)
		return peer;
	if (who.number <= bus->gone_numbers[who.row] || (peer && peer->who.number > who.number))
		return NULL;
	if (peer != NULL)
		peer_leaves(bus, peer);
	peer = xcalloc(1, sizeof(*peer));
	peer->who = who;
	bus_queue_init(&peer->queue);
	bus->peers[who.row] = peer;
	return peer;
}

static void
await_writable(struct bus *bus, struct peer *peer)
{
	bool is_wanted = !list_empty(&peer->queue.entries);

	if (is_wanted == peer->is_writable_awaited)
		return;
	peer->is_writable_awaited = is_wanted;
	watch(bus, peer->out, EPOLLRDHUP | (is_wanted ? EPOLLOUT : 0u), EPOLL_CTL_MOD);
}

static int
peer_connect(struct bus *bus, struct peer *peer)
{
	struct shm_row_info info;

	if (peer->out != NULL)
		return 0;
	if (!shm_row_get(bus->shm, peer->who.row, &info) || info.who.number != peer->who.number ||
	    info.state == SHM_DEAD)
		return E_GONE;
	int fd = bus_link_connect(&info, bus->me);
	if (fd < 0)
		return fd;
	peer->out = link_new(bus, LINK_OUT, fd, peer, EPOLLRDHUP);
	return 0;
}

static int
send_to_self(struct bus *bus, uint16_t type, struct str payload)
{
	if (bus->note_bytes + payload.len > BUS_QUEUE_MAX)
		return E_BUSY;
	struct note *note = xmalloc(sizeof(*note) + payload.len);
	*note = (struct note){.len = payload.len, .type = type};
	if (payload.len > 0)
		memcpy(note->bytes, payload.p, payload.len);
	list_add_tail(&bus->notes, &note->node);
	bus->note_bytes += sizeof(*note) + payload.len;
	wake(bus);
	return 0;
}

/* One that is alive, but has not come so far as to listen, cannot be talked to yet. */
static bool
has_name(const struct bus *bus, struct shm_who who)
{
	struct shm_row_info info;

	return shm_row_get(bus->shm, who.row, &info) && info.who.number == who.number &&
	       info.state != SHM_DEAD && info.bus_name_len > 0;
}

static int
send_to_peer(struct bus *bus, struct shm_who to, uint16_t type, struct str payload)
{
	struct peer *peer = bus->peers[to.row];

	if ((peer == NULL || peer->who.number != to.number) && !has_name(bus, to))
		return E_GONE;
	if ((peer = peer_get(bus, to)) == NULL)
		return E_GONE;
	if (peer->queue.bytes + payload.len > BUS_QUEUE_MAX)
		return E_BUSY;
	int err = peer->is_leaving ? E_GONE : peer_connect(bus, peer);
	if (err == 0)
		err = bus_queue_send(&peer->queue, peer->out->fd, type, payload);
	if (err == E_GONE)
		peer_leaves(bus, peer);
	else if (err == 0)
		await_writable(bus, peer);
	return err;
}

int
bus_send(struct bus *bus, struct shm_who to, uint16_t type, struct str payload)
{
	int err;

	if (payload.len > BUS_MESSAGE_MAX)
		return E_PAYLOAD_TOO_LARGE;
	if (to.row >= shm_rows(bus->shm) || to.number == 0)
		return E_GONE;
	if (to.row == bus->me.row && to.number == bus->me.number)
		err = send_to_self(bus, type, payload);
	else
		err = send_to_peer(bus, to, type, payload);
	if (err != 0)
		metric_add(
		    METRIC_BUS_DROPPED, err == E_BUSY ? DROP_QUEUE_FULL : DROP_PEER_GONE, 0, 1);
	return err;
}

int
bus_broadcast(struct bus *bus, uint16_t type, struct str payload, bus_on_busy *on_busy, void *arg)
{
	struct shm_row_info info;
	int n = 0;

	for (uint32_t row = 0; row < shm_rows_used(bus->shm); row++) {
		if (row == bus->me.row || !shm_row_get(bus->shm, row, &info) ||
		    (info.state != SHM_READY && info.state != SHM_DRAINING))
			continue;
		int err = bus_send(bus, info.who, type, payload);

		n += err == 0;
		if (err == E_BUSY && on_busy != NULL)
			on_busy(arg, info.who);
	}
	return n;
}

static void finish_leaving(struct bus *);

static void
on_hello(struct bus *bus, struct link *link, size_t len)
{
	struct shm_row_info info;
	struct peer *peer = NULL;
	struct shm_who who;

	/* Its word is held against what the kernel says of its process. */
	if (bus_link_parse_hello(bus->packet, len, &who) && who.row < shm_rows(bus->shm) &&
	    shm_row_get(bus->shm, who.row, &info) && info.who.number == who.number &&
	    bus_link_is_trusted(link->fd, info.pid))
		peer = peer_get(bus, who);
	if (peer == NULL || peer->in != NULL) {
		link_close(bus, link);
		return;
	}
	bus->strangers--;
	link->peer = peer;
	peer->in = link;
	/* If it follows another in its row, that one's last words and end come first. */
	finish_leaving(bus);
}

static void
on_packet(struct bus *bus, struct link *link, size_t len)
{
	struct peer *peer = link->peer;
	struct str payload;
	uint16_t type;
	int n = bus_reassembly_add(&link->reassembly, bus->packet, len, &type, &payload);

	if (n < 0) {
		log_error("bus message not understood from=%u/%u", peer->who.row, peer->who.number);
		link_close(bus, link);
		peer->in = NULL;
		peer_leaves(bus, peer);
	} else if (n > 0) {
		bus->handlers.on_message(bus->arg, peer->who, type, payload);
		bus_reassembly_fini(&link->reassembly);
	}
}

/* False: there is no more to read, now or for ever. */
static bool
read_packet(struct bus *bus, struct link *link)
{
	size_t len;
	int n = bus_link_recv(link->fd, bus->packet, &len);

	if (n == 1 && link->peer == NULL)
		on_hello(bus, link, len);
	else if (n == 1)
		on_packet(bus, link, len);
	else if (n < 0 && link->peer != NULL)
		peer_leaves(bus, link->peer);
	else if (n < 0)
		link_close(bus, link);
	return n == 1 && link->fd >= 0;
}

static void
on_in_ready(struct bus *bus, struct link *link)
{
	for (int i = 0; i < PACKETS_PER_LINK && read_packet(bus, link); i++)
		;
}

static void
on_out_ready(struct bus *bus, struct link *link, uint32_t events)
{
	if ((events & ~(uint32_t)EPOLLOUT) != 0 ||
	    bus_queue_flush(&link->peer->queue, link->fd) != 0)
		peer_leaves(bus, link->peer);
	else
		await_writable(bus, link->peer);
}

static void
on_listener_ready(struct bus *bus)
{
	while (bus->strangers < STRANGERS_MAX) {
		int fd = accept4(bus->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && errno == EINTR)
			continue;
		if (fd < 0 && errno != EAGAIN) {
			log_error("bus does not accept errno=%d", errno);
			bus->is_listener_paused = true;
			watch(bus, &bus->listener, 0, EPOLL_CTL_MOD);
		}
		if (fd < 0)
			return;
		if (!bus_link_is_known(bus->shm, fd)) {
			close(fd);
			continue;
		}
		bus->strangers++;
		link_new(bus, LINK_IN, fd, NULL, EPOLLIN);
	}
}

/* Only those that were there when it began: who answers himself does not stay here for ever. */
static void
deliver_notes(struct bus *bus)
{
	struct list batch = LIST_INIT(batch);
	uint64_t count;

	if (read(bus->wake.fd, &count, sizeof(count)) < 0)
		check(errno == EAGAIN);
	for (int i = 0; i < NOTES_PER_STEP && !list_empty(&bus->notes); i++) {
		struct list *node = bus->notes.next;

		list_del(node);
		list_add_tail(&batch, node);
	}
	if (!list_empty(&bus->notes))
		wake(bus);
	list_for_safe (node, &batch) {
		struct note *note = list_entry(node, struct note, node);

		list_del(node);
		bus->note_bytes -= sizeof(*note) + note->len;
		bus->handlers.on_message(
		    bus->arg, bus->me, note->type, str_sub(note->bytes, note->len));
		free(note);
	}
}

static void
peer_free(struct bus *bus, struct peer *peer)
{
	uint32_t row = peer->who.row;

	if (bus->peers[row] == peer)
		bus->peers[row] = NULL;
	if (bus->gone_numbers[row] < peer->who.number)
		bus->gone_numbers[row] = peer->who.number;
	link_close(bus, peer->in);
	link_close(bus, peer->out);
	bus_queue_fini(&peer->queue);
	list_del(&peer->node);
	free(peer);
}

/* Whose end is seen may have connected a moment before. */
static void
greet_strangers(struct bus *bus)
{
	on_listener_ready(bus);
	list_for_safe (node, &bus->links) {
		struct link *link = list_entry(node, struct link, node);

		if (link->kind == LINK_IN && link->peer == NULL)
			read_packet(bus, link);
	}
}

static void
finish_leaving(struct bus *bus)
{
	struct peer *peer;

	/* To greet may bring us here again, in the midst of a walk over links that must not be
	 * closed: who leaves meanwhile has his turn below. */
	if (bus->is_finishing)
		return;
	bus->is_finishing = true;
	while ((peer = list_first(&bus->leaving, struct peer, node)) != NULL) {
		struct shm_who who = peer->who;

		list_del(&peer->node);
		if (peer->in == NULL)
			greet_strangers(bus);

		/* What it said before it died has arrived. */
		for (int i = 0; i < LAST_WORDS_MAX && peer->in != NULL; i++) {
			if (!read_packet(bus, peer->in))
				break;
		}
		peer_free(bus, peer);
		if (bus->handlers.on_peer_gone != NULL)
			bus->handlers.on_peer_gone(bus->arg, who);
	}
	bus->is_finishing = false;
}

static void
free_closed(struct bus *bus)
{
	list_for_safe (node, &bus->closed) {
		list_del(node);
		free(list_entry(node, struct link, node));
	}
}

void
bus_step(struct bus *bus)
{
	struct epoll_event events[EVENTS_PER_STEP];
	int n = epoll_wait(bus->epoll_fd, events, EVENTS_PER_STEP, 0);

	if (bus->is_listener_paused) {
		bus->is_listener_paused = false;
		watch(bus, &bus->listener, EPOLLIN, EPOLL_CTL_MOD);
	}
	for (int i = 0; i < n; i++) {
		struct link *link = events[i].data.ptr;

		if (link->fd < 0)
			continue;
		switch (link->kind) {
		case LINK_LISTENER:
			on_listener_ready(bus);
			break;
		case LINK_WAKE:
			deliver_notes(bus);
			break;
		case LINK_IN:
			on_in_ready(bus, link);
			break;
		case LINK_OUT:
			on_out_ready(bus, link, events[i].events);
			break;
		}
	}
	finish_leaving(bus);
	free_closed(bus);
}

int
bus_fd(const struct bus *bus)
{
	return bus->epoll_fd;
}

struct bus *
bus_new(struct shm *shm, struct shm_who me, const struct bus_handlers *handlers, void *arg)
{
	char name[SHM_BUS_NAME_MAX];
	size_t name_len;
	int listen_fd = bus_link_listen(name, &name_len);

	check(handlers->on_message != NULL);
	if (listen_fd < 0) {
		errno = -listen_fd;
		return NULL;
	}
	struct bus *bus = xcalloc(1, sizeof(*bus));
	*bus = (struct bus){.shm = shm, .me = me, .handlers = *handlers, .arg = arg};
	list_init(&bus->links);
	list_init(&bus->closed);
	list_init(&bus->leaving);
	list_init(&bus->notes);
	bus->peers = xcalloc(shm_rows(shm), sizeof(*bus->peers));
	bus->gone_numbers = xcalloc(shm_rows(shm), sizeof(*bus->gone_numbers));
	bus->listener = (struct link){.kind = LINK_LISTENER, .fd = listen_fd};
	bus->wake = (struct link){.kind = LINK_WAKE, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	bus->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (bus->wake.fd < 0 || bus->epoll_fd < 0) {
		bus_free(&bus);
		return NULL;
	}
	watch(bus, &bus->listener, EPOLLIN, EPOLL_CTL_ADD);
	watch(bus, &bus->wake, EPOLLIN, EPOLL_CTL_ADD);
	shm_row_set_pid(shm, me, (int)getpid());
	shm_row_set_bus_name(shm, me, name, name_len);
	return bus;
}

static void
close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void
bus_free(struct bus **bus_at)
{
	struct bus *bus = *bus_at;

	if (bus == NULL)
		return;
	shm_row_set_bus_name(bus->shm, bus->me, "", 0);
	for (uint32_t row = 0; row < shm_rows(bus->shm); row++) {
		if (bus->peers[row] != NULL)
			peer_leaves(bus, bus->peers[row]);
	}
	list_for_safe (node, &bus->leaving)
		peer_free(bus, list_entry(node, struct peer, node));
	list_for_safe (node, &bus->links)
		link_close(bus, list_entry(node, struct link, node));
	free_closed(bus);
	list_for_safe (node, &bus->notes) {
		list_del(node);
		free(list_entry(node, struct note, node));
	}
	close_fd(bus->listener.fd);
	close_fd(bus->wake.fd);
	close_fd(bus->epoll_fd);
	free(bus->peers);
	free(bus->gone_numbers);
	free(bus);
	*bus_at = NULL;
}
