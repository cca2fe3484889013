/* redis_link - see redis_link.h. */
#include "worker/backplane/redis_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "worker/backplane/redis_io.h"
#include "worker/loop/resolve.h"

enum { READ_BYTES = 32 << 10, READS_MAX = 16, ARGS_MAX = 32 };

enum link_state { LINK_REST, LINK_RESOLVE, LINK_CONNECT, LINK_GREET, LINK_UP };

struct redis_link {
	struct loop *loop;
	struct redis_link_conf conf;
	const struct redis_link_handlers *handlers;
	void *arg;
	enum link_state state;
	uint32_t life; /* grows with each end: what runs through a callback looks again */
	struct resolve *resolve;
	struct netaddr addrs[RESOLVE_MAX];
	size_t addr_count, addr_next;
	struct redis_io *io;
	redisReader *reader;
	struct loop_watch watch;
	struct loop_timer deadline; /* until it is up */
	struct loop_timer tick;     /* then */
	struct loop_post flush, read_on;
	struct buf out;
	struct command_queue queue;
	uint64_t asked_ms; /* when the last command was sent */
	uint64_t greeted_ms;
	unsigned greetings, acks;
	char reason[200];
};

static bool
is_subscriber(const struct redis_link *l)
{
	return l->conf.channels[0] != NULL;
}

/* ---- the end of a life ---- */

static void
close_all(struct redis_link *l)
{
	resolve_cancel(&l->resolve);
	if (l->io != NULL)
		loop_watch_stop(l->loop, &l->watch);
	redis_io_close(&l->io);
	if (l->reader != NULL)
		redisReaderFree(l->reader);
	l->reader = NULL;
	loop_timer_stop(l->loop, &l->deadline);
	loop_timer_stop(l->loop, &l->tick);
	loop_post_cancel(l->loop, &l->flush);
	loop_post_cancel(l->loop, &l->read_on);
	buf_fini(&l->out);
}

/* Those that waited first: their owner then finds nothing under way. They stay in the queue until
 * their turn, where those before them may make them forgotten; nothing is added in REST. */
static void
tell_all(struct redis_link *l)
{
	struct command c;

	while (command_queue_pop(&l->queue, &c))
		if (c.on_reply != NULL)
			c.on_reply(c.arg, NULL);
	command_queue_fini(&l->queue);
}

void
redis_link_fail(struct redis_link *l, const char *reason)
{
	if (l->state == LINK_REST)
		return;
	if (reason != l->reason)
		snprintf(l->reason, sizeof(l->reason), "%s", reason);
	l->state = LINK_REST;
	l->life++;
	close_all(l);
	tell_all(l);
	l->handlers->on_down(l->arg, l->reason);
}

static void
fail_io(struct redis_link *l)
{
	snprintf(l->reason, sizeof(l->reason), "%s", redis_io_error(l->io));
	redis_link_fail(l, l->reason);
}

/* ---- out ---- */

static void
want(struct redis_link *l, bool wants_write)
{
	uint32_t events = EPOLLIN | (wants_write ? EPOLLOUT : 0);

	if (l->watch.events != events)
		loop_watch_change(l->loop, &l->watch, events);
}

static void
flush(struct redis_link *l)
{
	while (l->state >= LINK_GREET && l->out.len > 0) {
		ssize_t n = redis_io_write(l->io, l->out.data, l->out.len);

		if (n == REDIS_IO_END) {
			fail_io(l);
			return;
		}
		if (n < 0) {
			want(l, n == REDIS_IO_WRITE);
			return;
		}
		buf_consume(&l->out, (size_t)n);
	}
	if (l->state >= LINK_GREET)
		want(l, false);
	if (l->out.cap > READ_BYTES)
		buf_fini(&l->out);
}

static void
run_flush(struct loop_post *post)
{
	flush(container_of(post, struct redis_link, flush));
}

static void
format(struct buf *out, size_t argc, const struct str *argv)
{
	buf_printf(out, "*%zu\r\n", argc);
	for (size_t i = 0; i < argc; i++) {
		buf_printf(out, "$%zu\r\n", argv[i].len);
		buf_add_str(out, argv[i]);
		buf_add(out, "\r\n", 2);
	}
}

static bool
send_command(struct redis_link *l, size_t argc, const struct str *argv, command_on_reply *on_reply,
    void *arg)
{
	size_t bytes = l->out.len;

	check(argc > 0 && argc <= ARGS_MAX);
	for (size_t i = 0; i < argc; i++)
		bytes += argv[i].len;
	/* One alone always: a turn's last event may be as long. */
	if (l->out.len > 0 && bytes > l->conf.max_bytes)
		return false;
	l->asked_ms = loop_now_ms(l->loop);
	if (!command_queue_push(&l->queue, (struct command){on_reply, arg, l->asked_ms}))
		return false;
	format(&l->out, argc, argv);
	loop_post(l->loop, &l->flush);
	return true;
}

bool
redis_link_command(struct redis_link *l, size_t argc, const struct str *argv,
    command_on_reply *on_reply, void *arg)
{
	return l->state == LINK_UP && send_command(l, argc, argv, on_reply, arg);
}

/* ---- greeting ---- */

static void
enter_up(struct redis_link *l)
{
	l->state = LINK_UP;
	loop_timer_stop(l->loop, &l->deadline);
	loop_timer_set(l->loop, &l->tick, l->conf.command_timeout_ms / 4 + 1);
	l->handlers->on_up(l->arg);
}

static void
consider_up(struct redis_link *l)
{
	if (l->state != LINK_GREET || l->greetings > 0)
		return;
	if (is_subscriber(l) && l->acks < ARRAY_LEN(l->conf.channels))
		return;
	/* It would be given up over the next command, and go up and down for ever. */
	if (loop_now_ms(l->loop) - l->greeted_ms > l->conf.command_timeout_ms)
		redis_link_fail(l, "greeting not answered in backplane.command_timeout");
	else
		enter_up(l);
}

static void
on_greeting(void *arg, const redisReply *reply)
{
	struct redis_link *l = arg;

	if (reply == NULL || l->state != LINK_GREET)
		return;
	if (reply->type == REDIS_REPLY_ERROR) {
		snprintf(l->reason, sizeof(l->reason), "%s", reply->str);
		redis_link_fail(l, l->reason);
		return;
	}
	l->greetings--;
	consider_up(l);
}

/* A replica takes no writes. Who may not ask has to believe. */
static void
on_role(void *arg, const redisReply *reply)
{
	struct redis_link *l = arg;

	if (reply == NULL || l->state != LINK_GREET)
		return;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
	    reply->element[0]->type == REDIS_REPLY_STRING &&
	    strcmp(reply->element[0]->str, "master") != 0) {
		redis_link_fail(l, "this Redis is a replica");
		return;
	}
	l->greetings--;
	consider_up(l);
}

static void
greet_with(struct redis_link *l, size_t argc, const struct str *argv, command_on_reply *on_reply)
{
	check(send_command(l, argc, argv, on_reply, l));
	l->greetings++;
}

static void
greet(struct redis_link *l)
{
	const struct redis_url *u = l->conf.url;
	char db[16];

	l->state = LINK_GREET;
	l->greetings = l->acks = 0;
	l->greeted_ms = loop_now_ms(l->loop);
	if (u->password[0] != '\0' && u->user[0] != '\0')
		greet_with(l, 3, (struct str[]){STR("AUTH"), str_of(u->user), str_of(u->password)},
		    on_greeting);
	else if (u->password[0] != '\0')
		greet_with(l, 2, (struct str[]){STR("AUTH"), str_of(u->password)}, on_greeting);
	if (is_subscriber(l)) {
		const struct str argv[] = {
		    STR("SUBSCRIBE"), str_of(l->conf.channels[0]), str_of(l->conf.channels[1])};

		/* Answered by messages, one for each channel. */
		format(&l->out, ARRAY_LEN(argv), argv);
		loop_post(l->loop, &l->flush);
		return;
	}
	if (u->db != 0) {
		snprintf(db, sizeof(db), "%u", u->db);
		greet_with(l, 2, (struct str[]){STR("SELECT"), str_of(db)}, on_greeting);
	}
	greet_with(l, 1, (struct str[]){STR("ROLE")}, on_role);
}

/* ---- in ---- */

static bool
is_text(const redisReply *r, const char *text)
{
	return r->type == REDIS_REPLY_STRING && strcasecmp(r->str, text) == 0;
}

static void
answer_first(struct redis_link *l, const redisReply *reply)
{
	struct command c;
	uint32_t life = l->life;

	if (l->queue.count == 0) {
		/* To a subscription; or nobody has asked. */
		snprintf(l->reason, sizeof(l->reason), "%s",
		    reply->type == REDIS_REPLY_ERROR ? reply->str : "reply to no command");
		redis_link_fail(l, l->reason);
		return;
	}
	if (reply->type == REDIS_REPLY_ERROR && l->state == LINK_UP)
		l->handlers->on_error(l->arg, reply->str);
	if (life != l->life)
		return; /* it was the end, and who asked has heard that */
	if (command_queue_pop(&l->queue, &c) && c.on_reply != NULL)
		c.on_reply(c.arg, reply);
}

/* Of a subscriber. */
static void
take_push(struct redis_link *l, const redisReply *r)
{
	if (r->elements == 3 && is_text(r->element[0], "message") &&
	    r->element[2]->type == REDIS_REPLY_STRING) {
		if (l->state == LINK_UP)
			l->handlers->on_message(
			    l->arg, str_sub(r->element[2]->str, (size_t)r->element[2]->len));
	} else if (r->elements == 3 && is_text(r->element[0], "subscribe")) {
		l->acks++;
		consider_up(l);
	} else {
		answer_first(l, r); /* pong */
	}
}

/* False: the life has ended. */
static bool
take_replies(struct redis_link *l)
{
	uint32_t life = l->life;
	void *at = NULL;

	while (redisReaderGetReply(l->reader, &at) == REDIS_OK) {
		redisReply *reply = at;

		if (reply == NULL)
			return true;
		if (is_subscriber(l) && reply->type == REDIS_REPLY_ARRAY)
			take_push(l, reply);
		else
			answer_first(l, reply);
		freeReplyObject(reply);
		if (life != l->life)
			return false;
	}
	redis_link_fail(l, "reply not understood");
	return false;
}

/* True: read as far as there is something. */
static void
read_all(struct redis_link *l)
{
	char bytes[READ_BYTES];

	for (int i = 0; i < READS_MAX; i++) {
		ssize_t n = redis_io_read(l->io, bytes, sizeof(bytes));

		if (n == REDIS_IO_END) {
			fail_io(l);
			return;
		}
		if (n < 0) {
			if (n == REDIS_IO_WRITE)
				want(l, true);
			return;
		}
		if (redisReaderFeed(l->reader, bytes, (size_t)n) != REDIS_OK) {
			redis_link_fail(l, "reply not understood");
			return;
		}
		if (!take_replies(l))
			return;
	}
	loop_post(l->loop, &l->read_on); /* what TLS has read already makes nothing ready */
}

static void
run_read_on(struct loop_post *post)
{
	read_all(container_of(post, struct redis_link, read_on));
}

/* ---- time ---- */

static void
on_tick(struct loop_timer *timer)
{
	struct redis_link *l = container_of(timer, struct redis_link, tick);
	uint64_t limit_ms = l->conf.command_timeout_ms, now = loop_now_ms(l->loop);
	uint32_t life = l->life;

	/* When it was us who had no time the answer is here already. */
	if (command_queue_age_ms(&l->queue, now) > limit_ms) {
		read_all(l);
		if (life != l->life)
			return;
		if (command_queue_age_ms(&l->queue, now) > limit_ms) {
			redis_link_fail(l, "no answer in backplane.command_timeout");
			return;
		}
	}
	if (l->queue.count == 0 && now - l->asked_ms >= limit_ms / 2)
		send_command(l, 1, (struct str[]){STR("PING")}, NULL, NULL);
	loop_timer_set(l->loop, timer, limit_ms / 4 + 1);
}

static void
on_deadline(struct loop_timer *timer)
{
	redis_link_fail(container_of(timer, struct redis_link, deadline),
	    "not connected in backplane.connect_timeout");
}

/* ---- connecting ---- */

static void try_next(struct redis_link *l);

static void
go_on_connecting(struct redis_link *l)
{
	int rc = redis_io_connect(l->io);

	if (rc == 0) {
		want(l, false);
		greet(l);
	} else if (rc != REDIS_IO_END) {
		want(l, rc == REDIS_IO_WRITE);
	} else {
		snprintf(l->reason, sizeof(l->reason), "%s", redis_io_error(l->io));
		loop_watch_stop(l->loop, &l->watch);
		redis_io_close(&l->io);
		try_next(l);
	}
}

static void
on_ready(struct loop_watch *watch, uint32_t events)
{
	struct redis_link *l = container_of(watch, struct redis_link, watch);
	uint32_t life = l->life;

	if (l->state == LINK_CONNECT) {
		go_on_connecting(l);
		return;
	}
	if (events & EPOLLOUT)
		flush(l);
	if (life == l->life && events & ~(uint32_t)EPOLLOUT)
		read_all(l);
}

/* The next address; after the last it has failed with the last one's reason. */
static void
try_next(struct redis_link *l)
{
	while (l->addr_next < l->addr_count) {
		l->io = redis_io_open(&l->addrs[l->addr_next++], l->conf.tls, l->conf.url->host);
		if (l->io != NULL) {
			l->watch.on_ready = on_ready;
			loop_watch_start(
			    l->loop, &l->watch, redis_io_fd(l->io), EPOLLIN | EPOLLOUT);
			return;
		}
		snprintf(l->reason, sizeof(l->reason), "connect: %s", strerror(errno));
	}
	redis_link_fail(l, l->reason);
}

static void
connect_to(struct redis_link *l, const struct netaddr *addrs, size_t count)
{
	memcpy(l->addrs, addrs, count * sizeof(*addrs));
	l->addr_count = count;
	l->addr_next = 0;
	l->state = LINK_CONNECT;
	l->reader = redisReaderCreate();
	check(l->reader != NULL);
	l->reader->maxbuf = READ_BYTES;
	try_next(l);
}

static void
on_resolved(void *arg, const struct netaddr *addrs, size_t count, const char *error)
{
	struct redis_link *l = arg;

	l->resolve = NULL;
	if (count > 0)
		connect_to(l, addrs, count);
	else
		redis_link_fail(l, error);
}

void
redis_link_start(struct redis_link *l)
{
	const struct redis_url *u = l->conf.url;

	check(l->state == LINK_REST);
	l->state = LINK_RESOLVE;
	loop_timer_set(l->loop, &l->deadline, l->conf.connect_timeout_ms);
	if (u->path[0] == '\0') {
		l->resolve = resolve_start(l->loop, u->host, u->port, on_resolved, l);
		return;
	}
	struct netaddr addr = {.len = sizeof(addr.un)};
	addr.un.sun_family = AF_UNIX;
	snprintf(addr.un.sun_path, sizeof(addr.un.sun_path), "%s", u->path);
	connect_to(l, &addr, 1);
}

/* ---- life ---- */

void
redis_link_settle(struct redis_link *l, uint64_t limit_ms)
{
	uint64_t end_ms = clock_mono_ms() + limit_ms;

	check(limit_ms < 1000);
	command_queue_forget_all(&l->queue);
	flush(l);
	while (l->state == LINK_UP && l->queue.count > 0) {
		struct pollfd fd = {.fd = redis_io_fd(l->io),
		    .events = (short)(POLLIN | (l->out.len > 0 ? POLLOUT : 0))};
		uint64_t now = clock_mono_ms();

		if (now >= end_ms)
			return;
		struct timespec left = {0, (long)(end_ms - now) * 1000000};
		if (ppoll(&fd, 1, &left, NULL) <= 0)
			return;
		flush(l);
		if (l->state == LINK_UP)
			read_all(l);
	}
}

bool
redis_link_is_up(const struct redis_link *l)
{
	return l->state == LINK_UP;
}

void
redis_link_forget(struct redis_link *l, const void *arg)
{
	command_queue_forget(&l->queue, arg);
}

struct redis_link *
redis_link_new(struct loop *loop, const struct redis_link_conf *conf,
    const struct redis_link_handlers *handlers, void *arg)
{
	struct redis_link *l = xcalloc(1, sizeof(*l));

	l->loop = loop;
	l->conf = *conf;
	l->handlers = handlers;
	l->arg = arg;
	l->queue.max = conf->max_commands;
	l->deadline.on_fire = on_deadline;
	l->tick.on_fire = on_tick;
	l->flush.run = run_flush;
	l->read_on.run = run_read_on;
	return l;
}

void
redis_link_free(struct redis_link **ref)
{
	struct redis_link *l = *ref;

	if (l == NULL)
		return;
	*ref = NULL;
	close_all(l);
	command_queue_fini(&l->queue);
	free(l);
}
