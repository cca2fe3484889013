/*
 * transfer - one request: options, phases and their times, callbacks, outcome.
 *
 *   WAITING -> CONNECT -> SEND -> FIRST -> BODY -> complete
 *
 * A connection that was kept and has died meanwhile is replaced by libcurl
 * itself, as long as no byte of the answer came: then it goes back to SEND.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/check.h"
#include "worker/client/address.h"
#include "worker/client/client_parts.h"

enum {
	/* libcurl sends a body up to this size with its head, in one write; a larger one is asked
	 * for piece by piece, so that progress is seen. */
	BODY_AT_ONCE_MAX = 64 << 10,
	SEND_BUFFER = 16 << 10, /* likewise, with TLS */
	/* Then others have their turn: libcurl would read on as long as there is something, and
	 * not return while a few fast senders have more. */
	TURN_BYTES_MAX = 16 << 10,
};

const char *
client_outcome_name(enum client_outcome o)
{
	static const char *const names[] = {
	    [CLIENT_OK] = "ok",
	    [CLIENT_POOL_TIMEOUT] = "pool_timeout",
	    [CLIENT_POOL_FULL] = "pool_full",
	    [CLIENT_CONNECT_FAILED] = "connect_failed",
	    [CLIENT_CONNECT_TIMEOUT] = "connect_timeout",
	    [CLIENT_TIMEOUT] = "timeout",
	    [CLIENT_BROKEN] = "broken",
	    [CLIENT_REFUSED_ADDRESS] = "refused_address",
	};

	return names[o];
}

/* ---- the end ---- */

void
transfer_free(struct transfer *t)
{
	struct client *c = t->client;

	loop_timer_stop(c->loop, &t->timer);
	list_del(&t->resume_node);
	pool_leave(t);
	if (t->easy != NULL) {
		check(c->curl_depth == 0);
		c->curl_depth++; /* sockets may be closed from inside */
		curl_multi_remove_handle(c->multi, t->easy);
		c->curl_depth--;
		pool_give_easy(t->pool, t->easy);
	}
	if (t->handle != 0)
		idmap_remove(c->transfers, t->handle);
	curl_slist_free_all(t->headers);
	buf_fini(&t->body);
	free(t->kept);
	free(t->keeps);
	free(t->method);
	free(t->url);
	free(t);
}

/* Its own memory is gone and its place given before the caller hears of it. */
static void
transfer_end(struct transfer *t, enum client_outcome outcome, const char *why)
{
	struct client_handlers handlers = t->handlers;
	struct client_pool *pool = t->pool;
	void *arg = t->arg;
	bool is_cancelled = t->handle == 0;
	char detail[CURL_ERROR_SIZE];

	snprintf(detail, sizeof(detail), "%s", why);
	if (is_cancelled)
		list_del(&t->node); /* of the doomed */
	transfer_free(t);
	pool_dispatch(pool);
	if (!is_cancelled)
		handlers.on_done(arg, outcome, detail);
}

static enum client_outcome
outcome_of(const struct transfer *t, CURLcode code)
{
	if (t->was_refused)
		return CLIENT_REFUSED_ADDRESS;
	switch (code) {
	case CURLE_OK:
		return CLIENT_OK;
	case CURLE_OPERATION_TIMEDOUT:
		return t->phase == TRANSFER_CONNECT ? CLIENT_CONNECT_TIMEOUT : CLIENT_TIMEOUT;
	case CURLE_URL_MALFORMAT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return CLIENT_CONNECT_FAILED;
	default: /* TLS has many codes, and an unsupported protocol may be the URL's or the
		  * answer's: before the request is sent they are the connection's */
		return t->phase == TRANSFER_CONNECT ? CLIENT_CONNECT_FAILED : CLIENT_BROKEN;
	}
}

void
transfer_complete(struct transfer *t, CURLcode code)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	enum client_outcome outcome = outcome_of(t, code);

	curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd);
	if (code == CURLE_OK && fd != CURL_SOCKET_BAD && (size_t)fd < t->client->socket_cap &&
	    t->client->sockets[fd] != NULL)
		pool_idle_add(t->pool, t->client->sockets[fd]);
	transfer_end(t, outcome, t->error[0] != '\0' ? t->error : curl_easy_strerror(code));
}

/* ---- time ---- */

static uint32_t
phase_limit_ms(const struct transfer *t)
{
	switch (t->phase) {
	case TRANSFER_WAITING:
		return t->pool->conf.pool_timeout_ms;
	case TRANSFER_SEND:
		return t->pool->conf.write_timeout_ms;
	case TRANSFER_FIRST:
		return t->first_byte_timeout_ms;
	case TRANSFER_BODY:
		return t->is_paused ? 0 : t->stall_timeout_ms;
	default:
		return 0;
	}
}

static uint64_t
phase_due_ms(const struct transfer *t)
{
	uint32_t limit_ms = phase_limit_ms(t);

	return limit_ms > 0 ? t->phase_ms + limit_ms : UINT64_MAX;
}

void
transfer_wait(struct transfer *t)
{
	uint64_t due_ms = phase_due_ms(t), now_ms = loop_now_ms(t->client->loop);

	if (t->total_due_ms < due_ms)
		due_ms = t->total_due_ms;
	if (due_ms == UINT64_MAX)
		loop_timer_stop(t->client->loop, &t->timer);
	else
		loop_timer_set(t->client->loop, &t->timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

static void
transfer_enter(struct transfer *t, enum transfer_phase phase)
{
	t->phase = phase;
	t->phase_ms = loop_now_ms(t->client->loop);
	transfer_wait(t);
}

/* Progress only moves phase_ms, so the timer may come early. */
static void
on_timer(struct loop_timer *timer)
{
	static const char *const what[] = {
	    [TRANSFER_WAITING] = "no connection became free",
	    [TRANSFER_CONNECT] = "total time ran out while connecting",
	    [TRANSFER_SEND] = "no progress sending",
	    [TRANSFER_FIRST] = "no first byte",
	    [TRANSFER_BODY] = "silence in the answer",
	};
	struct transfer *t = container_of(timer, struct transfer, timer);
	uint64_t now_ms = loop_now_ms(t->client->loop);

	if (t->phase == TRANSFER_WAITING && now_ms >= phase_due_ms(t)) {
		pool_note_wait(t);
		transfer_end(t, CLIENT_POOL_TIMEOUT, what[t->phase]);
	} else if (now_ms >= phase_due_ms(t))
		transfer_end(t, CLIENT_TIMEOUT, what[t->phase]);
	else if (now_ms >= t->total_due_ms)
		transfer_end(t, CLIENT_TIMEOUT, "total time ran out");
	else
		transfer_wait(t);
}

/* ---- libcurl's callbacks ---- */

static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct transfer *t = arg;

	(void)purpose;
	if (t->refuses_private && address_is_private(&address->addr)) {
		t->was_refused = true;
		return CURL_SOCKET_BAD;
	}
	int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	struct client_socket *s = client_socket_add(t->client, fd);
	s->is_connection = true;
	s->pool = t->pool;
	return fd;
}

/* Connected. A kept connection did not come through on_open_socket(), so its address is looked at
 * here: another pool without that rule may have opened it. */
static int /* NOLINTNEXTLINE(readability-non-const-parameter): libcurl's type */
on_connected(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct transfer *t = arg;

	(void)local_ip, (void)port, (void)local_port;
	if (t->refuses_private && address_text_is_private(ip)) {
		t->was_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->was_refused = false; /* another address of that name was taken */
	transfer_enter(t, t->body.len > BODY_AT_ONCE_MAX ? TRANSFER_SEND : TRANSFER_FIRST);
	return CURL_PREREQFUNC_OK;
}

static size_t
on_read(char *out, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	size_t n = t->body.len - t->body_sent, room = size * count;

	if (n > room)
		n = room;
	memcpy(out, t->body.data + t->body_sent, n);
	t->body_sent += n;
	transfer_enter(t, t->body_sent < t->body.len ? TRANSFER_SEND : TRANSFER_FIRST);
	return n;
}

static int
on_seek(void *arg, curl_off_t offset, int origin)
{
	struct transfer *t = arg;

	if (origin != SEEK_SET || offset < 0 || (size_t)offset > t->body.len)
		return CURL_SEEKFUNC_FAIL;
	t->body_sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* Keeps a header's value, cut to its room; lower: without parameters and in lower case. */
static struct str
keep_header(char room[128], struct str value, bool lower)
{
	size_t n = 0;

	for (; n < value.len && n < 127; n++) {
		char c = value.p[n];

		if (lower && (c == ';' || c == ' '))
			break;
		room[n] = lower && c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	return str_sub(room, n);
}

static void
head_line(struct transfer *t, struct str line)
{
	struct str value = line, name = str_split(&value, ':');

	value = str_trim(value);
	if (str_ieq(name, STR("content-type")))
		t->head.content_type = keep_header(t->head_text[0], value, true);
	else if (str_ieq(name, STR("retry-after")))
		t->head.retry_after = keep_header(t->head_text[1], value, false);
	else if (str_ieq(name, STR("x-request-id")))
		t->head.request_id = keep_header(t->head_text[2], value, false);
	if (t->keeps != NULL && str_ieq(name, str_of(t->keeps)) && t->kept == NULL) {
		t->kept =
		    xstrndup(value.p, value.len < CLIENT_KEPT_MAX ? value.len : CLIENT_KEPT_MAX);
		t->head.kept = str_of(t->kept);
	}
}

/* Lines of the head, of interim heads (1xx) before it, and of trailers after the body. */
static size_t
on_header(char *bytes, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	struct str line = str_sub(bytes, size * count);
	long status = 0;

	while (line.len > 0 && (line.p[line.len - 1] == '\n' || line.p[line.len - 1] == '\r'))
		line.len--;
	if (t->handle == 0 || t->has_head)
		return t->handle == 0 ? 0 : size * count;
	if (line.len > 0) {
		head_line(t, line);
		return size * count;
	}
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 200) {
		t->has_head = true;
		t->head.status = (int)status;
		t->head.waited_ms = (uint32_t)(loop_now_ms(t->client->loop) - t->phase_ms);
		if (t->handlers.on_head != NULL)
			t->handlers.on_head(t->arg, &t->head);
	}
	return t->handle == 0 ? 0 : size * count;
}

static bool
has_had_turn(struct transfer *t, size_t len)
{
	if (t->turn != t->client->turn)
		t->turn_bytes = 0;
	t->turn = t->client->turn;
	t->turn_bytes += len;
	t->client->turn_bytes += len;
	return t->turn_bytes >= TURN_BYTES_MAX;
}

static size_t
on_body(char *bytes, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	size_t len = size * count;

	if (t->handle == 0)
		return 0;
	if (t->phase != TRANSFER_BODY)
		transfer_enter(t, TRANSFER_BODY);
	else
		t->phase_ms = loop_now_ms(t->client->loop);
	bool goes_on = len == 0 || t->handlers.on_body(t->arg, str_sub(bytes, len));
	if (t->handle == 0)
		return len + 1;
	if (!goes_on || (has_had_turn(t, len) && !list_linked(&t->resume_node))) {
		t->is_paused = true;
		curl_easy_pause(t->easy, CURLPAUSE_RECV);
	}
	if (goes_on && t->is_paused)
		client_resume(t->client, t->handle);
	return len;
}

/* ---- the beginning ---- */

void
transfer_constant_options(CURL *e, struct client_pool *p)
{
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	/* A name that resolves slowly must not hold the loop when its transfer is cancelled. */
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "parley/" PARLEY_VERSION);
	curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* Debian's default: no CA cache */
	curl_easy_setopt(e, CURLOPT_CAINFO, p->client->ca_file);
	curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BUFFER);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)p->conf.connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)(p->conf.keepalive_ms / 1000 + 1));
	curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, (long)(p->conf.life_ms + 999) / 1000);
	curl_easy_setopt(e, CURLOPT_FORBID_REUSE, p->conf.keepalive_max == 0 ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
}

static void
set_method(struct transfer *t, CURL *e)
{
	bool has_body = t->body.len > 0 || strcmp(t->method, "POST") == 0;
	bool at_once = t->body.len <= BODY_AT_ONCE_MAX;

	curl_easy_setopt(e, has_body ? CURLOPT_POST : CURLOPT_HTTPGET, 1L);
	if (strcmp(t->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, t->method);
	if (!has_body)
		return;
	curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.len);
	curl_easy_setopt(e, CURLOPT_POSTFIELDS,
	    !at_once          ? NULL
	    : t->body.len > 0 ? t->body.data
			      : "");
	curl_easy_setopt(e, CURLOPT_READFUNCTION, at_once ? NULL : on_read);
	curl_easy_setopt(e, CURLOPT_READDATA, t);
	curl_easy_setopt(e, CURLOPT_SEEKDATA, t);
}

void
transfer_launch(struct transfer *t)
{
	CURL *e = pool_take_easy(t->pool);

	t->easy = e;
	set_method(t, e);
	curl_easy_setopt(e, CURLOPT_URL, t->url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
	curl_easy_setopt(e, CURLOPT_PRIVATE, t);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, client_close_socket);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, t->client); /* outlives the transfer */
	curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	transfer_enter(t, TRANSFER_CONNECT);
	check(curl_multi_add_handle(t->client->multi, e) == CURLM_OK);
}

static void
add_header(struct transfer *t, const char *line)
{
	struct curl_slist *more = curl_slist_append(t->headers, line);

	check(more != NULL);
	t->headers = more;
}

static void
copy_headers(struct transfer *t, const struct client_request *r)
{
	add_header(t, "Expect:");
	for (size_t i = 0; i < r->header_count; i++) {
		/* "Name;" is libcurl's way to send one without a value. */
		char *line = *r->headers[i].value != '\0'
				 ? xasprintf("%s: %s", r->headers[i].name, r->headers[i].value)
				 : xasprintf("%s;", r->headers[i].name);

		add_header(t, line);
		free(line);
	}
}

/* The queue is full: it waits for no place, only for its callback. */
static void
on_full(struct loop_timer *timer)
{
	transfer_end(
	    container_of(timer, struct transfer, timer), CLIENT_POOL_FULL, "too many wait");
}

uint64_t
client_start(struct client_pool *pool, const struct client_request *r,
    const struct client_handlers *handlers, void *arg)
{
	struct transfer *t = xcalloc(1, sizeof(*t));
	uint64_t now_ms = loop_now_ms(pool->client->loop);

	t->client = pool->client;
	t->pool = pool;
	t->handlers = *handlers;
	t->arg = arg;
	t->method = xstrdup(r->method);
	t->url = xstrdup(r->url);
	t->keeps = r->keeps != NULL ? xstrdup(r->keeps) : NULL;
	buf_add_str(&t->body, r->body);
	copy_headers(t, r);
	t->first_byte_timeout_ms = r->first_byte_timeout_ms;
	t->stall_timeout_ms = r->stall_timeout_ms;
	t->total_due_ms = r->total_timeout_ms > 0 ? now_ms + r->total_timeout_ms : UINT64_MAX;
	t->refuses_private = r->refuses_private;
	t->started_ms = now_ms;
	t->timer.on_fire = on_timer;
	t->handle = idmap_add(t->client->transfers, t);
	uint64_t handle = t->handle;
	bool is_full = pool->conf.queue_max > 0 && pool->waiting_count >= pool->conf.queue_max &&
		       pool->in_use >= pool->conf.connections_max;
	if (is_full) {
		t->timer.on_fire = on_full;
		list_init(&t->node);
		pool->waiting_count++;
		loop_timer_set(t->client->loop, &t->timer, 0);
	} else {
		transfer_enter(t, TRANSFER_WAITING);
		pool_enqueue(t);
	}
	return handle;
}
