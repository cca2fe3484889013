/*
 * errands_impl - what errands.c and errand_call.c share. Nobody else includes it.
 */
#ifndef WORKER_MCP_ERRANDS_IMPL_H
#define WORKER_MCP_ERRANDS_IMPL_H

#include "worker/mcp/upstream_impl.h"

struct errands {
	struct mcp_upstreams *all;
	struct list errands; /* errand_call.c: calls of other workers, in progress here .. */
	struct list gaps;    /* .. and of ours, at others */
};

/* ---- errands.c ---- */

struct upstream *errands_find(const struct errands *, uint64_t program); /* or NULL */
void errands_cast(const struct errands *, struct backplane_addr to, enum backplane_method,
    struct str payload); /* one that is gone hears nothing */

/* ---- errand_call.c ---- */

void errand_calls_init(struct errands *);
void errand_calls_fini(struct errands *); /* silently */
/* What that worker had asked for nobody waits for. */
void errand_calls_peer_gone(struct errands *, struct backplane_addr peer);

#endif
