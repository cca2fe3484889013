/*
 * idle_ws - WebSockets that are opened and say nothing, but answer pings. They are
 * held until the program is told to end; an operation is one that stands.
 *
 * Each user opens one after the other until the goal stands; at a rate, each user
 * opens one.
 */
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/load.h"

enum { PING = 0x89, PONG = 0x8a, MASKED = 0x80, STATUS_AT = 9, STATUS_END = 12 };

struct idler {
	struct load *load;
	struct bufferevent *bev;
	uint64_t began_us;
	bool stands;
};

static void open_next(struct load *load);

static void
stand(struct idler *idler, enum outcome outcome)
{
	struct load *load = idler->load;

	idler->stands = true;
	load_done(load, outcome, idler->began_us, 0);
	if (load->options->rate <= 0)
		open_next(load);
}

/* It was closed, or refused: it is gone. */
static void
fall(struct idler *idler, enum outcome outcome)
{
	struct tally *t = idler->load->tally;

	bufferevent_free(idler->bev);
	idler->bev = NULL;
	t->open--;
	if (!idler->stands) {
		stand(idler, outcome);
		return;
	}
	t->cut++;
	t->failed++;
}

/* False: the head is not whole, or it was no upgrade. */
static bool
take_head(struct idler *idler, struct evbuffer *in)
{
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	uint64_t status = 0;

	if (end.pos < STATUS_END)
		return false;
	const char *head = (const char *)evbuffer_pullup(in, STATUS_END);
	str_to_u64(str_sub(head + STATUS_AT, STATUS_END - STATUS_AT), &status);
	evbuffer_drain(in, (size_t)end.pos + 4);
	if (status != 101) {
		fall(idler, load_outcome((int)status));
		return false;
	}
	stand(idler, LOAD_WHOLE);
	return true;
}

/* An idle server sends pings without a payload; a close frame means that it does not want us. */
static void
take_frames(struct idler *idler, struct evbuffer *in)
{
	static const uint8_t pong[] = {PONG, MASKED, 0, 0, 0, 0};
	uint8_t head[2];

	while (evbuffer_get_length(in) >= sizeof(head)) {
		evbuffer_remove(in, head, sizeof(head));
		if (head[0] != PING || head[1] != 0) {
			fall(idler, LOAD_REFUSED);
			return;
		}
		bufferevent_write(idler->bev, pong, sizeof(pong));
	}
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	struct idler *idler = arg;
	struct evbuffer *in = bufferevent_get_input(bev);

	if (idler->stands || take_head(idler, in))
		take_frames(idler, in);
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if ((what & BEV_EVENT_CONNECTED) == 0)
		fall(arg, LOAD_FAILED);
}

static void
dial(struct idler *idler)
{
	struct conn_target *target = &idler->load->target;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(target->port)};
	int is_address = inet_pton(AF_INET, target->host, &to.sin_addr);
	int fd = conn_open_socket(target);

	check(is_address == 1);
	idler->bev = bufferevent_socket_new(
	    target->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	check(idler->bev != NULL);
	target->tally->open++;
	bufferevent_setcb(idler->bev, on_read, NULL, on_event, idler);
	bufferevent_enable(idler->bev, EV_READ | EV_WRITE);
	bufferevent_socket_connect(idler->bev, (struct sockaddr *)&to, sizeof(to));
}

static void
open_next(struct load *load)
{
	struct buf head = BUF_INIT;

	if (!load_next(load))
		return;
	struct idler *idler = xcalloc(1, sizeof(*idler));
	idler->load = load;
	idler->began_us = clock_mono_us();
	dial(idler);
	buf_printf(&head,
	    "GET /ws/chat HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"
	    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	    load->target.host, load->target.key != NULL ? load->target.key : "");
	bufferevent_write(idler->bev, head.data, head.len);
	buf_fini(&head);
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	open_next(load);
}

const struct scenario scenario_idle_ws = {.name = "idle-ws",
    .help = "WebSockets that answer pings, held until SIGTERM",
    .holds = true,
    .begin = begin};
