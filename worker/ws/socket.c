/*
 * socket - between the codec, the queue and the upgraded connection.
 */
#include "worker/ws/socket.h"

#include "common/check.h"
#include "common/log.h"
#include "common/metric.h"

enum { HIGH_PART = 2 }; /* of the queue's limit: what is above is slow */

static const struct conf *
conf_of(const struct ws_socket *w)
{
	return http_server_conf(w->http.server);
}

static void
set_timer(struct ws_socket *w, uint64_t delay_ms)
{
	wheel_set(http_server_wheel(w->http.server), &w->timer, delay_ms);
}

static void
stop_timer(struct ws_socket *w)
{
	wheel_stop(http_server_wheel(w->http.server), &w->timer);
}

/* Of its own when nothing is pinged. */
static uint64_t
look_interval_ms(const struct ws_socket *w)
{
	const struct conf_websocket *conf = &conf_of(w)->websocket;

	if (conf->ping_interval_ms > 0)
		return conf->ping_interval_ms;
	return w->begun_s != 0 ? conf->message_timeout_ms : 0;
}

static void
await_silence(struct ws_socket *w)
{
	uint64_t interval_ms = look_interval_ms(w);

	w->is_pinged = w->is_spared = false;
	if (interval_ms > 0)
		set_timer(w, interval_ms);
	else
		stop_timer(w);
}

static uint16_t
now_s(const struct ws_socket *w)
{
	return (uint16_t)(loop_now_ms(http_server_loop(w->http.server)) / 1000);
}

/* After bytes are taken: is a message in progress, and is it a new one? */
static void
note_partial(struct ws_socket *w, bool is_new)
{
	if (ws_message_is_idle(&w->in)) {
		w->begun_s = 0;
	} else if (is_new || w->begun_s == 0) {
		uint16_t s = (uint16_t)(now_s(w) + 1);

		w->begun_s = s != 0 ? s : 1;
		if (conf_of(w)->websocket.ping_interval_ms == 0 && !w->is_slow)
			await_silence(w);
	}
}

/* ---- out ---- */

static struct ws_queue_limits
limits_of(const struct ws_socket *w)
{
	uint64_t max = conf_of(w)->websocket.max_queue_bytes;

	/* low: it goes on when all is out, which on_written sees by itself. */
	return (struct ws_queue_limits){
	    .low_bytes = 0, .high_bytes = max / HIGH_PART, .bytes_max = max};
}

/* All is out that ever will be: the peer has the last word, by closing. */
static void
end_output(struct ws_socket *w)
{
	http_socket_end_output(&w->http);
}

static void
flush(struct ws_socket *w)
{
	struct iovec iov[HTTP_SOCKET_IOV_MAX];

	if (w->in_flight > 0 || w->state == WS_SOCKET_OPENING || http_socket_is_closing(&w->http))
		return;
	size_t n = ws_queue_peek(&w->out, iov, ARRAY_LEN(iov));
	if (n == 0) {
		if (w->state == WS_SOCKET_ENDING)
			end_output(w);
		return;
	}
	for (size_t i = 0; i < n; i++)
		w->in_flight += (uint32_t)iov[i].iov_len;
	http_socket_write(&w->http, iov, n);
}

/* Without a limit: control frames, of which there is at most one for each that came in. */
static void
push_frame(struct ws_socket *w, const uint8_t *frame, size_t len)
{
	struct ws_out *out = ws_out_of_frame(frame, len);

	ws_queue_push(&w->out, out, NULL);
	ws_out_unref(&out);
	flush(w);
}

/* What an idle socket costs is mostly this: the kernel has it at once, without a queue. */
static void
send_ping(struct ws_socket *w)
{
	uint8_t ping[WS_CONTROL_FRAME_MAX];
	size_t len = ws_control_frame(WS_OP_PING, STR_NONE, ping), out = 0;

	if (w->in_flight == 0 && ws_queue_is_empty(&w->out))
		out = http_socket_write_now(&w->http, ping, len);
	if (out < len)
		push_frame(w, ping + out, len - out);
}

static void
become_slow(struct ws_socket *w)
{
	if (w->is_slow)
		return;
	w->is_slow = true;
	http_socket_pause(&w->http);
	set_timer(w, conf_of(w)->http.send_timeout_ms);
}

static void
become_quick(struct ws_socket *w)
{
	w->is_slow = false;
	note_partial(w, true); /* nothing of it was read meanwhile */
	if (!w->is_parting)
		http_socket_resume(&w->http);
	await_silence(w);
	w->handlers->on_writable(w);
}

static void
on_written(struct http_socket *http)
{
	struct ws_socket *w = container_of(http, struct ws_socket, http);
	struct ws_queue_limits limits = limits_of(w);

	ws_queue_consume(&w->out, w->in_flight, &limits);
	w->in_flight = 0;
	if (w->state == WS_SOCKET_OPEN && ws_queue_is_empty(&w->out)) {
		if (w->is_slow)
			become_quick(w);
		else if (w->is_parting)
			w->handlers->on_writable(w);
	}
	flush(w);
}

enum ws_sent
ws_socket_send(struct ws_socket *w, struct ws_out *out)
{
	struct ws_queue_limits limits = limits_of(w);

	if (!ws_socket_is_open(w))
		return WS_GONE;
	switch (ws_queue_push(&w->out, out, &limits)) {
	case WS_QUEUE_TAKEN:
		flush(w);
		return w->is_slow ? WS_SLOW : WS_SENT;
	case WS_QUEUE_HIGH:
		become_slow(w);
		flush(w);
		return WS_SLOW;
	case WS_QUEUE_FULL:
		break;
	}
	become_slow(w);
	return WS_FULL;
}

/* ---- the end ---- */

static void
enter_ending(struct ws_socket *w)
{
	w->state = WS_SOCKET_ENDING;
	http_socket_resume(&w->http); /* to see the peer's end */
	set_timer(w, conf_of(w)->websocket.close_timeout_ms);
	flush(w);
}

void
ws_socket_close(struct ws_socket *w, uint16_t code, struct str reason)
{
	uint8_t frame[WS_CONTROL_FRAME_MAX];

	if (!ws_socket_is_open(w))
		return;
	size_t len = ws_message_close(&w->in, code, reason, frame);
	check(len > 0);
	w->state = WS_SOCKET_CLOSING;
	if (w->is_slow) /* it would come too late behind all that waits */
		ws_queue_cut(&w->out, w->in_flight);
	http_socket_resume(&w->http);
	set_timer(w, conf_of(w)->websocket.close_timeout_ms);
	push_frame(w, frame, len);
}

static bool
is_stuck(const struct ws_socket *w)
{
	uint16_t age_s = (uint16_t)(now_s(w) - w->begun_s);

	/* Above the half of it: not yet. */
	return w->begun_s != 0 && age_s < UINT16_MAX / 2 &&
	       age_s * 1000ULL >= conf_of(w)->websocket.message_timeout_ms;
}

static void
on_timer(struct wheel_entry *e)
{
	struct ws_socket *w = container_of(e, struct ws_socket, timer);
	const struct conf *conf = conf_of(w);
	uint64_t silent_ms = loop_now_ms(http_server_loop(w->http.server)) - w->heard_ms;

	if (w->state != WS_SOCKET_OPEN) {
		http_socket_close(&w->http);
	} else if (w->is_slow) {
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_SLOW, 0, 1);
		ws_socket_close(w, WS_CLOSE_POLICY, STR("reader is too slow"));
	} else if (is_stuck(w)) {
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_PARTIAL, 0, 1);
		ws_socket_close(w, WS_CLOSE_POLICY, STR("message not whole in time"));
	} else if (w->is_pinged && !w->is_spared && http_socket_has_unread(&w->http)) {
		/* The worker is late, not the peer. Once: it may be unread because we read nothing.
		 */
		w->is_spared = true;
		set_timer(w, conf->websocket.ping_timeout_ms);
	} else if (w->is_pinged) {
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_PONG, 0, 1);
		http_socket_close(&w->http);
	} else if (conf->websocket.ping_interval_ms == 0) {
		await_silence(w);
	} else if (silent_ms < conf->websocket.ping_interval_ms) {
		set_timer(w, conf->websocket.ping_interval_ms - silent_ms);
	} else {
		w->is_pinged = true;
		set_timer(w, conf->websocket.ping_timeout_ms);
		send_ping(w);
	}
}

/* ---- in ---- */

/* Who floods pings without reading is slow, too, and gets no more pongs meanwhile. */
static void
answer_ping(struct ws_socket *w, const struct ws_event *ev)
{
	if (ev->reply_len == 0 || w->is_slow)
		return;
	push_frame(w, ev->reply, ev->reply_len);
	if (w->state == WS_SOCKET_OPEN && ws_queue_cost(&w->out) > limits_of(w).high_bytes)
		become_slow(w);
}

static void
take_event(struct ws_socket *w, enum ws_event_kind kind, const struct ws_event *ev)
{
	switch (kind) {
	case WS_TEXT:
	case WS_BINARY:
		if (w->state == WS_SOCKET_OPEN)
			w->handlers->on_message(w, ev->data, kind == WS_TEXT);
		break;
	case WS_PING:
		answer_ping(w, ev);
		break;
	case WS_FAIL:
		log_debug("websocket failed code=%u reason=%s", ev->code, log_quote(ev->data).s);
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_FAULT, 0, 1);
		enter_ending(w);
		break;
	case WS_CLOSE:
		enter_ending(w);
		break;
	case WS_PONG:
	case WS_MORE:
		break;
	}
}

static void /* NOLINTNEXTLINE(readability-non-const-parameter): they are unmasked in place */
on_read(struct http_socket *http, uint8_t *bytes, size_t len)
{
	struct ws_socket *w = container_of(http, struct ws_socket, http);
	struct ws_limits limits = {
	    conf_of(w)->websocket.max_message_bytes, conf_of(w)->websocket.max_message_bytes};
	struct ws_bytes in = {bytes, len};
	enum ws_event_kind kind;
	struct ws_event ev;
	bool is_new = false;

	w->heard_ms = loop_now_ms(http_server_loop(http->server));
	if (w->is_pinged && w->state == WS_SOCKET_OPEN)
		await_silence(w);
	w->is_taking = true;
	do {
		kind = ws_message_next(&w->in, &limits, &in, &ev);
		if (ev.reply_len > 0 && kind != WS_PING)
			push_frame(w, ev.reply, ev.reply_len);
		take_event(w, kind, &ev);
		is_new |= kind == WS_TEXT || kind == WS_BINARY;
	} while (kind != WS_MORE && !http_socket_is_closing(http));
	w->is_taking = false;
	if (w->state == WS_SOCKET_OPEN && !http_socket_is_closing(http))
		note_partial(w, is_new);
}

/* ---- life ---- */

static void
on_open(struct http_socket *http)
{
	struct ws_socket *w = container_of(http, struct ws_socket, http);

	w->state = WS_SOCKET_OPEN;
	w->heard_ms = loop_now_ms(http_server_loop(http->server));
	await_silence(w);
	w->handlers->on_open(w);
}

static void
on_closed(struct http_socket *http)
{
	struct ws_socket *w = container_of(http, struct ws_socket, http);

	stop_timer(w);
	ws_message_fini(&w->in);
	ws_queue_fini(&w->out);
	w->handlers->on_closed(w);
}

static const struct http_socket_handlers http_handlers = {on_open, on_read, on_written, on_closed};

/* ---- from one process to another ---- */

void
ws_socket_part(struct ws_socket *w)
{
	if (!ws_socket_is_open(w) || !http_socket_is_plain(&w->http))
		return;
	if (w->is_slow || w->is_taking || !ws_message_is_idle(&w->in)) {
		ws_socket_stay(w);
		return;
	}
	w->is_parting = true;
	http_socket_pause(&w->http);
}

void
ws_socket_stay(struct ws_socket *w)
{
	if (!w->is_parting || !ws_socket_is_open(w))
		return;
	w->is_parting = false;
	if (!w->is_slow)
		http_socket_resume(&w->http);
}

int
ws_socket_give(struct ws_socket *w)
{
	if (!ws_socket_is_open(w) || !http_socket_is_plain(&w->http))
		return WS_GIVE_NEVER;
	ws_socket_part(w);
	if (!w->is_parting || w->in_flight > 0 || !ws_queue_is_empty(&w->out))
		return WS_GIVE_LATER;
	w->state = WS_SOCKET_GIVEN;
	stop_timer(w);
	return http_socket_fd(&w->http);
}

void
ws_socket_take_back(struct ws_socket *w)
{
	check(w->state == WS_SOCKET_GIVEN);
	w->state = WS_SOCKET_OPEN;
	ws_socket_stay(w);
	await_silence(w);
}

void
ws_socket_let_go(struct ws_socket *w)
{
	check(w->state == WS_SOCKET_GIVEN);
	http_socket_let_go(&w->http);
}

bool
ws_socket_adopt(
    struct ws_socket *w, struct http_server *server, int fd, const struct ws_handlers *handlers)
{
	*w = (struct ws_socket){
	    .handlers = handlers, .timer.on_fire = on_timer, .state = WS_SOCKET_OPEN};
	if (!http_socket_adopt(server, &w->http, fd, &http_handlers, KIND_WEBSOCKET))
		return false;
	w->heard_ms = loop_now_ms(http_server_loop(server));
	await_silence(w);
	return true;
}

bool
ws_socket_check(struct http_req *req, char ret_accept[WS_ACCEPT_LEN + 1])
{
	struct ws_offer offer = {
	    .upgrade = http_header(req, "upgrade"),
	    .connection = http_header_list(req, "connection"),
	    .version = http_header(req, "sec-websocket-version"),
	    .key = http_header(req, "sec-websocket-key"),
	};
	const char *fault = "WebSockets are opened over HTTP/1.1.";
	int err = E_UPGRADE_REQUIRED;

	if (http_may_upgrade(req))
		err = ws_handshake_check(&offer, ret_accept, &fault);
	if (err == 0)
		return true;
	if (err == E_UPGRADE_REQUIRED) {
		if (http_may_upgrade(req)) /* HTTP/2 forbids the header */
			http_add_header(req, "upgrade", "websocket");
		http_add_header(req, "sec-websocket-version", WS_VERSION);
	}
	http_reply_error(req, err, NULL, "%s", fault);
	return false;
}

void
ws_socket_open(struct ws_socket *w, struct http_req *req, const char *accept, const char *protocol,
    const struct ws_handlers *handlers)
{
	*w = (struct ws_socket){.handlers = handlers, .timer.on_fire = on_timer};
	http_add_header(req, "upgrade", "websocket");
	http_add_header(req, "sec-websocket-accept", accept);
	if (protocol != NULL)
		http_add_header(req, "sec-websocket-protocol", protocol);
	http_upgrade(req, &w->http, &http_handlers, KIND_WEBSOCKET);
}
