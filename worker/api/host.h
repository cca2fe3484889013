/*
 * host - what an administrator may ask of the whole host: POST /admin/v1/drain and
 * /admin/v1/reload. The master does it; it is asked over its control socket, as
 * `parleyd drain` and `parleyd reload` ask.
 */
#ifndef WORKER_API_HOST_H
#define WORKER_API_HOST_H

#include "worker/api/api.h"

struct host_asks; /* those that are under way */

struct host_asks *host_asks_new(struct api *);
void host_asks_free(
    struct host_asks **); /* what is under way is forgotten, and its clients are gone */

#endif
