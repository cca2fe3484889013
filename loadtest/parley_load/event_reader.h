/*
 * event_reader - the names and sequence numbers of a turn's event stream,
 * wherever its bytes were split.
 *
 * Pure. Of a line only the beginning is kept: what a load generator must know
 * stands there. Data is not parsed.
 */
#ifndef LOADTEST_PARLEY_LOAD_EVENT_READER_H
#define LOADTEST_PARLEY_LOAD_EVENT_READER_H

#include <stdbool.h>

#include "common/str.h"

enum { EVENT_READER_LINE = 96, EVENT_READER_NAME = 32, EVENT_READER_TURN = 40 };

struct event_reader { /* zeroed before first use */
	char line[EVENT_READER_LINE];
	size_t line_len;
	char name[EVENT_READER_NAME];
	char turn[EVENT_READER_TURN]; /* of the last id that was seen */
	uint64_t seq;                 /* of `id: turn.seq`; 0: none */
	bool has_any;
};

struct seen_event {
	struct str name;
	uint64_t seq;
};

/* Cuts bytes off *in up to the end of an event; true: there was one. The name is valid until the
 * next call. */
bool event_reader_next(struct event_reader *, struct str *in, struct seen_event *ret);

#endif
