/*
 * inherit - LISTEN_FDS and FDSTORE.
 */
#include "master/inherit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "master/listen_refuse.h"

/* Before the names of what is put into the store. */
#define STORE_PREFIX "parley-"

struct inherited {
	int fd; /* -1: taken */
	bool is_foreign;
	unsigned kind;       /* with an address: */
	const char *address; /* as configured; NULL: by what it is bound to */
};

struct inherit {
	struct inherited *v;
	uint32_t count;
};

static bool
is_listening(int fd)
{
	int is_acceptor = 0;
	socklen_t len = sizeof(is_acceptor);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_acceptor, &len) == 0 && is_acceptor;
}

static void
free_names(char **names)
{
	for (char **name = names; name != NULL && *name != NULL; name++)
		free(*name);
	free(names);
}

static struct inherit *
of_bequest(const struct bequest *b)
{
	struct inherit *in = xcalloc(1, sizeof(*in));

	in->v = xcalloc(b->listener_count + 1, sizeof(*in->v));
	for (size_t i = 0; i < b->listener_count; i++) {
		const struct bequest_listener *l = &b->listeners[i];

		in->v[in->count++] = (struct inherited){l->fd, l->is_foreign, l->kind, l->address};
	}
	return in;
}

static struct inherit *
of_systemd(void)
{
	struct inherit *in = xcalloc(1, sizeof(*in));
	char **names = NULL;
	int count = sd_listen_fds_with_names(1, &names);

	if (count <= 0)
		return in;
	in->v = xcalloc((size_t)count, sizeof(*in->v));
	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;
		bool is_ours = strncmp(names[i], STORE_PREFIX, strlen(STORE_PREFIX)) == 0;

		if (is_listening(fd))
			in->v[in->count++] = (struct inherited){fd, !is_ours, 0, NULL};
		else
			close(fd);
	}
	free_names(names);
	return in;
}

struct inherit *
inherit_new(const struct bequest *b)
{
	return b != NULL ? of_bequest(b) : of_systemd();
}

static bool
is_bound_to(int fd, const struct netaddr *wanted)
{
	struct netaddr bound = {.len = sizeof(bound.storage)};
	char bound_text[NETADDR_TEXT_MAX], wanted_text[NETADDR_TEXT_MAX];

	if (getsockname(fd, &bound.sa, &bound.len) != 0)
		return false;
	netaddr_format(&bound, bound_text);
	netaddr_format(wanted, wanted_text);
	return strcmp(bound_text, wanted_text) == 0;
}

static bool
is_wanted(const struct inherited *one, const struct inherit_wish *wish)
{
	if (one->fd < 0)
		return false;
	if (one->address == NULL) /* a new port for each start is what port 0 asks for */
		return (netaddr_is_unix(&wish->address) || netaddr_port(&wish->address) != 0) &&
		       is_bound_to(one->fd, &wish->address);
	return one->kind == wish->kind && strcmp(one->address, wish->text) == 0;
}

int
inherit_take(struct inherit *in, const struct inherit_wish *wish, bool *ret_is_foreign)
{
	for (uint32_t i = 0; i < in->count; i++) {
		int fd = in->v[i].fd;

		if (!is_wanted(&in->v[i], wish))
			continue;
		in->v[i].fd = -1;
		*ret_is_foreign = in->v[i].is_foreign;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		return fd;
	}
	return -1;
}

static void
shut(int fd)
{
	struct netaddr bound = {.len = sizeof(bound.storage)};

	if (getsockname(fd, &bound.sa, &bound.len) == 0 && !netaddr_is_unix(&bound))
		listen_refuse_tcp(fd);
}

static void
remove_path(int fd)
{
	struct netaddr bound = {.len = sizeof(bound.storage)};

	if (getsockname(fd, &bound.sa, &bound.len) == 0 && netaddr_is_unix(&bound))
		unlink(bound.un.sun_path);
}

uint32_t
inherit_shut(const struct inherit *in)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < in->count; i++) {
		if (in->v[i].fd < 0 || in->v[i].is_foreign)
			continue;
		shut(in->v[i].fd);
		n++;
	}
	return n;
}

void
inherit_remove_paths(const struct inherit *in)
{
	for (uint32_t i = 0; i < in->count; i++)
		if (in->v[i].fd >= 0 && !in->v[i].is_foreign)
			remove_path(in->v[i].fd);
}

void
inherit_free(struct inherit **in)
{
	if (*in == NULL)
		return;
	for (uint32_t i = 0; i < (*in)->count; i++) {
		if ((*in)->v[i].fd < 0)
			continue;
		log_warn("inherited socket closed reason=\"its address is not configured\" fd=%d",
		    (*in)->v[i].fd);
		close((*in)->v[i].fd);
	}
	free((*in)->v);
	free(*in);
	*in = NULL;
}

void
inherit_store(int fd, const char *name)
{
	char state[64];

	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=" STORE_PREFIX "%s", name);
	sd_pid_notify_with_fds(0, 0, state, &fd, 1);
}

void
inherit_forget(const char *name)
{
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=" STORE_PREFIX "%s", name);
}
