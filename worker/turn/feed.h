/*
 * feed - what has happened in a turn: a bounded log of numbered events, each kept
 * once as the JSON that listeners get, and the text of the answer so far.
 * Pure: knows no listeners and no time.
 *
 *   1 ........ first ................. head
 *   dropped    |  kept, to be replayed    |   + text that is no event yet
 *
 * When the log exceeds its bytes the oldest events go; who needs them gets one
 * snapshot instead. Deltas that arrive together become one event when the feed
 * is settled.
 */
#ifndef WORKER_TURN_FEED_H
#define WORKER_TURN_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "worker/turn/turn.h"

struct feed_entry;

struct feed {
	struct feed_entry **ring; /* count entries from ring[start], wrapping at cap */
	uint32_t start, count, cap;
	uint64_t head;           /* sequence number of the last event; 0: none */
	size_t bytes, bytes_max; /* bytes_max 0: no limit */
	struct buf text;         /* the whole answer, all hops */
	size_t text_settled;     /* bytes of it that are in events */
	uint64_t text_units;     /* the same in UTF-16 code units: the next delta's offset */
	struct buf reasoning;    /* not yet in events */
	uint32_t hop;
};

void feed_init(struct feed *, size_t bytes_max);
void feed_fini(struct feed *);

/* The first sequence number that is still kept; head + 1 when nothing is. */
uint64_t feed_first(const struct feed *);

/* Settles, then adds. Returns the sequence number. */
uint64_t feed_add(struct feed *, enum turn_event_type, struct str data);

/* Deltas: collected until feed_settle() makes an event of them. */
void feed_text(struct feed *, struct str);
void feed_reasoning(struct feed *, struct str);
bool feed_is_settled(const struct feed *);
void feed_settle(struct feed *);
void feed_set_hop(struct feed *, uint32_t hop); /* settles: a delta is of one hop */
/* All text is void but the first `keep` bytes, which are told again after the event that says so.
 */
void feed_restart(struct feed *, size_t keep);

/* False: not kept (any more). The data is borrowed until the feed changes. */
bool feed_get(const struct feed *, uint64_t seq, struct turn_event *ret);

struct str feed_told_text(const struct feed *); /* that is in events */

/* {"seq","text","tool_calls"} of a turn up to that sequence number. tool_calls_json is an array. */
void feed_format_snapshot(
    struct buf *out, uint64_t seq, struct str text, struct str tool_calls_json);

/* The length of valid UTF-8 in UTF-16 code units. */
uint64_t feed_utf16_length(struct str);

#endif
