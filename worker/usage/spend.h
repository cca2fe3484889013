/*
 * spend - what apps spend, told to who hears `spend` of them: what a day has cost so far when that
 * has changed (spend.update), what it has cost when it is over (spend.summary), and budgets of apps
 * that reach 50, 75, 90 and 100 % (budget.alert), once in a period.
 *
 * One elected worker looks into the record; nothing is added to what a call costs. What it sees
 * first is where it begins: a share that a budget passed while nobody was elected is not told.
 */
#ifndef WORKER_USAGE_SPEND_H
#define WORKER_USAGE_SPEND_H

#include "common/conf.h"
#include "worker/events/events.h"
#include "worker/loop/loop.h"
#include "worker/store/store.h"

struct spend;

struct spend *spend_new(struct loop *, const struct conf *, struct store *, struct events *);
void spend_free(struct spend **);

/* The highest of the shares told (50, 75, 90, 100) that lies in (before, now] of amount; 0: none.
 */
int spend_share_passed(int64_t amount, int64_t before, int64_t now);

#endif
