/*
 * load - what all scenarios share: the target, the goal, the counts.
 */
#ifndef LOADTEST_PARLEY_LOAD_LOAD_H
#define LOADTEST_PARLEY_LOAD_LOAD_H

#include "loadtest/parley_load/conn.h"
#include "loadtest/parley_load/latency.h"

struct load {
	struct conn_target target;

	uint32_t users;       /* connections or conversations at once */
	uint64_t goal;        /* operations in all */
	uint32_t tokens;      /* of an answer */
	uint32_t interval_ms; /* between its tokens; 0: the mock sends them all at once */
	uint32_t turns;       /* of a conversation */
	bool is_streamed;

	uint64_t started, done, failed; /* operations */
	uint64_t deltas;                /* text.delta events, of streamed turns */
	struct latency whole, first;    /* from request to end, to first event */
	bool is_over;
};

/* Claims the next operation; false: the goal is reached, the user rests. */
bool load_next(struct load *);
void load_done(struct load *, bool is_ok, uint64_t began_us, uint64_t first_us);

struct scenario {
	const char *name, *help;
	void (*start)(
	    struct load *); /* makes load->users users, who work until load_next() says no */
};

extern const struct scenario scenario_turns, scenario_direct, scenario_tool_results,
    scenario_idle_keepalive, scenario_idle_sse;

#endif
