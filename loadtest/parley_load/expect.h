/*
 * expect - a threshold that a run must keep: first_p99_us<50000. Pure.
 */
#ifndef LOADTEST_PARLEY_LOAD_EXPECT_H
#define LOADTEST_PARLEY_LOAD_EXPECT_H

#include <stdbool.h>

#include "common/str.h"

enum expect_op { EXPECT_LESS, EXPECT_AT_MOST, EXPECT_MORE, EXPECT_AT_LEAST, EXPECT_EQUAL };

struct expect {
	const char *text; /* borrowed */
	struct str name;  /* within text */
	enum expect_op op;
	double bound;
};

/* NAME OP NUMBER, OP one of < <= > >= =; false: it is not that. */
bool expect_parse(const char *text, struct expect *ret);
bool expect_holds(const struct expect *, double value);

#endif
