/*
 * retry - when and where an attempt that has failed is followed by another.
 * Pure: takes the time and the dice.
 *
 * The same target again: only for what the failure's kind permits, before anything was passed on,
 * max_retries times, after a wait of factor * 2^n seconds with full jitter (a random part of it,
 * so that clients that failed together do not come back together) or of what Retry-After
 * says. A Retry-After longer than that wait would have been, when another target could be asked,
 * means the other target; one beyond backoff_max or the caller's time is an answer, not a wait.
 */
#ifndef WORKER_PROVIDER_RETRY_H
#define WORKER_PROVIDER_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"
#include "common/tally.h"
#include "worker/provider/failure.h"

enum retry_step { RETRY_SAME, RETRY_NEXT, RETRY_NOT };

struct retry_case {
	enum failure failure;
	bool has_begun;          /* something was passed on */
	bool has_next;           /* another target may be asked now */
	uint32_t tries;          /* at this target, the failed one included */
	uint32_t retries_max;    /* max_retries */
	double backoff_factor_s; /* backoff_factor */
	uint32_t backoff_max_ms; /* 0: no limit */
	uint32_t retry_after_ms; /* 0: none */
	uint64_t left_ms;        /* of the caller's time; UINT64_MAX: no end */
	double dice;             /* 0 <= dice < 1 */
};

/* Is a wait shorter than the caller's time, and not beyond backoff_max? */
bool retry_may_wait(double wait_ms, uint64_t backoff_max_ms, uint64_t left_ms);
/* *ret_wait_ms is set with RETRY_SAME. RETRY_NEXT only when has_next. */
enum retry_step retry_decide(const struct retry_case *, uint32_t *ret_wait_ms);

/*
 * The retry budget of a provider, so that retries do not keep it down: a fifth of its calls
 * in RETRY_WINDOW_MS on top of them, and never fewer than RETRY_BUDGET_MIN. The tally is the
 * host's (a: calls, b: retries); of two who ask in the same instant both may get the last.
 */
enum { RETRY_WINDOW_MS = 10000, RETRY_BUDGET_MIN = 10, RETRY_BUDGET_PERCENT = 20 };
void retry_note_call(struct tally *, uint64_t now_ms);
bool retry_take(struct tally *, uint64_t now_ms);

/* The value of Retry-After in ms: seconds or an HTTP date (RFC 9110, 10.2.3). What is neither, or
 * in the past: 0. A day at most. */
uint32_t retry_after_parse(struct str value, int64_t wall_ms);

#endif
