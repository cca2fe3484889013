/*
 * job - one operation on its way to the database and back.
 */
#include "worker/store/job.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"

struct job *
job_new(struct op_call *call, store_decode *decode, store_callback *callback, void *arg,
    size_t *in_flight)
{
	struct job *job = xcalloc(1, sizeof(*job));

	check(op_call_is_complete(call));
	job->op = call->op;
	job->wire = call->wire;
	call->wire = BUF_INIT;
	op_call_fini(call);
	job->decode = decode;
	job->callback = callback;
	job->arg = arg;
	job->in_flight = in_flight;
	++*in_flight;
	job->started_us = clock_mono_us();
	return job;
}

void
job_count(struct job *job)
{
	job->is_counted = true;
	metric_gauge(METRIC_STORE_POOL_IN_USE, 0, 0, 1);
}

void
job_drop(struct job *job)
{
	if (job->is_counted)
		metric_gauge(METRIC_STORE_POOL_IN_USE, 0, 0, -1);
	--*job->in_flight;
	list_del(&job->node);
	buf_fini(&job->wire);
	op_answer_fini(&job->answer);
	free(job);
}

void
job_finish(struct job *job, struct op_rows *rows)
{
	store_decode *decode = job->decode;
	store_callback *callback = job->callback;
	void *arg = job->arg;

	metric_observe_us(METRIC_STORE_QUERY_SECONDS,
	    job->op->is_write ? STORE_OP_WRITE : STORE_OP_READ, clock_mono_us() - job->started_us);
	job_drop(job);
	decode(rows, callback, arg);
}

void
job_fail(struct job *job, int err)
{
	struct op_rows none = {.err = err};

	job_finish(job, &none);
}

static void
note(struct store_health *health, uint64_t *since_ms, const char *what, bool is_well,
    uint64_t now_ms)
{
	if (is_well && *since_ms != 0) {
		log_info("store %s work again after_ms=%llu", what,
		    (unsigned long long)(now_ms - *since_ms));
		*since_ms = 0;
	} else if (!is_well && *since_ms == 0) {
		log_warn("store %s fail", what);
		*since_ms = now_ms;
		health->on_failing(health);
	}
}

void
store_health_reads(struct store_health *health, bool is_well, uint64_t now_ms)
{
	note(health, &health->reads_since_ms, "reads", is_well, now_ms);
}

void
store_health_writes(struct store_health *health, bool is_well, uint64_t now_ms)
{
	note(health, &health->writes_since_ms, "writes", is_well, now_ms);
}
