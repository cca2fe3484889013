/*
 * ops - what load balancers, Prometheus and operators ask: /, /health and its
 * kin, /metrics. Not counted as connections, always answered, no key needed.
 *
 * What is checked is the services' business: each contributes checks.
 */
#ifndef WORKER_API_OPS_H
#define WORKER_API_OPS_H

#include <jansson.h>

#include "common/handoff.h"
#include "worker/http/http.h"

enum health { HEALTH_OK, HEALTH_DEGRADED, HEALTH_CRITICAL, HEALTH_UNAVAILABLE };

/* 0.7 and more of a pool or a limit in use: degraded; 0.9: critical. */
enum health health_of_use(uint64_t used, uint64_t max);

/* Adds its details to the object, and says how it is. It may say HEALTH_UNAVAILABLE only when the
 * worker cannot serve without it. */
struct ops_check {
	const char *name; /* "store": the member of "checks" */
	enum health (*run)(void *arg, json_t *details);
};

enum ops_state { OPS_STARTING, OPS_READY, OPS_DRAINING };

struct ops;

/* Adds its routes to the server. checks stay the caller's and valid. */
struct ops *ops_new(struct http_server *, const struct handoff *, const struct ops_check *, size_t,
    void *check_arg);
void ops_free(struct ops **);
void ops_set_state(struct ops *, enum ops_state);

#endif
