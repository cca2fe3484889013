/*
 * status_view - what status.h says, as a table for people.
 *
 * Pure: no I/O, no terminal, no clock.
 */
#ifndef MASTER_STATUS_VIEW_H
#define MASTER_STATUS_VIEW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

struct status_view {
	bool has_color;       /* ANSI colours: a terminal */
	unsigned rows;        /* lines that there is room for; 0: as many as it takes */
	const json_t *before; /* an earlier answer, for what happened since; NULL: none */
	uint64_t since_ms;    /* between the two */
};

/* Lines of 80 columns at most, each ended by a newline. Appended. What is missing in now is shown
 * as 0. */
void status_view_write(const struct status_view *, const json_t *now, struct buf *out);

#endif
