/*
 * echo - what is said over a WebSocket to be answered at once: a ping of Parley's
 * own protocol, or --say, which any message answers, as other servers are asked.
 */
#ifndef LOADTEST_PARLEY_LOAD_ECHO_H
#define LOADTEST_PARLEY_LOAD_ECHO_H

#include "loadtest/parley_load/options.h"

static inline struct str
echo_text(const struct options *o)
{
	return o->say != NULL ? str_of(o->say) : STR("{\"action\":\"ping\"}");
}

static inline bool
echo_is_answer(const struct options *o, struct str message)
{
	return o->say != NULL || str_starts(message, STR("{\"status\":\"pong\""));
}

#endif
