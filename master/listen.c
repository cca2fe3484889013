/*
 * listen - opening, keeping and handing out listening sockets.
 */
#include "master/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/netaddr.h"
#include "master/listen_refuse.h"
#include "master/listen_unix.h"

enum { SLOT_ALL = UINT32_MAX, BUSY_WAIT_MS = 1500, BUSY_RETRY_MS = 20 };

enum listen_kind { LISTEN_HTTP, LISTEN_TLS, LISTEN_METRICS };

static const char *const kind_names[] = {"http", "tls", "metrics"};

struct listener {
	int fd;
	enum listen_kind kind;
	uint32_t slot;
	unsigned flags;         /* BIND_.. of TCP */
	struct netaddr address; /* the bound one: port 0 has become a port */
	char *text;             /* what the configuration has for it */
	bool is_first;          /* of its address */
	bool is_foreign;        /* of a socket unit */
};

struct listeners {
	struct listener *v;
	uint32_t count;
	uint32_t slots; /* that have sockets */
	int backlog;
	mode_t unix_mode;
};

static void
add(struct listeners *l, enum listen_kind kind, uint32_t slot, int fd, bool is_first)
{
	l->v = xrealloc(l->v, (l->count + 1) * sizeof(*l->v));
	struct listener *one = &l->v[l->count++];

	*one = (struct listener){.fd = fd, .kind = kind, .slot = slot, .is_first = is_first};
	one->address.len = sizeof(one->address.storage);
	check(getsockname(fd, &one->address.sa, &one->address.len) == 0);
}

enum { BIND_REUSEPORT = 1, BIND_BOTH_FAMILIES = 2 };

/* -errno, or a bound socket. */
static int
bind_tcp(const struct netaddr *a, unsigned flags)
{
	int on = 1, is_v6only = !(flags & BIND_BOTH_FAMILIES), err;
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((flags & BIND_REUSEPORT) &&
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0)
		goto fail;
	if (a->sa.sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &is_v6only, sizeof(is_v6only)) != 0)
		goto fail;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted ones inherit it */
	if (bind(fd, &a->sa, a->len) != 0)
		goto fail;
	return fd;
fail:
	err = errno;
	close(fd);
	return -err;
}

static int
listen_tcp(const struct netaddr *a, unsigned flags, int backlog)
{
	int fd = bind_tcp(a, flags | BIND_REUSEPORT);

	if (fd >= 0 && listen(fd, backlog) != 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	return fd;
}

/*
 * SO_REUSEPORT would let us share the port of another server of the same user without
 * a word. A bind without it says whether someone is there.
 */
static int
probe_tcp(const struct netaddr *a, unsigned flags)
{
	int fd = bind_tcp(a, flags);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static const char *
hint(int err)
{
	switch (err) {
	case -EADDRINUSE:
		return "another process listens there";
	case -EACCES:
		return "a port below 1024 needs CAP_NET_BIND_SERVICE or a start as root";
	case -EADDRNOTAVAIL:
		return "the address is not of this machine";
	default:
		return strerror(-err);
	}
}

/* Inherited sockets, one per slot, also more than there are slots: see listeners_of_slot(). */
static uint32_t
adopt(struct listeners *l, const struct inherit_wish *wish, struct inherit *in)
{
	uint32_t taken = 0;
	bool is_foreign;

	for (int fd; (fd = inherit_take(in, wish, &is_foreign)) >= 0;) {
		if (!listen_let_in_tcp(fd)) { /* of a master that died as it stopped */
			close(fd);
			continue;
		}
		add(l, (enum listen_kind)wish->kind, taken, fd, taken == 0);
		taken++;
		l->v[l->count - 1].is_foreign = is_foreign;
	}
	return taken;
}

/*
 * A socket of a socket unit, or of before we gave up root, cannot be joined by more (other user, no
 * SO_REUSEPORT): the slots without a socket accept from those that are there.
 */
static void
share_those(struct listeners *l, uint32_t first, uint32_t there, uint32_t from_slot, uint32_t slots)
{
	for (uint32_t slot = from_slot; slot < slots; slot++) {
		const struct listener from = l->v[first + slot % there];
		int fd = fcntl(from.fd, F_DUPFD_CLOEXEC, 3);

		check(fd >= 0);
		add(l, from.kind, slot, fd, false);
		l->v[l->count - 1].is_foreign = from.is_foreign;
	}
}

static int
open_tcp(struct listeners *l, const struct inherit_wish *wish, unsigned flags, struct inherit *in)
{
	enum listen_kind kind = (enum listen_kind)wish->kind;
	uint32_t first = l->count, taken = adopt(l, wish, in);
	struct netaddr a = taken > 0 ? l->v[first].address : wish->address;
	int err;

	if (taken == 0 && (err = probe_tcp(&a, flags)) < 0)
		return err;
	for (uint32_t slot = taken; slot < l->slots; slot++) {
		int fd = listen_tcp(&a, flags, l->backlog);

		if (fd < 0 && slot == taken && taken > 0) {
			share_those(l, first, taken, taken, l->slots);
			return 0;
		}
		if (fd < 0)
			return fd;
		add(l, kind, slot, fd, slot == 0);
		a = l->v[l->count - 1].address; /* port 0 is a port now */
	}
	for (uint32_t i = first; i < l->count; i++)
		l->v[i].flags = flags;
	return 0;
}

/* One more socket of that address for each slot from l->slots on, or what is there is shared. */
static void
grow_one(struct listeners *l, uint32_t first, uint32_t slots)
{
	const struct listener one = l->v[first];
	uint32_t there = 1, count = l->count;

	while (first + there < l->count && l->v[first + there].kind == one.kind &&
	       !l->v[first + there].is_first)
		there++;
	for (uint32_t slot = there > l->slots ? there : l->slots; slot < slots; slot++) {
		int fd =
		    one.is_foreign ? -EADDRINUSE : listen_tcp(&one.address, one.flags, l->backlog);

		if (fd < 0) {
			share_those(l, first, there, slot, slots);
			break;
		}
		add(l, one.kind, slot, fd, false);
	}
	for (uint32_t i = count; i < l->count; i++)
		l->v[i].text = xstrdup(one.text);
}

void
listeners_grow(struct listeners *l, uint32_t slots)
{
	uint32_t count = l->count;

	if (slots <= l->slots)
		return;
	for (uint32_t i = 0; i < count; i++) {
		if (l->v[i].is_first && l->v[i].slot != SLOT_ALL)
			grow_one(l, i, slots);
	}
	for (uint32_t i = count; i < l->count; i++)
		inherit_store(l->v[i].fd, kind_names[l->v[i].kind]);
	l->slots = slots;
}

/* An inherited one whose path is gone (a private /tmp ends with its service) nobody would find. */
static int
open_unix(struct listeners *l, const struct inherit_wish *wish, struct inherit *in)
{
	const char *path = wish->address.un.sun_path;
	bool is_foreign = false;
	int fd = inherit_take(in, wish, &is_foreign);

	if (fd >= 0 && !is_foreign && access(path, F_OK) != 0) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		fd = listen_unix(path, l->unix_mode, l->backlog);
	if (fd < 0)
		return fd;
	add(l, (enum listen_kind)wish->kind, SLOT_ALL, fd, true);
	l->v[l->count - 1].is_foreign = is_foreign;
	return 0;
}

static int
try_one(struct listeners *l, enum listen_kind kind, const char *text, struct inherit *in)
{
	struct inherit_wish wish = {.text = text, .kind = kind};
	uint32_t first = l->count;
	int err;

	check(netaddr_parse(str_of(text), &wish.address)); /* the config was checked */
	if (netaddr_is_unix(&wish.address))
		err = open_unix(l, &wish, in);
	else
		err = open_tcp(l, &wish, text[0] == ':' ? BIND_BOTH_FAMILIES : 0, in);
	for (uint32_t i = first; i < l->count; i++)
		l->v[i].text = xstrdup(text);
	return err;
}

/* The workers of a master that was killed need a moment to end, and hold its sockets until then. */
static int
open_one(struct listeners *l, enum listen_kind kind, const char *text, struct inherit *in)
{
	uint64_t until_ms = clock_mono_ms() + BUSY_WAIT_MS;
	int err;

	while ((err = try_one(l, kind, text, in)) == -EADDRINUSE && clock_mono_ms() < until_ms)
		poll(NULL, 0, BUSY_RETRY_MS);
	if (err != 0)
		log_error("listen failed address=%s error=\"%s\"", text, hint(err));
	return err;
}

static int
open_all(struct listeners *l, const struct conf *conf, struct inherit *in)
{
	int err = 0;

	for (size_t i = 0; err == 0 && i < conf->listen.n; i++)
		err = open_one(l, LISTEN_HTTP, conf->listen.v[i], in);
	for (size_t i = 0; err == 0 && i < conf->tls.listen.n; i++)
		err = open_one(l, LISTEN_TLS, conf->tls.listen.v[i], in);
	if (err == 0 && conf->metrics.listen[0] != '\0')
		err = open_one(l, LISTEN_METRICS, conf->metrics.listen, in);
	return err;
}

static void
log_addresses(const struct listeners *l)
{
	for (uint32_t i = 0; i < l->count; i++) {
		char text[NETADDR_TEXT_MAX];

		if (!l->v[i].is_first)
			continue;
		netaddr_format(&l->v[i].address, text);
		log_info("listening address=%s kind=%s", text, kind_names[l->v[i].kind]);
	}
}

struct listeners *
listeners_open(const struct conf *conf, uint32_t slots, struct inherit *in)
{
	struct listeners *l = xcalloc(1, sizeof(*l));

	check(slots > 0);
	l->slots = slots;
	l->backlog = (int)conf->backlog;
	l->unix_mode = (mode_t)strtoul(conf->unix_mode, NULL, 8);
	if (open_all(l, conf, in) != 0) {
		listeners_close(&l);
		return NULL;
	}
	log_addresses(l);
	return l;
}

static void
forget_all(void)
{
	for (size_t i = 0; i < ARRAY_LEN(kind_names); i++)
		inherit_forget(kind_names[i]);
}

void
listeners_refuse(const struct listeners *l)
{
	forget_all(); /* first: a shut one is for nobody */
	for (uint32_t i = 0; i < l->count; i++) {
		const struct listener *one = &l->v[i];

		if (one->is_foreign)
			continue;
		if (netaddr_is_unix(&one->address))
			unlink(one->address.un.sun_path);
		else
			listen_refuse_tcp(one->fd);
	}
}

void
listeners_let_in(const struct listeners *l)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (!netaddr_is_unix(&l->v[i].address) && !l->v[i].is_foreign)
			(void)listen_let_in_tcp(l->v[i].fd);
}

void
listeners_bequeath(const struct listeners *l, struct bequest *b)
{
	for (uint32_t i = 0; i < l->count; i++) {
		const struct listener *one = &l->v[i];

		bequest_add_listener(b, one->fd, one->kind, one->is_foreign, one->text);
	}
}

void
listeners_leave(struct listeners **l)
{
	if (*l == NULL)
		return;
	for (uint32_t i = 0; i < (*l)->count; i++) {
		close((*l)->v[i].fd);
		free((*l)->v[i].text);
	}
	free((*l)->v);
	free(*l);
	*l = NULL;
}

void
listeners_close(struct listeners **l)
{
	for (uint32_t i = 0; *l != NULL && i < (*l)->count; i++) {
		const struct listener *one = &(*l)->v[i];

		if (netaddr_is_unix(&one->address) && !one->is_foreign)
			unlink(one->address.un.sun_path);
	}
	listeners_leave(l);
}

uint32_t
listeners_max(const struct listeners *l)
{
	return l->count;
}

uint32_t
listeners_of_slot(
    const struct listeners *l, uint32_t slot, uint32_t workers, struct handoff_listener *out)
{
	uint32_t n = 0;

	check(slot < workers);
	for (uint32_t i = 0; i < l->count; i++) {
		const struct listener *one = &l->v[i];

		if (one->slot != SLOT_ALL && one->slot % workers != slot)
			continue;
		out[n++] = (struct handoff_listener){.fd = one->fd,
		    .is_tls = one->kind == LISTEN_TLS,
		    .is_metrics = one->kind == LISTEN_METRICS,
		    .is_unix = netaddr_is_unix(&one->address),
		    .is_loopback = netaddr_is_loopback(&one->address)};
	}
	return n;
}

bool
listeners_write_addresses(const struct listeners *l, const char *path)
{
	char *temporary = xasprintf("%s.new", path);
	FILE *f = fopen(temporary, "we");
	bool is_written = f != NULL;

	for (uint32_t i = 0; f != NULL && i < l->count; i++) {
		char text[NETADDR_TEXT_MAX];

		netaddr_format(&l->v[i].address, text);
		if (l->v[i].is_first)
			fprintf(f, "%s %s\n", kind_names[l->v[i].kind], text);
	}
	if (f != NULL)
		is_written = fclose(f) == 0 && rename(temporary, path) == 0;
	if (!is_written)
		log_error("addresses not written file=%s error=\"%s\"", path, strerror(errno));
	free(temporary);
	return is_written;
}

void
listeners_store(const struct listeners *l)
{
	/* What the store has from before may be of an address that nobody serves now. */
	forget_all();
	for (uint32_t i = 0; i < l->count; i++)
		inherit_store(l->v[i].fd, kind_names[l->v[i].kind]);
}
