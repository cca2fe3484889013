/*
 * tally - what one process counted: plain data in memory that it shares with
 * the one that adds them up.
 */
#ifndef LOADTEST_PARLEY_LOAD_TALLY_H
#define LOADTEST_PARLEY_LOAD_TALLY_H

#include <stdbool.h>

#include "loadtest/parley_load/latency.h"

/* X(name, what) */
#define TALLY_COUNTS(X)                                                                            \
	X(started, "operations begun")                                                             \
	X(done, "operations ended, however")                                                       \
	X(failed, "of them broken, or answered with an error")                                     \
	X(refused, "of them answered 503")                                                         \
	X(unexplained, "refusals without Retry-After")                                             \
	X(deltas, "text.delta events of streamed turns")                                           \
	X(chunks, "events of streamed answers through a gateway")                                  \
	X(cut, "streams that the server ended before their last event")                            \
	X(connects, "connections made")                                                            \
	X(unmade, "connections that failed")                                                       \
	X(gone, "users who could not go on")                                                       \
	X(pings, "of WebSockets that were answered")                                               \
	X(turns, "asked over sockets that are held")                                               \
	X(turns_failed, "of them broken, or answered with an error")                               \
	X(turns_refused, "of them refused for now")                                                \
	X(lost, "events of turns that never came, where they are counted")                         \
	X(doubled, "events of turns that came again")                                              \
	X(moved, "connections that the server ended in order, to be made anew")                    \
	X(rerun, "turns that ended as lost or draining and were asked again under the same id")    \
	X(shut_out, "slow readers over WebSockets whom the server closed")                         \
	X(caught_up, "slow readers over WebSockets who were told every event after all")           \
	X(unanswered, "sampled round trips that did not come back")                                \
	X(unoffered, "arrivals for which no user was free")

#define TALLY_TIMES(X)                                                                             \
	X(whole, "from request to its end, of what went well")                                     \
	X(first, "from request to the first event of the answer")                                  \
	X(refusal, "from request to a refusal")                                                    \
	X(connect, "of a connection")                                                              \
	X(resume, "from the cut of a stream to its next event")                                    \
	X(tool, "from a tool's result to its 202, or over a WebSocket to what follows")            \
	X(spread, "from the first follower of a turn who has an event to each other one")          \
	X(turn, "of a turn over a socket that is held")                                            \
	X(echo, "of a sampled round trip over a socket that is held")                              \
	X(gap, "between two events of a turn that runs, also over a new connection")               \
	X(stand, "from the cut of WebSockets until all of a process stand again")                  \
	X(added, "by a gateway, from request to what came first, less the provider's own")         \
	X(chunk, "of an event through a gateway, from where the provider gave it")                 \
	X(lag, "that the generator's loop was late")

struct tally {
#define X(name, what) uint64_t name;
	TALLY_COUNTS(X)
#undef X
#define X(name, what) struct latency name;
	TALLY_TIMES(X)
#undef X
	uint64_t open;                       /* connections at present */
	uint64_t began_us, took_us;          /* the measured part; took_us once it is over */
	uint64_t ramp_us;                    /* of what is held: until all stood, before it */
	uint64_t cpu_us;                     /* used by the process, in all */
	uint64_t measured_cpu_us, waited_us; /* in the measured part: on a core, waiting for one */
	double cpu_share_max;                /* of one core, over the processes */
	uint64_t standing;                   /* how many, when .. */
	bool is_standing;                    /* .. all do that are meant to, or can */
};

void tally_merge(struct tally *into, const struct tally *);

#endif
