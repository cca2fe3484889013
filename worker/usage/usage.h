/*
 * usage - the rows of what model calls used, on their way to the record.
 *
 * Rows without a hold wait for each other (usage.interval, usage.batch); they go as one write,
 * which is repeated until the record has taken it; ids make repetition harmless. A row that the
 * record refuses for itself is found by halving, logged, counted and left out. What a row says is
 * counted in the metrics when the row is made, so that both tell the same. Rows of turns are
 * written with their turns: usage_count() counts them, and that is all they have to do with this.
 */
#ifndef WORKER_USAGE_USAGE_H
#define WORKER_USAGE_USAGE_H

#include "worker/usage/holds.h"

struct usages;

struct usages *usages_new(struct loop *, const struct conf *, struct store *, struct holds *);
void usages_free(struct usages **); /* before the holds; what waits is lost, and logged */

void usages_drain(struct usages *);           /* rows wait for no others any more */
bool usages_have_room(const struct usages *); /* usage.max_queue */
bool usages_are_idle(const struct usages *);  /* everything is in the record */

/* Takes a copy and counts it. The hold (0: none) is forgotten when the row is written. */
void usage_add(struct usages *, const struct store_usage *, uint64_t hold);

/* The same for a row that was counted and has no hold any more: of a turn that its record does not
 * take. */
void usage_add_late(struct usages *, const struct store_usage *);

/* parley_tokens_total and parley_cost_total: each row once. */
void usage_count(const struct store_usage *);

#endif
