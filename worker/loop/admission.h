/*
 * admission - how much work a worker takes on while its core is what runs out.
 *
 * Pure: it is told how long rounds of the loop took and what work began and
 * ended, is given the time, and says whether one more piece of work may begin.
 * It knows nothing of requests; who refuses, answers and logs are others.
 *
 * Pressure. A round that did not wait is as long as what became ready at its
 * beginning had to wait: the sojourn time of a queue. As in CoDel (RFC 8289,
 * section 3.2) only its minimum over an interval counts: a burst, one slow read or
 * a core that was taken away for 50 ms make a bad queue for one round, after which
 * the loop finds nothing ready. A queue that never was short in the whole interval
 * is a standing one. As one long round may outlast the interval, it also takes
 * ADMISSION_ROUNDS_MIN long rounds in a row.
 *
 * Limit. CoDel drops packets, DAGOR (Zhou et al., Overload Control for Scaling
 * WeChat Microservices, SoCC 2018) raises the bar of admission by small steps while
 * the queueing time is above its threshold. Here the load is made by turns that last,
 * so not the rate of arrivals is governed but the number of pieces of work in
 * progress: down by a part of it in each interval with pressure, up by a smaller part
 * in each without (additive increase would suit one size of worker only). A place is
 * taken again when one is given back, which keeps refusals even instead of all or
 * nothing. Nothing that has begun is ever asked to stop.
 *
 * Without pressure there is no limit, and none of this costs more than a comparison.
 */
#ifndef WORKER_LOOP_ADMISSION_H
#define WORKER_LOOP_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

enum {
	ADMISSION_ROUNDS_MIN = 4, /* long rounds in a row that make a standing queue */
	ADMISSION_LIMIT_MIN = 4,  /* what goes on whatever else keeps the core busy */
};

struct admission {
	uint64_t target_us, interval_us; /* target 0: off */
	uint64_t began_us;               /* the present interval */
	uint64_t min_us;                 /* of its rounds; UINT64_MAX: none yet */
	uint64_t delay_us;               /* the minimum of the last whole interval */
	uint64_t quiet_us;               /* nobody was refused for so long */
	uint32_t rounds;                 /* of the present interval */
	uint32_t live;                   /* pieces of work in progress */
	uint32_t limit;                  /* UINT32_MAX: none */
	bool has_refused;                /* in the present interval */
};

/* target_us: how long ready work may wait as a rule; 0: everything is admitted. interval_us > 0. */
void admission_init(struct admission *, uint64_t target_us, uint64_t interval_us);

/* A round that did not wait for anything took so long. True: an interval has ended, delay_us and
 * limit are new. */
bool admission_round(struct admission *, uint64_t round_us, uint64_t now_us);

/* May a piece of work begin? False is taken for a refusal. Begins nothing. */
bool admission_allows(struct admission *);
/* Work has begun or ended; also of who did not ask. */
void admission_enter(struct admission *);
void admission_leave(struct admission *);

/* There is a limit: pressure now, or not long ago. */
static inline bool
admission_is_limited(const struct admission *a)
{
	return a->limit != UINT32_MAX;
}

#endif
