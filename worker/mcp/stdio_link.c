/*
 * stdio_link - carries messages over the pipes of a program: one JSON text in a line each way.
 *
 * Lines that are no messages are skipped, longer ones than mcp.max_message too. What a program
 * says is read so much at a time and in a tenth of a second: one that floods waits, and nobody else
 * does. What it does not read waits up to twice the largest message; then requests to it are
 * refused.
 *
 * A worker that takes a program over from another finds it greeted already, if that one was done
 * with it: it goes on with a legacy one without a second initialize. What that can do the dead one
 * has told; else it is asked for everything. What that one's clients have subscribed to goes on,
 * too, until it is heard of and nobody wants it (news.c, call.c).
 *
 * One that has not said a byte since a request was sent whose time is now up is asked whether it
 * lives. If it says nothing to that either, or reads nothing any more, it hangs: the master starts
 * another. A slow tool of a program that answers otherwise costs nobody else anything.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pipes.h"
#include "worker/mcp/upstream_impl.h"

enum {
	READ_MAX = 64 << 10,     /* bytes in one go */
	WINDOW_MS = 100,         /* .. and in such a time .. */
	WINDOW_MAX = 4 << 20,    /* .. so many .. */
	WINDOW_LINES_MAX = 4000, /* .. in so many lines */
};

#define CHANGES "{\"listChanged\":true}"
#define ANY_CAPABILITIES                                                                           \
	"{\"tools\":" CHANGES ",\"prompts\":" CHANGES                                              \
	",\"resources\":{\"listChanged\":true,\"subscribe\":true},\"logging\":{}}"

struct stdio_link {
	struct upstream *upstream;
	uint64_t program, life; /* life 0: no pipes */
	bool is_spoken;         /* somebody has had its pipes before, in this life .. */
	bool is_greeted;        /* .. and is done with the handshake */
	int in_fd, out_fd;      /* its input, its output; -1: closed */
	struct loop_watch in, out;
	struct buf line, to_write;
	bool skips_line; /* too long */
	bool is_deaf;    /* it has closed its input */
	uint64_t heard;  /* how often it has said something */
	uint64_t life_call, life_heard;
	uint64_t given_ms;
	uint64_t window_ms;
	size_t window_bytes, window_lines;
	struct loop_timer resume, late;
	struct loop_post begin, notified;
};

uint64_t
stdio_link_program(const struct upstream *u)
{
	return u->pipes->program;
}

bool
stdio_link_has_pipes(const struct upstream *u)
{
	return u->pipes->life != 0;
}

bool
stdio_link_is_taken_over(const struct upstream *u)
{
	return u->pipes != NULL && u->pipes->life != 0 && u->pipes->is_spoken;
}

/* ---- what it says ---- */

static void
take_line(struct stdio_link *l, struct str line)
{
	struct str text = str_trim(line);

	if (text.len > 0 && text.p[text.len - 1] == '\r')
		text.len--;
	if (text.len == 0)
		return;
	if (text.p[0] == '{')
		call_take(l->upstream, NULL, text);
	else
		log_debug("mcp line skipped server=%s", l->upstream->conf->name);
}

static void
add_part(struct stdio_link *l, struct str part)
{
	if (l->skips_line)
		return;
	if (l->line.len + part.len <= l->upstream->all->of.conf->mcp.max_message_bytes) {
		buf_add_str(&l->line, part);
		return;
	}
	log_warn("mcp line too long server=%s max=%llu", l->upstream->conf->name,
	    (unsigned long long)l->upstream->all->of.conf->mcp.max_message_bytes);
	buf_fini(&l->line);
	l->skips_line = true;
}

/* False: the pipes went meanwhile. */
static bool
take_bytes(struct stdio_link *l, struct str bytes)
{
	uint64_t life = l->life;
	const char *end;

	while (bytes.len > 0 && (end = memchr(bytes.p, '\n', bytes.len)) != NULL) {
		size_t len = (size_t)(end - bytes.p);
		struct buf whole;

		l->window_lines++;
		add_part(l, str_sub(bytes.p, len));
		bytes = str_sub(end + 1, bytes.len - len - 1);
		whole = l->line;
		l->line = BUF_INIT;
		if (!l->skips_line && whole.len > 0)
			take_line(l, buf_str(&whole));
		l->skips_line = false;
		if (whole.cap <= READ_MAX && l->line.data == NULL) {
			l->line = whole; /* its room, once more */
			buf_clear(&l->line);
		} else {
			buf_fini(&whole);
		}
		if (l->life != life)
			return false;
	}
	add_part(l, bytes);
	return true;
}

/* True: it has said enough for now. */
static bool
is_flooding(struct stdio_link *l, size_t n)
{
	uint64_t now_ms = loop_now_ms(l->upstream->all->of.loop);

	if (now_ms - l->window_ms >= WINDOW_MS) {
		l->window_ms = now_ms;
		l->window_bytes = l->window_lines = 0;
	}
	l->window_bytes += n;
	return l->window_bytes >= WINDOW_MAX || l->window_lines >= WINDOW_LINES_MAX;
}

static void
on_resume(struct loop_timer *timer)
{
	struct stdio_link *l = container_of(timer, struct stdio_link, resume);

	if (l->life != 0)
		loop_watch_change(l->upstream->all->of.loop, &l->out, EPOLLIN);
}

static void
on_output(struct loop_watch *watch, uint32_t events)
{
	struct stdio_link *l = container_of(watch, struct stdio_link, out);
	char room[READ_MAX];
	ssize_t n = read(l->out_fd, room, sizeof(room));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		stdio_link_gone(l->upstream, l->life);
		return;
	}
	l->heard++;
	if (take_bytes(l, str_sub(room, (size_t)n)) && is_flooding(l, (size_t)n)) {
		loop_watch_change(l->upstream->all->of.loop, &l->out, 0);
		loop_timer_set(l->upstream->all->of.loop, &l->resume, WINDOW_MS);
	}
}

/* ---- what it is told ---- */

static void
write_more(struct stdio_link *l)
{
	ssize_t n = 1;

	while (l->to_write.len > 0 && n > 0) {
		n = write(l->in_fd, l->to_write.data, l->to_write.len);
		if (n > 0)
			buf_consume(&l->to_write, (size_t)n);
		else if (n < 0 && errno == EINTR)
			n = 1;
		else if (n < 0 && errno != EAGAIN)
			buf_clear(&l->to_write); /* it is going: its output says so */
	}
	if (l->to_write.len == 0 && l->to_write.cap > READ_MAX)
		buf_fini(&l->to_write);
	loop_watch_change(l->upstream->all->of.loop, &l->in, l->to_write.len > 0 ? EPOLLOUT : 0);
}

static void
on_input(struct loop_watch *watch, uint32_t events)
{
	struct stdio_link *l = container_of(watch, struct stdio_link, in);

	if ((events & EPOLLERR) == 0) {
		write_more(l);
		return;
	}
	l->is_deaf = true; /* its output may still have something to say */
	buf_fini(&l->to_write);
	loop_watch_stop(l->upstream->all->of.loop, watch);
}

/* False: it does not read. */
static bool
write_line(struct stdio_link *l, struct str message)
{
	bool is_idle = l->to_write.len == 0;

	if (l->is_deaf ||
	    l->to_write.len + message.len > 2 * l->upstream->all->of.conf->mcp.max_message_bytes)
		return false;
	buf_add_str(&l->to_write, message);
	buf_add_char(&l->to_write, '\n');
	if (is_idle)
		write_more(l);
	return true;
}

/* ---- the pipes come and go ---- */

static void
close_pipes(struct stdio_link *l)
{
	struct loop *loop = l->upstream->all->of.loop;

	if (l->life == 0)
		return;
	l->life = 0;
	if (!l->is_deaf)
		loop_watch_stop(loop, &l->in);
	loop_watch_stop(loop, &l->out);
	l->is_deaf = false;
	close(l->in_fd);
	close(l->out_fd);
	l->in_fd = l->out_fd = -1;
	loop_timer_stop(loop, &l->resume);
	buf_fini(&l->line);
	buf_fini(&l->to_write);
	l->skips_line = false;
}

static void
on_late(struct loop_timer *timer)
{
	struct stdio_link *l = container_of(timer, struct stdio_link, late);

	if (l->upstream->step == STEP_WAIT)
		upstream_failed(l->upstream, "It was not started, or nobody speaks to it.");
}

static void
run_begin(struct loop_post *post)
{
	struct stdio_link *l = container_of(post, struct stdio_link, begin);
	struct upstream *u = l->upstream;

	if (l->life == 0 || u->step != STEP_WAIT)
		return;
	loop_timer_stop(u->all->of.loop, &l->late);
	if (l->is_greeted && u->verdict != MCP_REVISION_NONE &&
	    !mcp_revision_info(u->verdict)->is_modern) {
		u->revision = u->verdict;
		if (u->capabilities.len == 0)
			buf_add_cstr(&u->capabilities, ANY_CAPABILITIES);
		upstream_greeted(u);
	} else {
		upstream_connected(u);
	}
}

static void
stdio_begin(struct upstream *u)
{
	struct stdio_link *l = u->pipes;

	stdio_want(u->all->stdio, u);
	if (l->life != 0) {
		loop_post(u->all->of.loop, &l->begin);
		return;
	}
	loop_timer_set(u->all->of.loop, &l->late, u->conf->connect_timeout_ms);
	if (strcmp(u->conf->per, "host") == 0)
		errands_ask(u->all->errands); /* another worker may be speaking to it */
}

static void
take_era(struct upstream *u, uint32_t value)
{
	uint32_t era = value & PIPES_ERA_MASK;

	if (era == 0 || era > MCP_REVISION_COUNT)
		return;
	u->verdict = (enum mcp_revision)(era - 1);
	u->verdict_ms = loop_now_ms(u->all->of.loop);
}

void
stdio_link_given(struct upstream *u, uint64_t life, uint32_t value, const int fds[2])
{
	struct stdio_link *l = u->pipes;
	struct loop *loop = u->all->of.loop;

	stdio_link_gone(u, l->life);
	l->life = life;
	l->given_ms = loop_now_ms(loop);
	l->is_spoken = (value & PIPES_IS_SPOKEN) != 0;
	l->is_greeted = (value & PIPES_IS_GREETED) != 0;
	l->in_fd = fds[0];
	l->out_fd = fds[1];
	l->in.on_ready = on_input;
	l->out.on_ready = on_output;
	loop_watch_start(loop, &l->in, l->in_fd, 0);
	loop_watch_start(loop, &l->out, l->out_fd, EPOLLIN);
	take_era(u, value);
	u->unclear_until_ms = 0;
	/* Whoever had them may have died in the midst of a line, and of calls. */
	if (l->is_spoken) {
		write_line(l, STR_NONE);
		questions_unclear(u, call_default_timeout_ms(u));
	}
	upstream_restart(u);
}

void
stdio_link_gone(struct upstream *u, uint64_t life)
{
	struct stdio_link *l = u->pipes;
	bool was_asked = u->step == STEP_PROBE;

	if (l->life == 0 || l->life != life)
		return;
	close_pipes(l);
	/* Some end at a first request that they do not know. */
	if (was_asked) {
		u->verdict = MCP_REVISION_LEGACY;
		u->verdict_ms = loop_now_ms(u->all->of.loop);
		stdio_tell_era(u->all->stdio, u);
	}
	upstream_restart(u);
	calls_fail_sent(u, E_GONE, "The tool server ended meanwhile.");
	errands_announce(u);
}

/* ---- does it hang? ---- */

static void
hangs(struct upstream *u)
{
	struct stdio_link *l = u->pipes;

	log_warn("mcp server hangs server=%s", u->conf->name);
	stdio_ask_restart(u->all->stdio, u, l->life);
	stdio_link_gone(u, l->life);
}

/* At its beginning it may take its time, as one does that is downloaded first. */
static void
stdio_hang(struct upstream *u)
{
	const struct stdio_link *l = u->pipes;

	if (l->life != 0 &&
	    loop_now_ms(u->all->of.loop) - l->given_ms >= u->conf->connect_timeout_ms)
		hangs(u);
}

static void
on_sign_of_life(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;
	struct stdio_link *l = u->pipes;

	l->life_call = 0;
	if (l->heard == l->life_heard && (a->err == E_TIMEOUT || (a->err == E_BUSY && l->is_deaf)))
		hangs(u);
}

static void
ask_for_life(struct upstream *u)
{
	static const struct mcp_handlers handlers = {.on_answer = on_sign_of_life};
	struct stdio_link *l = u->pipes;

	if (l->life_call != 0 || u->step != STEP_READY)
		return;
	l->life_heard = l->heard;
	l->life_call = call_ask(u, upstream_is_modern(u) ? "server/discover" : "ping", STR_NONE,
	    (uint32_t)u->conf->probe_timeout_ms, &handlers, u);
}

/* ---- the transport ---- */

static void
stdio_send(struct call *c)
{
	struct upstream *u = c->upstream;
	struct buf message = BUF_INIT;

	if (u->pipes->life == 0) {
		errands_send(c);
		return;
	}
	c->heard = u->pipes->heard;
	call_format(c, &message);
	if (!write_line(u->pipes, buf_str(&message))) {
		call_fail_soon(c, E_BUSY);
		if (u->pipes->is_deaf && !c->is_ours)
			ask_for_life(u);
	}
	buf_fini(&message);
}

void
stdio_link_stop(struct upstream *u, struct str id)
{
	struct buf message = BUF_INIT, params = BUF_INIT;

	buf_printf(&params, "{\"requestId\":%.*s,\"reason\":\"nobody waits for it any more\"}",
	    (int)id.len, id.p);
	jsonrpc_add_notification(&message, "notifications/cancelled", buf_str(&params));
	write_line(u->pipes, buf_str(&message));
	buf_fini(&message);
	buf_fini(&params);
}

static void
stdio_abandon(struct call *c)
{
	struct upstream *u = c->upstream;

	if (c->is_relayed) {
		errands_abandon(c);
		return;
	}
	if (u->pipes->life == 0 || strcmp(c->method, "initialize") == 0 ||
	    strcmp(c->method, "server/discover") == 0)
		return;
	stdio_link_stop(u, str_of(c->id));
	if (c->is_late && !c->is_ours && c->heard == u->pipes->heard)
		ask_for_life(u);
}

static void
run_notified(struct loop_post *post)
{
	upstream_notified(container_of(post, struct stdio_link, notified)->upstream);
}

static void
stdio_notify(struct upstream *u, struct str message, bool is_awaited)
{
	if (u->pipes->life == 0)
		return;
	write_line(u->pipes, message);
	if (is_awaited)
		loop_post(u->all->of.loop, &u->pipes->notified);
}

static void
stdio_end(struct upstream *u)
{
	loop_timer_stop(u->all->of.loop, &u->pipes->late);
	loop_post_cancel(u->all->of.loop, &u->pipes->begin);
	loop_post_cancel(u->all->of.loop, &u->pipes->notified);
}

/* Others may have given us calls that we have not read: they hear that we speak to it no more. */
static void
stdio_link_leave(struct upstream *u)
{
	struct stdio_link *l = u->pipes;

	stdio_end(u);
	mcp_cancel(u->all, l->life_call);
	l->life_call = 0;
	if (l->life == 0)
		return;
	close_pipes(l);
	errands_leave(u);
}

static void
stdio_fini(struct upstream *u)
{
	struct stdio_link *l = u->pipes;

	close_pipes(l);
	u->pipes = NULL;
	free(l);
}

void
stdio_link_new(struct upstream *u)
{
	struct stdio_link *l = xcalloc(1, sizeof(*l));

	l->upstream = u;
	l->program = pipes_program(u->conf);
	l->in_fd = l->out_fd = -1;
	l->resume.on_fire = on_resume;
	l->late.on_fire = on_late;
	l->begin.run = run_begin;
	l->notified.run = run_notified;
	u->pipes = l;
}

const struct transport stdio_transport = {
    .begin = stdio_begin,
    .send = stdio_send,
    .abandon = stdio_abandon,
    .notify = stdio_notify,
    .end = stdio_end,
    .leave = stdio_link_leave,
    .hang = stdio_hang,
    .fini = stdio_fini,
};
