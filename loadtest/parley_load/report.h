/*
 * report - what a run was, in one line of JSON, and whether it passed.
 *
 * A run passes when all expectations hold. Nothing failed, refused, missing,
 * gone or died is expected unless the command line says otherwise of it.
 */
#ifndef LOADTEST_PARLEY_LOAD_REPORT_H
#define LOADTEST_PARLEY_LOAD_REPORT_H

#include "common/buf.h"
#include "loadtest/parley_load/options.h"
#include "loadtest/parley_load/tally.h"

struct report {
	const struct options *options;
	struct tally total;
	uint32_t died;       /* processes that did not end well */
	const char *stopped; /* why nothing more was begun, in static memory; NULL: as was meant */
};

/* done, per_second, first_p99_us .. False: there is no such figure. A time that was never taken
 * has count 0 and keeps no expectation. */
bool report_value(const struct report *, struct str name, double *ret);

/* NULL, or why the figures may be the generator's and not the server's. */
const char *report_saturation(const struct report *);

/* Returns whether it passed. */
bool report_format(const struct report *, struct buf *ret_json);

#endif
