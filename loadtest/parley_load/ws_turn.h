/*
 * ws_turn - a turn asked over a WebSocket and read to its end, one at a time:
 * how long it took, and whether every event came once and in order. Tools of the
 * client are answered here.
 */
#ifndef LOADTEST_PARLEY_LOAD_WS_TURN_H
#define LOADTEST_PARLEY_LOAD_WS_TURN_H

#include "loadtest/parley_load/wsock.h"

enum { WS_TURN_ID_MAX = 40 };

struct ws_turn { /* zeroed before first use */
	uint64_t began_us, first_us, result_us;
	uint64_t seq;     /* of the last event that came */
	uint64_t last_us; /* when it came; 0: none has */
	uint64_t retry_after_s;
	char session[WS_TURN_ID_MAX], turn[WS_TURN_ID_MAX]; /* "": not known yet */
	bool is_live, is_broken;
};

enum ws_turn_said {
	WS_TURN_GOES_ON, /* or the frame was not of a turn */
	WS_TURN_WHOLE,
	WS_TURN_FAILED,
	WS_TURN_REFUSED, /* for now, as 503 would; retry_after_s may say for how long */
};

/* In the socket's conversation, which the first one begins. Of so many as --tools says a client's
 * tool is called. */
void ws_turn_ask(struct ws_turn *, struct wsock *);
/* The same under an idempotency key: who asks with it again is told the same turn, or a new one
 * where that was lost. */
void ws_turn_ask_as(struct ws_turn *, struct wsock *, const char *key);
/* An answer of this many tokens, which comes as fast as it can. */
void ws_turn_ask_long(struct ws_turn *, struct wsock *, uint32_t tokens);

/* A message of the socket. Other than WS_TURN_GOES_ON: it has ended. Lost and doubled events, and
 * the times of first events and of tools, are counted in the tally. */
enum ws_turn_said ws_turn_take(struct ws_turn *, struct wsock *, struct str message);

/* Of a live turn whose session and turn are known: what comes after the last event, over this
 * socket; false: they are not known, the turn cannot be found again. */
bool ws_turn_resume(struct ws_turn *, struct wsock *);
/* Of the error that answers that: the server could not look now. False: there is nothing to find,
 * or it may not be seen. */
bool ws_turn_may_resume(struct str message);

enum outcome ws_turn_outcome(enum ws_turn_said);

#endif
