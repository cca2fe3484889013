/*
 * ops - see ops.h.
 */
#include "worker/api/ops.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/json_real.h"
#include "common/metric.h"

/* Load balancers ask often, and a hundred times a second is often enough to look. */
enum { HEALTH_CACHE_MS = 10 };

struct ops {
	struct http_server *http;
	const struct handoff *handoff;
	const struct ops_check *checks;
	size_t check_count;
	void *check_arg;
	enum ops_state state;
	char *health_text; /* the last answer of /health */
	int health_status;
	uint64_t health_until_ms;
};

static const char *const health_names[] = {"ok", "degraded", "critical", "unavailable"};

enum health
health_of_use(uint64_t used, uint64_t max)
{
	if (max == 0 || used * 10 < max * 7)
		return HEALTH_OK;
	return used * 10 < max * 9 ? HEALTH_DEGRADED : HEALTH_CRITICAL;
}

static bool
is_draining(const struct ops *o)
{
	return o->state == OPS_DRAINING ||
	       atomic_load(shm_word(o->handoff->shm, SHM_WORD_IS_DRAINING)) != 0;
}

/* ---- / ---- */

static json_t *
features(const struct conf *conf)
{
	json_t *list = json_array();

	json_array_append_new(list, json_string("sessions"));
	json_array_append_new(list, json_string("sse"));
	if (conf->tls.listen.n > 0)
		json_array_append_new(list, json_string(conf->tls.http2 ? "http2" : "tls"));
	return list;
}

static void
on_root(struct http_req *req, void *arg)
{
	struct ops *o = arg;
	int64_t up_ms = clock_wall_ms() - shm_started_wall_ms(o->handoff->shm);

	http_reply_json(req, 200,
	    json_pack("{s:s, s:s, s:I, s:I, s:o}", "name", "parley", "version", PARLEY_VERSION,
		"uptime_seconds", (json_int_t)(up_ms / 1000), "workers",
		(json_int_t)shm_workers(o->handoff->shm), "features", features(o->handoff->conf)));
}

/* ---- /health ---- */

static json_t *
count_workers(const struct shm *shm)
{
	uint32_t by_state[SHM_DEAD + 1] = {0};
	struct shm_row_info row;

	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		if (shm_row_get(shm, i, &row) && row.state <= SHM_DEAD)
			by_state[row.state]++;
	}
	return json_pack("{s:I, s:I, s:I, s:I}", "configured", (json_int_t)shm_workers(shm),
	    "ready", (json_int_t)by_state[SHM_READY], "starting",
	    (json_int_t)by_state[SHM_STARTING], "draining", (json_int_t)by_state[SHM_DRAINING]);
}

/* Of this worker and of the host: the kernel gives each worker its share, so one may be full while
 * others are not. */
static enum health
check_connections(const struct ops *o, json_t *details)
{
	const struct shm *shm = o->handoff->shm;
	uint64_t active = http_server_active(o->http);
	uint64_t max = http_server_places(o->http);
	int64_t host = 0, host_max = metric_total(shm, METRIC_CONNECTIONS_MAX, 0, 0);
	enum health here = health_of_use(active, max), there;

	for (unsigned kind = 0; kind < LABEL_KIND_SIZE; kind++)
		host += metric_total(shm, METRIC_CONNECTIONS, kind, 0);
	there = health_of_use((uint64_t)(host > 0 ? host : 0), (uint64_t)host_max);
	json_object_set_new(details, "active", json_integer(host));
	json_object_set_new(details, "max", json_integer(host_max));
	json_object_set_new(details, "utilization",
	    json_real(host_max > 0 ? (double)host / (double)host_max : 0.0));
	json_object_set_new(details, "worker",
	    json_pack("{s:I, s:I}", "active", (json_int_t)active, "max", (json_int_t)max));
	return here > there ? here : there;
}

static enum health
add_check(json_t *checks, const char *name, enum health health, json_t *details)
{
	json_object_set_new(details, "status", json_string(health_names[health]));
	json_object_set_new(checks, name, details);
	return health;
}

/* The worst of all checks. */
static enum health
run_checks(const struct ops *o, json_t *checks)
{
	json_t *details = json_object();
	enum health worst =
	    add_check(checks, "connections", check_connections(o, details), details);

	for (size_t i = 0; i < o->check_count; i++) {
		const struct ops_check *c = &o->checks[i];
		enum health h;

		details = json_object();
		h = add_check(checks, c->name, c->run(o->check_arg, details), details);
		worst = h > worst ? h : worst;
	}
	return worst;
}

static void
look_at_health(struct ops *o)
{
	json_t *checks = json_object(), *answer, *active, *max;
	enum health worst = run_checks(o, checks);
	const char *status = worst == HEALTH_OK ? "ok" : "degraded";
	bool is_serving = worst != HEALTH_UNAVAILABLE && o->state != OPS_STARTING;
	json_t *connections = json_object_get(checks, "connections");

	if (!is_serving)
		status = "unavailable";
	active = json_object_get(connections, "active");
	max = json_object_get(connections, "max");
	answer = json_pack("{s:s, s:b, s:o, s:{s:O, s:O}, s:o}", "status", status, "draining",
	    is_draining(o), "workers", count_workers(o->handoff->shm), "connections", "active",
	    active, "max", max, "checks", checks);
	free(o->health_text);
	o->health_text = json_dumps(answer, JSON_COMPACT);
	check(o->health_text != NULL);
	json_shorten_reals(o->health_text);
	o->health_status = is_serving ? 200 : 503;
	o->health_until_ms = clock_mono_ms() + HEALTH_CACHE_MS;
	json_decref(answer);
}

static void
on_health(struct http_req *req, void *arg)
{
	struct ops *o = arg;

	if (clock_mono_ms() >= o->health_until_ms)
		look_at_health(o);
	http_reply(req, o->health_status, "application/json", str_of(o->health_text));
}

static void
on_live(struct http_req *req, void *arg)
{
	(void)arg;
	http_reply(req, 200, "application/json", STR("{\"status\":\"ok\"}"));
}

/* Why a load balancer should not send anything now; NULL: it should. */
static const char *
why_not_ready(const struct ops *o)
{
	json_t *details = json_object();
	const char *why = NULL;

	if (is_draining(o))
		why = "draining";
	else if (o->state == OPS_STARTING)
		why = "starting";
	else if (http_server_active(o->http) >= http_server_places(o->http))
		why = "at_capacity";
	for (size_t i = 0; why == NULL && i < o->check_count; i++) {
		if (o->checks[i].run(o->check_arg, details) == HEALTH_UNAVAILABLE)
			why = o->checks[i].name;
	}
	json_decref(details);
	return why;
}

static void
on_ready(struct http_req *req, void *arg)
{
	const char *why = why_not_ready(arg);

	if (why == NULL) {
		http_reply(req, 200, "application/json", STR("{\"status\":\"ready\"}"));
		return;
	}
	http_add_header(req, "retry-after", "5");
	http_reply_json(req, 503, json_pack("{s:s, s:s}", "status", "unavailable", "reason", why));
}

/* ---- /metrics ---- */

static void
on_metrics(struct http_req *req, void *arg)
{
	struct ops *o = arg;
	struct buf text = BUF_INIT;

	if (!http_is_on_metrics_listener(req) && !http_is_loopback_peer(req)) {
		http_reply_error(req, E_FORBIDDEN, NULL, "Metrics are for this host only.");
		return;
	}
	metric_expose(o->handoff->shm, &text);
	http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&text));
	buf_fini(&text);
}

/* ---- life ---- */

static const struct http_route routes[] = {
    {"GET", "/", HTTP_OPS, on_root},
    {"GET", "/health", HTTP_OPS, on_health},
    {"GET", "/health-check", HTTP_OPS, on_health},
    {"GET", "/health/live", HTTP_OPS, on_live},
    {"GET", "/health/ready", HTTP_OPS, on_ready},
    {"GET", "/metrics", HTTP_OPS | HTTP_METRICS, on_metrics},
};

void
ops_set_state(struct ops *o, enum ops_state state)
{
	o->state = state;
	o->health_until_ms = 0;
}

void
ops_free(struct ops **op)
{
	struct ops *o = *op;

	if (o == NULL)
		return;
	*op = NULL;
	free(o->health_text);
	free(o);
}

struct ops *
ops_new(struct http_server *http, const struct handoff *handoff, const struct ops_check *checks,
    size_t check_count, void *check_arg)
{
	struct ops *o = xcalloc(1, sizeof(*o));

	o->http = http;
	o->handoff = handoff;
	o->checks = checks;
	o->check_count = check_count;
	o->check_arg = check_arg;
	http_server_add_routes(http, routes, ARRAY_LEN(routes), o);
	return o;
}
