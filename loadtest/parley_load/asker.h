/*
 * asker - somebody who asks until there is an answer, over one kind of
 * connection: what the kinds have in common.
 *
 *      rests -> asks -> (refused, cut, lost: again, under the same id) -> answered -> rests
 *
 * A question is one operation. Each turn that it took, and each connection that
 * broke, is in the journal:
 *
 *      turn SESSION TURN ID OUTCOME SEQ ORDER      it ended: completed, or the code of its error
 *      asked SESSION ID whole|failed TRIES         the question did
 *      cut ws|sse ADDRESS SEQ                      a connection broke, without a word
 *      closed ws|sse ADDRESS CODE                  in order; the code of the close frame, or 0
 *      answer ws|sse ADDRESS STATUS CODE           something else than what was asked for
 */
#ifndef LOADTEST_PARLEY_LOAD_ASKER_H
#define LOADTEST_PARLEY_LOAD_ASKER_H

#include "loadtest/parley_load/user.h"

enum { ASKER_ID_MAX = 40, ASKER_KEY_MAX = 16, ASKER_ADDRESS_MAX = 32 };

struct asker;

struct asker_kind {
	const char *name; /* in the journal */
	/* Asks; or, where the turn that was begun may still be found, follows it on. Called again
	 * when nothing has come of it: it may be under way already. */
	void (*go)(struct asker *);
};

struct asker { /* zeroed before asker_init() */
	struct load *load;
	const struct asker_kind *kind;
	char session[USER_SESSION_MAX];
	char key[ASKER_KEY_MAX]; /* of the present question; unique in its session */
	char address[ASKER_ADDRESS_MAX];
	uint32_t questions, tries; /* of the present question */
	uint64_t began_us, first_us;
	bool is_asking;
};

void asker_init(struct asker *, struct load *, const struct asker_kind *);
/* From now on it asks: at once, or after that time. */
void asker_begin(struct asker *, uint64_t delay_ms);
/* go() after that time and a little more, if the question is not answered by then. */
void asker_go_later(struct asker *, uint64_t delay_ms);

/* A turn of the question has ended; code "": it was completed. Returns after go() was planned, or
 * the question is done. */
void asker_turn_ended(
    struct asker *, const char *turn, struct str code, uint64_t seq, bool in_order);
void asker_keep_address(struct asker *, const char *address);
void asker_was_cut(struct asker *, uint64_t seq);
void asker_was_closed(struct asker *, int code);
void asker_was_told(struct asker *, int status, struct str code);

#endif
