/*
 * sse - the event-stream format (WHATWG HTML, 9.2) on top of http_stream.
 *
 * Keep-alive comments come from the server's wheel; a stream that has sent something
 * meanwhile is only looked at again when its time is up, so sending an event costs
 * the wheel nothing.
 */
#include "worker/sse/sse.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/metric.h"
#include "worker/http/stream.h"
#include "worker/loop/wheel.h"

struct sse {
	struct http_stream *stream;
	struct wheel *wheel;
	struct loop *loop;
	struct wheel_entry keepalive;
	uint64_t keepalive_ms;
	uint64_t last_sent_ms;
	void (*on_closed)(void *arg);
	void *arg;
};

static void
sse_free(struct sse *s)
{
	wheel_stop(s->wheel, &s->keepalive);
	free(s);
}

static void
on_stream_closed(void *stream_arg)
{
	struct sse *s = stream_arg;
	void (*on_closed)(void *) = s->on_closed;
	void *arg = s->arg;

	sse_free(s);
	if (on_closed != NULL)
		on_closed(arg);
}

static void
on_keepalive(struct wheel_entry *e)
{
	struct sse *s = container_of(e, struct sse, keepalive);
	uint64_t silent_ms = loop_now_ms(s->loop) - s->last_sent_ms;

	if (silent_ms >= s->keepalive_ms) {
		/* While bytes wait for the socket a comment would say nothing. */
		if (http_stream_is_idle(s->stream))
			http_stream_send(s->stream, STR(":\n\n"));
		s->last_sent_ms = loop_now_ms(s->loop);
		silent_ms = 0;
	}
	wheel_set(s->wheel, e, s->keepalive_ms - silent_ms);
}

void
sse_set_keepalive(struct sse *s, uint64_t interval_ms)
{
	s->keepalive_ms = interval_ms;
	wheel_set(s->wheel, &s->keepalive, interval_ms);
}

static void
add_field(struct buf *b, const char *name, struct str value)
{
	if (value.len == 0)
		return;
	buf_add_cstr(b, name);
	buf_add_str(b, value);
	buf_add_char(b, '\n');
}

static void
send_event(struct sse *s, struct str id, struct str event, struct str data)
{
	struct buf b = BUF_INIT;

	check(memchr(data.p != NULL ? data.p : "", '\n', data.len) == NULL);
	add_field(&b, "id: ", id);
	add_field(&b, "event: ", event);
	buf_add_cstr(&b, "data: ");
	buf_add_str(&b, data);
	buf_add_cstr(&b, "\n\n");
	s->last_sent_ms = loop_now_ms(s->loop);
	http_stream_send(s->stream, buf_str(&b));
	buf_fini(&b);
}

bool
sse_send(struct sse *s, struct str id, struct str event, struct str data)
{
	bool has_room = http_stream_has_room(s->stream);

	if (has_room)
		send_event(s, id, event, data);
	return has_room;
}

void
sse_end(struct sse *s)
{
	struct http_stream *stream = s->stream;

	sse_free(s);
	http_stream_end(stream);
}

void
sse_end_with(struct sse *s, struct str event, struct str data)
{
	send_event(s, STR_NONE, event, data);
	sse_end(s);
}

static void
send_retry(struct sse *s, uint64_t retry_ms)
{
	struct buf b = BUF_INIT;

	buf_printf(&b, "retry: %llu\n\n", (unsigned long long)retry_ms);
	http_stream_send(s->stream, buf_str(&b));
	buf_fini(&b);
}

void
sse_end_for_now(struct sse *s, uint32_t come_back_ms)
{
	send_retry(s, come_back_ms);
	sse_end(s);
}

struct sse *
sse_start(struct http_req *req, void (*on_closed)(void *arg), void *arg)
{
	struct sse *s = xcalloc(1, sizeof(*s));
	const struct conf *conf = http_conf(req);

	s->on_closed = on_closed;
	s->arg = arg;
	s->keepalive_ms = conf->sse.keepalive_interval_ms;
	s->keepalive.on_fire = on_keepalive;
	http_add_header(req, "cache-control", "no-cache, no-transform");
	http_add_header(req, "x-accel-buffering", "no"); /* nginx in front would hold events back */
	s->stream = http_stream_start(req, "text/event-stream; charset=utf-8", KIND_SSE,
	    conf->sse.max_queue_bytes, on_stream_closed, s);
	s->loop = http_stream_loop(s->stream);
	s->wheel = http_stream_wheel(s->stream);
	s->last_sent_ms = loop_now_ms(s->loop);
	wheel_set(s->wheel, &s->keepalive, s->keepalive_ms);
	/* The head goes out with the first bytes. */
	if (conf->sse.retry_ms > 0)
		send_retry(s, conf->sse.retry_ms);
	else
		http_stream_send(s->stream, STR(":\n\n"));
	return s;
}
