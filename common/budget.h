/*
 * budget - what may be spent in which period: the rule, and where its periods begin.
 *
 * Pure. Periods are of UTC: a day, a week from Monday on, a calendar month, or all time.
 */
#ifndef COMMON_BUDGET_H
#define COMMON_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum budget_period { BUDGET_DAY, BUDGET_WEEK, BUDGET_MONTH, BUDGET_TOTAL };

struct budget_rule {
	int64_t amount_micros; /* 0: no budget */
	enum budget_period period;
};

const char *budget_period_name(enum budget_period); /* "day", .. */
bool budget_period_parse(const char *name, enum budget_period *ret);

/* amount in units, period as the config says it; what is no period is all time. */
struct budget_rule budget_rule_of(double amount, const char *period);

/* Days since 1970, in UTC; the config's times are after that. */
int64_t budget_day(int64_t wall_ms);
int64_t budget_first_day(enum budget_period, int64_t wall_ms); /* of the period; TOTAL: 0 */
int64_t budget_end_ms(enum budget_period, int64_t wall_ms);    /* the next begins; 0: never */

#endif
