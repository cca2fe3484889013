/*
 * core_time - how long a worker's loop had a core, and whether it wants one: what
 * tells a worker that hangs from one that is not let run.
 */
#ifndef MASTER_CORE_TIME_H
#define MASTER_CORE_TIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/str.h"

struct core_time {
	bool is_runnable; /* runs, or waits for a core; false: waits for something else */
	uint64_t used_ms; /* user and system, since it began */
};

/* Of a line of /proc/PID/task/TID/stat, ticks_per_s being those it counts in. Pure; false: that is
 * none. */
bool core_time_parse(struct str line, long ticks_per_s, struct core_time *ret);

/* Of the first thread of the process, where a worker's loop runs. False: the kernel does not say.
 */
bool core_time_read(pid_t, struct core_time *ret);

#endif
