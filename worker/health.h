/*
 * health - how the services below the routes are, for /health.
 */
#ifndef WORKER_HEALTH_H
#define WORKER_HEALTH_H

#include "common/handoff.h"
#include "worker/api/ops.h"
#include "worker/backplane/backplane.h"
#include "worker/loop/loop.h"
#include "worker/mcp/upstream.h"
#include "worker/provider/provider.h"
#include "worker/stats/stats.h"
#include "worker/store/store.h"

/* What the checks look at: their arg. */
struct health_of {
	const struct handoff *handoff;
	const struct store *store;
	struct loop *loop;
	const struct providers *providers;
	struct backplane *backplane;
	const struct stats *stats;
	const struct mcp_upstreams *upstreams;
};

const struct ops_check *health_checks(size_t *ret_count);

#endif
