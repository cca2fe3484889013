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

struct inherit {
	int *fds; /* -1: taken */
	uint32_t count;
};

static bool
is_listening(int fd)
{
	int is_acceptor = 0;
	socklen_t len = sizeof(is_acceptor);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_acceptor, &len) == 0 && is_acceptor;
}

struct inherit *
inherit_new(void)
{
	struct inherit *in = xcalloc(1, sizeof(*in));
	int count = sd_listen_fds(1);

	if (count <= 0)
		return in;
	in->fds = xcalloc((size_t)count, sizeof(*in->fds));
	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (is_listening(fd))
			in->fds[in->count++] = fd;
		else
			close(fd);
	}
	return in;
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

int
inherit_take(struct inherit *in, const struct netaddr *wanted)
{
	for (uint32_t i = 0; i < in->count; i++) {
		int fd = in->fds[i];

		if (fd < 0 || !is_bound_to(fd, wanted))
			continue;
		in->fds[i] = -1;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		return fd;
	}
	return -1;
}

void
inherit_free(struct inherit **in)
{
	if (*in == NULL)
		return;
	for (uint32_t i = 0; i < (*in)->count; i++) {
		if ((*in)->fds[i] < 0)
			continue;
		log_warn("inherited socket closed reason=\"its address is not configured\" fd=%d",
		    (*in)->fds[i]);
		close((*in)->fds[i]);
	}
	free((*in)->fds);
	free(*in);
	*in = NULL;
}

void
inherit_store(int fd, const char *name)
{
	char state[64];

	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=parley-%s", name);
	sd_pid_notify_with_fds(0, 0, state, &fd, 1);
}
