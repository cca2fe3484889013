/*
 * retry - whether a task that failed is tried again, and when.
 *
 * Pure. The provider's engine has tried again by itself, within seconds; this is about minutes.
 */
#ifndef WORKER_TASK_RETRY_H
#define WORKER_TASK_RETRY_H

#include <stdbool.h>
#include <stdint.h>

enum task_again {
	TASK_NEVER, /* it would fail again: the request is refused */
	TASK_AGAIN, /* it may pass */
	TASK_LATER, /* it has not been tried: a limit of ours; no attempt is used up */
};

/* Of an error in common/err.h. */
enum task_again task_again_of(int err);

struct task_retry {
	enum task_again again;
	uint32_t attempts, attempts_max; /* attempts: this one counted */
	uint64_t backoff_ms, backoff_max_ms;
	uint32_t retry_after_ms; /* what the provider, or a limit, asked for; 0: nothing */
	int64_t left_ms;         /* of the task's time */
	double dice;             /* 0 <= dice < 1 */
};

/* False: it has failed for good. */
bool task_retry_in(const struct task_retry *, uint64_t *ret_ms);

#endif
