/*
 * progress - one line on a terminal, rewritten while the run goes on; nothing
 * when standard error is none.
 */
#ifndef LOADTEST_PARLEY_LOAD_PROGRESS_H
#define LOADTEST_PARLEY_LOAD_PROGRESS_H

#include "loadtest/parley_load/tally.h"

struct progress {
	uint64_t began_ms;
	uint64_t shown_ms, shown_done; /* at the last line */
};

/* The tallies change while they are read: the line may be off by a little. */
void progress_show(struct progress *, const struct tally *, uint32_t count);
void progress_end(const struct progress *);

#endif
