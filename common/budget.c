/* budget - see budget.h. */
#include "common/budget.h"

#include <string.h>
#include <time.h>

#include "common/check.h"
#include "common/money.h"

#define DAY_MS INT64_C(86400000)

static const char *const names[] = {"day", "week", "month", "total"};

const char *
budget_period_name(enum budget_period period)
{
	check((size_t)period < ARRAY_LEN(names));
	return names[period];
}

bool
budget_period_parse(const char *name, enum budget_period *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(names[i], name) == 0) {
			*ret = (enum budget_period)i;
			return true;
		}
	}
	return false;
}

struct budget_rule
budget_rule_of(double amount, const char *period)
{
	struct budget_rule rule = {money_micros(amount), BUDGET_TOTAL};

	budget_period_parse(period, &rule.period);
	return rule;
}

int64_t
budget_day(int64_t wall_ms)
{
	return wall_ms > 0 ? wall_ms / DAY_MS : 0;
}

/* The first day of the month that is `months` after that of the day. */
static int64_t
month_day(int64_t day, int months)
{
	time_t seconds = (time_t)(day * 86400);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	tm.tm_mday = 1;
	tm.tm_mon += months; /* timegm takes the thirteenth */
	return timegm(&tm) / 86400;
}

int64_t
budget_first_day(enum budget_period period, int64_t wall_ms)
{
	int64_t day = budget_day(wall_ms);

	switch (period) {
	case BUDGET_DAY:
		return day;
	case BUDGET_WEEK: /* 1970 began on a Thursday */
		return day < 4 ? 0 : day - (day + 3) % 7;
	case BUDGET_MONTH:
		return month_day(day, 0);
	case BUDGET_TOTAL:
		break;
	}
	return 0;
}

int64_t
budget_end_ms(enum budget_period period, int64_t wall_ms)
{
	int64_t day = budget_day(wall_ms);

	switch (period) {
	case BUDGET_DAY:
		return (day + 1) * DAY_MS;
	case BUDGET_WEEK:
		return (day - (day + 3) % 7 + 7) * DAY_MS;
	case BUDGET_MONTH:
		return month_day(day, 1) * DAY_MS;
	case BUDGET_TOTAL:
		break;
	}
	return 0;
}
