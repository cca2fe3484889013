/*
 * answer - what goes out: bodies, JSON, errors in the API's shape, and h2o's own
 * errors turned into it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/check.h"
#include "common/id.h"
#include "common/json_real.h"
#include "common/log.h"
#include "worker/http/server.h"
#include "worker/loop/h2o_loop.h"

const char *
answer_reason(int status)
{
	switch (status) {
	case 101:
		return "Switching Protocols";
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 202:
		return "Accepted";
	case 204:
		return "No Content";
	case 301:
		return "Moved Permanently";
	case 302:
		return "Found";
	case 304:
		return "Not Modified";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 402:
		return "Payment Required";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 415:
		return "Unsupported Media Type";
	case 422:
		return "Unprocessable Content";
	case 426:
		return "Upgrade Required";
	case 429:
		return "Too Many Requests";
	case 431:
		return "Request Header Fields Too Large";
	case 499:
		return "Client Closed Request";
	case 500:
		return "Internal Server Error";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	default:
		return "Status";
	}
}

/* ---- one answer ---- */

static bool
is_head(const h2o_req_t *h)
{
	return h2o_memis(h->input.method.base, h->input.method.len, H2O_STRLIT("HEAD"));
}

void
answer_begin(struct http_req *r, int status, const char *content_type)
{
	h2o_req_t *h = r->h2o;

	check(!r->is_begun);
	r->is_begun = true;
	h->res.status = status;
	h->res.reason = answer_reason(status);
	if (content_type != NULL)
		h2o_add_header(&h->pool, &h->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
		    content_type, strlen(content_type));
	h2o_add_header_by_str(
	    &h->pool, &h->res.headers, H2O_STRLIT("x-request-id"), 0, NULL, r->id, strlen(r->id));
	cors_add_headers(r);
	if (r->is_last)
		h->http1_is_persistent = 0;
}

void
http_add_header(struct http_req *r, const char *name, const char *value)
{
	h2o_req_t *h = r->h2o;
	h2o_iovec_t n = h2o_strdup(&h->pool, name, SIZE_MAX),
		    v = h2o_strdup(&h->pool, value, SIZE_MAX);

	check(!r->is_begun);
	/* HTTP/2 wants lower case. */
	h2o_strtolower(n.base, n.len);
	h2o_add_header_by_str(&h->pool, &h->res.headers, n.base, n.len, 1, NULL, v.base, v.len);
}

void
http_reply(struct http_req *r, int status, const char *content_type, struct str body)
{
	static h2o_generator_t nothing_to_stop;
	h2o_req_t *h = r->h2o;
	h2o_iovec_t bytes = {NULL, 0};
	bool has_body = body.len > 0 && !is_head(h) && status != 204 && status != 304;

	check(!r->is_answered);
	request_forget(r);
	answer_begin(r, status, content_type);
	r->is_answered = true;
	if (status != 204 && status != 304)
		h->res.content_length = body.len;
	if (has_body)
		bytes = h2o_strdup(&h->pool, body.p, body.len);
	wheel_set(r->server->wheel, &r->timer, r->server->conf->http.send_timeout_ms);
	h2o_start_response(h, &nothing_to_stop);
	h2o_send(h, &bytes, has_body ? 1 : 0, H2O_SEND_STATE_FINAL);
}

void
http_reply_json(struct http_req *r, int status, json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	check(text != NULL);
	json_shorten_reals(text);
	json_decref(json);
	http_reply(r, status, "application/json", str_of(text));
	free(text);
}

/* ---- errors ---- */

static void
add_error_object(struct buf *b, const struct err_info *info, const char *param, const char *message)
{
	buf_add_cstr(b, "{\"error\":{\"message\":\"");
	buf_add_json_escaped(b, str_of(message));
	buf_printf(b, "\",\"type\":\"%s\",\"code\":\"%s\",\"param\":", info->type, info->code);
	if (param != NULL) {
		buf_add_char(b, '"');
		buf_add_json_escaped(b, str_of(param));
		buf_add_cstr(b, "\"}");
	} else {
		buf_add_cstr(b, "null}");
	}
}

struct str
answer_error_body(
    struct http_req *r, struct buf *b, int err, const char *param, const char *message)
{
	const struct err_info *info = err_info(err);

	add_error_object(b, info, param, message != NULL ? message : info->text);
	buf_printf(b, ",\"request_id\":\"%s\"", r->id);
	if (err == E_AT_CAPACITY)
		buf_printf(b, ",\"active_connections\":%u,\"max_connections\":%u",
		    r->server->active, r->server->places_max);
	buf_add_char(b, '}');
	return buf_str(b);
}

static void
reply_error(struct http_req *r, int err, const char *param, const char *message)
{
	struct buf b = BUF_INIT;

	answer_error_body(r, &b, err, param, message);
	http_reply(r, err_info(err)->status, "application/json", buf_str(&b));
	buf_fini(&b);
}

void
http_reply_error(struct http_req *r, int err, const char *param, const char *fmt, ...)
{
	struct buf message = BUF_INIT;
	va_list ap;

	if (fmt != NULL) {
		va_start(ap, fmt);
		buf_vprintf(&message, fmt, ap);
		va_end(ap);
	}
	reply_error(r, err, param, fmt != NULL ? message.data : NULL);
	buf_fini(&message);
}

void
http_reply_retry(struct http_req *r, int err, uint32_t retry_after_s, const char *message)
{
	char seconds[16];

	snprintf(seconds, sizeof(seconds), "%u", retry_after_s > 0 ? retry_after_s : 1);
	http_add_header(r, "retry-after", seconds);
	reply_error(r, err, NULL, message);
}

/* Refused before a route saw it: its rest may still be on the way, so the connection ends. */
void
answer_refusal(struct http_req *r, int err, const char *text)
{
	r->is_last = true;
	conn_linger(r->conn);
	reply_error(r, err, NULL, text);
}

void
answer_raw(int err, struct buf *out)
{
	const struct err_info *info = err_info(err);
	struct id id = id_new("req");
	struct buf body = BUF_INIT;

	add_error_object(&body, info, NULL, info->text);
	buf_printf(&body, ",\"request_id\":\"%s\"}", id.s);
	buf_printf(out,
	    "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
	    "Content-Length: %zu\r\nX-Request-Id: %s\r\n",
	    info->status, answer_reason(info->status), body.len, id.s);
	if (info->status == 503)
		buf_printf(out, "Retry-After: %d\r\n", HTTP_CAPACITY_RETRY_S);
	buf_add_cstr(out, "\r\n");
	buf_add_str(out, buf_str(&body));
	buf_fini(&body);
}

/* ---- what h2o says by itself: a broken or too large chunked body ---- */

struct own_error {
	h2o_ostream_t super;
	h2o_iovec_t body;
};

static void
own_error_send(
    h2o_ostream_t *self, h2o_req_t *h, h2o_iovec_t *bufs, size_t count, h2o_send_state_t state)
{
	struct own_error *e = (struct own_error *)self;

	(void)bufs;
	(void)count;
	h2o_ostream_send_next(self, h, &e->body, is_head(h) ? 0 : 1, state);
}

static int
err_of_status(int status)
{
	return status == 413 ? E_PAYLOAD_TOO_LARGE : E_INVALID_REQUEST;
}

static void
replace_own_error(h2o_req_t *h, struct http_conn *c, h2o_ostream_t **slot)
{
	struct own_error *e = (struct own_error *)h2o_add_ostream(h, sizeof(*e), slot);
	const struct err_info *info = err_info(err_of_status(h->res.status));
	struct id id = id_new("req");
	struct buf b = BUF_INIT;

	add_error_object(
	    &b, info, NULL, info->status == 413 ? info->text : http_refusal_text(REFUSE_CHUNK));
	buf_printf(&b, ",\"request_id\":\"%s\"}", id.s);
	e->body = h2o_strdup(&h->pool, b.data, b.len);
	e->super.do_send = own_error_send;
	buf_fini(&b);
	h->res.status = info->status;
	h->res.reason = answer_reason(info->status);
	h->res.content_length = e->body.len;
	h->res.headers.size = 0;
	h2o_add_header(&h->pool, &h->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
	    H2O_STRLIT("application/json"));
	h2o_add_header_by_str(&h->pool, &h->res.headers, H2O_STRLIT("x-request-id"), 0, NULL,
	    h2o_strdup(&h->pool, id.s, SIZE_MAX).base, strlen(id.s));
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_PROTOCOL, 0, 1);
	metric_add(METRIC_HTTP_REQUESTS, LABEL_ROUTE_SIZE - 1, metric_status(info->status), 1);
	conn_linger(c);
	/* Whoever does not read even that is cut. */
	conn_enter(c, CONN_BODY);
}

/* Answers of ours pass as they are: they belong to a request that was dispatched. */
static void
own_error_setup(h2o_filter_t *self, h2o_req_t *h, h2o_ostream_t **slot)
{
	struct http_conn *c = conn_of(h);

	(void)self;
	if (h->version < 0x200 && c->in_progress == 0) {
		replace_own_error(h, c, slot);
		slot = &(*slot)->next;
	}
	h2o_setup_next_ostream(h, slot);
}

void
answer_register_filter(h2o_pathconf_t *path)
{
	h2o_create_filter(path, sizeof(h2o_filter_t))->on_setup_ostream = own_error_setup;
}
