/*
 * h2o_loop - the h2o loop inside ours, for worker/http, worker/sse and worker/ws only.
 */
#ifndef WORKER_LOOP_H2O_LOOP_H
#define WORKER_LOOP_H2O_LOOP_H

#include <h2o.h>

#include "worker/loop/loop.h"

h2o_loop_t *loop_h2o(struct loop *);

#endif
