/*
 * admission - how much work a worker takes on while its core is what runs out.
 *
 * Pure: it is told how long ready work waited and what work began and
 * ended, is given the time, and says whether one more piece of work may begin.
 * It knows nothing of requests; who refuses, answers and logs are others.
 *
 * Pressure. From something having become ready to the end of the round of the loop that
 * handled it: the sojourn time of a queue, above a target or not, looked at over an interval, as
 * in CoDel (RFC 8289). CoDel asks whether it ever was below. Turns come in step with one
 * another (a model's tokens have a rhythm), so the queue empties between two beats of a worker
 * that is hopelessly late within each: we ask for how much of the interval it was above. More
 * than ADMISSION_SHARE is pressure. One slow read, a burst or a core that was taken away for a
 * while are single waits, however long: it takes ADMISSION_WAITS_MIN of them. And a wait counts
 * ADMISSION_CORE_TIMES as long as the worker had its core at most: one that waits for a core
 * which others have does not get it by refusing.
 *
 * Limit. CoDel drops packets, DAGOR (Zhou et al., Overload Control for Scaling
 * WeChat Microservices, SoCC 2018) raises the bar of admission by small steps while
 * the queueing time is above its threshold. Here the load is made by turns that last,
 * so not the rate of arrivals is governed but the number of pieces of work in
 * progress: down by a part of it in each interval with pressure, up by a smaller part
 * in each without, the more the farther it is from the share that is aimed at. A place is
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
	ADMISSION_SHARE = 500,    /* thousandths of the time */
	ADMISSION_WAITS_MIN = 4,  /* long ones in an interval: fewer are no queue */
	ADMISSION_CORE_TIMES = 3, /* of a wait, what others may have to do with it */
	ADMISSION_LIMIT_MIN = 4,  /* what goes on whatever else keeps the core busy */
};

struct admission {
	uint64_t target_us, interval_us; /* target 0: off */
	uint64_t began_us;               /* the present interval */
	uint64_t slow_us, sum_us;        /* its waits above the target, and all of them */
	uint32_t slow_waits, waits;
	uint64_t delay_us; /* the mean of the last whole interval */
	uint64_t quiet_us; /* nobody was refused for so long */
	uint32_t live;     /* pieces of work in progress */
	uint32_t limit;    /* UINT32_MAX: none */
	bool has_refused;  /* in the present interval */
};

/* target_us: how long ready work may wait as a rule; 0: everything is admitted. interval_us > 0. */
void admission_init(struct admission *, uint64_t target_us, uint64_t interval_us);

/* Ready work waited so long, its own round included, and the worker had the core for so much of it.
 * True: an interval has ended, delay_us and limit are new. */
bool admission_waited(struct admission *, uint64_t wait_us, uint64_t core_us, uint64_t now_us);

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
