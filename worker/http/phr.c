/*
 * phr - our parser in the place of h2o's.
 *
 * libh2o calls phr_parse_request() and phr_decode_chunked() through its procedure
 * linkage table, so these definitions in the executable are the ones that run, for
 * every request of HTTP/1.
 * A head that we refuse becomes a request of its own kind, which request.c knows
 * by conn->refusal and answers in the API's shape.
 */
#include <dlfcn.h>
#include <h2o.h>

#include "common/check.h"
#include "worker/http/bodies.h"
#include "worker/http/chunked.h"
#include "worker/http/phr.h"
#include "worker/http/server.h"

/* h2o gives the place of req->input.method.base: that is how we find whose head it is. */
static struct http_conn *
conn_of_method(const char **method)
{
	return conn_of((h2o_req_t *)((char *)method - offsetof(h2o_req_t, input.method.base)));
}

static bool
is_body_too_large(const struct http_server *s, const struct http_head *head)
{
	struct str path = head->target;
	struct route_match m;
	bool is_gateway;

	if (head->content_length <= s->conf->http.max_body_bytes)
		return false;
	route_find(s->routes, head->method, str_split(&path, '?'), &m);
	is_gateway = m.entry != NULL && (m.entry->route->flags & HTTP_GATEWAY) != 0;
	return !is_gateway || head->content_length > s->conf->http.max_body_gateway_bytes;
}

int
phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len,
    const char **path, size_t *path_len, int *minor_version, struct phr_header *headers,
    size_t *num_headers, size_t last_len)
{
	struct http_conn *conn = conn_of_method(method);
	struct http_server *s = conn->listener->server;
	struct http_head head = {.headers = headers, .header_cap = *num_headers};
	long n = http_parse_head(&s->limits, buf, len, &head);

	(void)last_len; /* heads are small: parsing again from the start is cheaper than remembering
			 */
	if (n > 0 && is_body_too_large(s, &head)) {
		head.refusal = REFUSE_BODY_TOO_LARGE;
		n = -1;
	}
	if (n > 0 && (head.is_chunked || head.has_length) &&
	    !bodies_may_begin(s, head.is_chunked ? UINT64_MAX : head.content_length)) {
		head.refusal = REFUSE_NO_ROOM;
		n = -1;
	}
	if (n == 0) {
		if (conn->phase != CONN_HEAD)
			conn_enter(conn, CONN_HEAD);
		return -2;
	}
	if (n < 0) {
		conn->refusal = head.refusal;
		head = (struct http_head){
		    .method = STR("GET"), .target = STR("/"), .minor_version = 1};
		n = (long)len;
	} else if (head.is_chunked || head.has_length) {
		conn_enter(conn, CONN_BODY);
	}
	conn->head_bytes = (uint32_t)n;
	*method = head.method.p;
	*method_len = head.method.len;
	*path = head.target.p;
	*path_len = head.target.len;
	*minor_version = head.minor_version;
	*num_headers = head.header_count;
	return (int)n;
}

ssize_t
phr_decode_chunked(struct phr_chunked_decoder *d, char *buf, size_t *len)
{
	return chunked_decode(d, buf, len);
}

bool
phr_is_in_place(void)
{
	return dlsym(RTLD_DEFAULT, "phr_parse_request") == (void *)(uintptr_t)phr_parse_request &&
	       dlsym(RTLD_DEFAULT, "phr_decode_chunked") == (void *)(uintptr_t)phr_decode_chunked;
}
