/*
 * sse_parse - bytes of a text/event-stream in, events out, wherever the bytes
 * were split (WHATWG HTML, 9.2.6). Pure.
 *
 * An event that the end of the stream cut is never given. What `id` and `retry` have said is kept
 * for those who reconnect; an id above SSE_ID_MAX bytes is none. Other fields are skipped.
 */
#ifndef WORKER_PROVIDER_SSE_PARSE_H
#define WORKER_PROVIDER_SSE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum { SSE_ID_MAX = 256 };

struct sse_event {       /* borrowed for the call */
	struct str name; /* empty: none was given */
	struct str data;
};

/* 0: go on; anything else ends the feed, which returns it. */
typedef int sse_on_event(void *arg, const struct sse_event *);

struct sse_parse {
	sse_on_event *on_event;
	void *arg;
	size_t event_bytes_max;
	struct buf line; /* the part of a line that earlier bytes gave */
	struct buf name, data;
	struct buf id; /* the last one; empty: none */
	bool has_retry;
	uint64_t retry_ms;
	bool has_data;
	bool skips_lf;  /* the last byte was CR: a LF now belongs to it */
	bool has_begun; /* past a byte order mark */
};

void sse_parse_init(struct sse_parse *, size_t event_bytes_max, sse_on_event *, void *arg);
void sse_parse_fini(struct sse_parse *);
/* Another stream goes on where this one was cut: the event that was cut is dropped, the id is kept.
 */
void sse_parse_restart(struct sse_parse *);

/* 0, what on_event returned, or E_PAYLOAD_TOO_LARGE for an event or a line that is too long. After
 * anything but 0 only fini may follow. */
int sse_parse_feed(struct sse_parse *, struct str bytes);

#endif
