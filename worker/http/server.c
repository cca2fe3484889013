/*
 * server - the HTTP server of a worker: sets h2o up, and takes it down.
 */
#include "worker/http/server.h"

#include <errno.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/http/bodies.h"
#include "worker/http/frames.h"
#include "worker/http/phr.h"
#include "worker/http/tls.h"
#include "worker/loop/h2o_loop.h"

enum {
	WHEEL_TICK_MS = 100,
	WHEEL_SLOTS = 1024,
	CLOSE_ROUNDS = 50,
	/* Our own timers are tighter; these only must not fire first. */
	H2O_NEVER_MS = 24 * 3600 * 1000,
};

static void
set_h2o_up(struct http_server *s)
{
	const struct conf *conf = s->conf;
	h2o_globalconf_t *g = &s->h2o_conf;
	h2o_hostconf_t *host;

	h2o_config_init(g);
	g->server_name = h2o_iovec_init(H2O_STRLIT("parley"));
	g->max_request_entity_size = conf->http.max_body_bytes;
	g->handshake_timeout = conf->http.header_timeout_ms;
	g->http1.req_timeout = H2O_NEVER_MS;
	g->http1.upgrade_to_http2 = 0;
	g->http2.idle_timeout = H2O_NEVER_MS;
	g->http2.max_concurrent_requests_per_connection =
	    (size_t)conf->http2.max_concurrent_streams;
	host = h2o_config_register_host(g, h2o_iovec_init(H2O_STRLIT("default")), 65535);
	answer_register_filter(&host->fallback_path);
	h2o_create_handler(&host->fallback_path, sizeof(h2o_handler_t))->on_req = request_dispatch;
	h2o_context_init(&s->h2o, loop_h2o(s->loop), g);
}

static void
read_trusted(struct http_server *s)
{
	const struct conf_list *list = &s->conf->trusted_proxies;

	s->trusted.v = xcalloc(list->n + 1, sizeof(s->trusted.v[0]));
	s->trusted.n = list->n;
	for (size_t i = 0; i < list->n; i++)
		check(netaddr_net_parse(
		    str_of(list->v[i]), &s->trusted.v[i])); /* the config was checked */
}

struct http_server *
http_server_new(struct loop *loop, const struct handoff *handoff)
{
	struct http_server *s = xcalloc(1, sizeof(*s));
	const struct conf *conf = handoff->conf;

	check(phr_is_in_place() && frames_are_seen()); /* h2o's own must never serve */
	s->loop = loop;
	s->handoff = handoff;
	s->conf = conf;
	s->limits = (struct http_parse_limits){
	    .request_line_bytes = conf->http.max_request_line_bytes,
	    .header_bytes = conf->http.max_header_bytes,
	    .incomplete_bytes = conf->http.max_incomplete_bytes,
	    .headers = (size_t)conf->http.max_headers,
	};
	s->wheel = wheel_new(loop, WHEEL_TICK_MS, WHEEL_SLOTS);
	s->routes = route_table_new();
	s->requests = idmap_new();
	for (int i = 0; i < CONN_PHASES; i++)
		list_init(&s->conns[i]);
	list_init(&s->closing_sockets);
	read_trusted(s);
	set_h2o_up(s);
	frames_watch(s);
	return s;
}

void
http_server_add_routes(
    struct http_server *s, const struct http_route *routes, size_t count, void *arg)
{
	uint64_t gateway_bytes = s->conf->http.max_body_gateway_bytes;

	check(!s->is_started);
	for (size_t i = 0; i < count; i++) {
		/* A chunked body is held before its route is known: no more than any route takes.
		 */
		if ((routes[i].flags & HTTP_GATEWAY) &&
		    s->h2o_conf.max_request_entity_size < gateway_bytes)
			s->h2o_conf.max_request_entity_size = gateway_bytes;
		route_table_add(s->routes, &routes[i], arg,
		    metric_label(LABEL_ROUTE, str_of(routes[i].pattern)));
	}
}

static bool
wants_tls(const struct handoff *h)
{
	for (uint32_t i = 0; i < h->listener_count; i++) {
		if (h->listeners[i].is_tls)
			return true;
	}
	return false;
}

int
http_server_start(struct http_server *s)
{
	if (wants_tls(s->handoff) &&
	    (s->tls = tls_new(s->conf, shm_tickets(s->handoff->shm))) == NULL)
		return -EINVAL;
	s->is_started = true;
	return listen_start(s);
}

int
http_server_reload_certificates(struct http_server *s)
{
	SSL_CTX *fresh;

	if (s->tls == NULL)
		return 0;
	if ((fresh = tls_new(s->conf, shm_tickets(s->handoff->shm))) == NULL)
		return -EINVAL;
	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].accept.ssl_ctx != NULL)
			s->listeners[i].accept.ssl_ctx = fresh;
	}
	SSL_CTX_free(s->tls); /* connections hold their own references */
	s->tls = fresh;
	return 0;
}

void
http_server_drain(struct http_server *s)
{
	if (s->is_draining)
		return;
	s->is_draining = true;
	listen_drain(s);
	h2o_context_request_shutdown(&s->h2o);
	/* A request may be on its way on a connection that is kept: it is answered, as the last. */
	conn_enter_again(s, CONN_IDLE);
	conn_enter_again(s, CONN_NEW);
}

bool
http_server_is_idle(const struct http_server *s)
{
	return s->in_progress == 0 && s->lingering == 0 && s->sockets == 0 && !s->is_listening &&
	       list_empty(&s->conns[CONN_NEW]) && list_empty(&s->conns[CONN_HEAD]) &&
	       list_empty(&s->conns[CONN_BODY]) && list_empty(&s->conns[CONN_IDLE]);
}

bool
http_server_is_listening(const struct http_server *s)
{
	return s->is_listening;
}

uint32_t
http_server_active(const struct http_server *s)
{
	return s->active;
}

uint32_t
http_server_places(const struct http_server *s)
{
	return s->places_max;
}

/* h2o closes what was cut when it next looks at it. False: requests are still in progress. */
static bool
close_connections(struct http_server *s)
{
	for (int phase = 0; phase < CONN_PHASES; phase++) {
		list_for (node, &s->conns[phase])
			conn_cut(list_entry(node, struct http_conn, node));
	}
	for (int i = 0; i < CLOSE_ROUNDS && s->open > 0; i++)
		h2o_evloop_run(loop_h2o(s->loop), 1);
	return s->open == 0;
}

void
http_server_free(struct http_server **sp)
{
	struct http_server *s = *sp;
	h2o_multithread_queue_t *queue;

	if (s == NULL)
		return;
	*sp = NULL;
	frames_watch(NULL);
	loop_timer_stop(s->loop, &s->accept_again);
	loop_timer_stop(s->loop, &s->evict_again);
	bodies_stop(s);
	listen_give_spares_back(s);
	loop_post_cancel(s->loop, &s->close_sockets);
	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].sock != NULL)
			h2o_socket_close(s->listeners[i].sock);
	}
	check(close_connections(s)); /* idle, as the header says */
	free(s->listeners);
	SSL_CTX_free(s->tls);
	free(s->trusted.v);
	route_table_free(&s->routes);
	idmap_free(&s->requests);
	wheel_free(&s->wheel);
	h2o_timeout_unlink(&s->h2o.http2._graceful_shutdown_timeout); /* h2o forgets it */
	queue = s->h2o.queue;                                         /* h2o forgets to free it */
	h2o_context_dispose(&s->h2o);
	free(queue);
	h2o_config_dispose(&s->h2o_conf);
	free(s);
}
