/*
 * services - what a worker consists of, made and ended in one order.
 *
 * A table in services.c has a row per service: the lower ones first, who accepts
 * connections last. Whoever needs another service gets a pointer to it when it is
 * made; nobody looks here later but worker/main.c.
 */
#ifndef WORKER_SERVICES_H
#define WORKER_SERVICES_H

#include "common/handoff.h"
#include "worker/api/api.h"
#include "worker/api/ops.h"
#include "worker/health.h"

struct services {
	const struct handoff *handoff; /* set by the caller, as is loop; both outlive the rest */
	struct loop *loop;
	struct backplane *backplane;
	struct events *events;
	struct limits *limits;
	struct stats *stats;
	struct store *store;
	struct client *client;
	struct holds *holds;
	struct usages *usages;
	struct spend *spend;
	struct providers *providers;
	struct knowledge *knowledge;
	struct keys *keys;
	struct sweeper *sweeper;
	struct mcp_upstreams *upstreams;
	struct mcp_runner *runner;
	struct webhooks *webhooks;
	struct turns *turns;
	struct tasks *tasks;
	struct http_server *http;
	struct api api;
	struct health_of health;
	struct ops *ops;
};

/* Makes all of them, then starts them; nobody is let in yet. 0, or a negative number: one of them
 * could not and has logged why, and the half that stands can only be left to the kernel. */
int services_start(struct services *);

/* Connections are accepted from now on; once. 0, or a negative number, likewise. */
int services_open(struct services *);

/* No new work; what is under way goes on. */
void services_drain(struct services *);

/* What they had under way has ended. */
bool services_are_idle(const struct services *);
/* The name of one that has something under way; NULL: none has. */
const char *services_busy(const struct services *);

/* Ends them in reverse order. They are idle. */
void services_stop(struct services *);

#endif
