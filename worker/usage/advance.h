/*
 * advance - money taken from budgets ahead of calls, so that most calls need not ask the record.
 *
 *     the record's row:  [ free | drawn ]        free: no call's; drawn: of calls that began just
 * now a call begins:     free -> drawn, at once it lasts:          drawn -> a hold of its own in
 * the record, like any other it ends:           its usage is written; the row shrinks by it
 *
 * There is one for each key, app and model that several calls a second ask for, and it holds at
 * most 1 / STORE_ADVANCE_SHARE of what is left: near a budget's end there is none and every call
 * asks. What nobody draws is given back within half a second. Draws stop when the record has not
 * answered for a second, so a budget without the record stays closed. What a killed worker had
 * drawn for calls younger than ADVANCE_WRITE_MS and no hold of their own is nobody's and ends with
 * the lease.
 *
 * Private to worker/usage.
 */
#ifndef WORKER_USAGE_ADVANCE_H
#define WORKER_USAGE_ADVANCE_H

#include "worker/usage/holds.h"

enum {
	ADVANCE_WRITE_MS = 20, /* between two writes of an advance */
	ADVANCE_IDLE_MS = 500, /* not drawn from for so long: given back */
};

struct advances;
struct draw; /* a call's part of an advance */

struct advances *advances_new(struct loop *, const struct conf *, struct store *);
void advances_free(struct advances **); /* draws are dead; rows in the record lapse */

/* From now on nothing is taken, and what is free is given back. */
void advances_drain(struct advances *);
/* What is free is given back now: somebody waits for it. */
void advances_give_back(struct advances *);
bool advances_are_idle(const struct advances *); /* the record has no row of ours */

/* NULL: there is not so much; ask the record. The draw is ended by draw_return() or draw_end(). */
struct draw *advance_draw(struct advances *, const struct hold_question *);

/* The call's usage is on its way to the record. */
void draw_settle(struct draw *);
/* Of its own hold, which wants to be renewed; NULL: it has none yet. */
const char *draw_id(const struct draw *);
void draw_return(struct draw *); /* nothing was called */
void draw_end(struct draw *);    /* the usage is written */

/* A row of the record holds nothing any more. When that cannot be written its lease runs out. */
void budget_row_release(struct store *, const char *id);

#endif
