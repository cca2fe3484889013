/*
 * body_watch - looks on while a JSON object of any size goes by: has it come to its end,
 * and what does its member "usage" say.
 *
 * Pure, and not a validator: it counts brackets and knows strings. What it keeps is
 * the usage, bounded.
 */
#ifndef WORKER_PROVIDER_BODY_WATCH_H
#define WORKER_PROVIDER_BODY_WATCH_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

enum { BODY_WATCH_USAGE_BYTES_MAX = 4 << 10 };

struct body_watch {
	unsigned depth, usage_depth;
	bool has_begun, has_ended, is_broken;
	bool in_string, is_escaped;
	bool is_key;      /* the string is a member's name at usage_depth */
	bool expects_key; /* there: behind a brace or a comma */
	unsigned key_len; /* of the present name */
	bool is_usage;    /* so far the name is that of the usage */
	bool keeps_usage; /* the value that goes by is the usage */
	struct buf usage;
};

/* usage_depth: 1: a member of the object itself; 2: of an object in it. */
void body_watch_init(struct body_watch *, unsigned usage_depth);
void body_watch_fini(struct body_watch *);

bool body_watch_feed(struct body_watch *, struct str bytes); /* false: it is no JSON object */
bool body_watch_is_whole(const struct body_watch *);
struct str body_watch_usage(const struct body_watch *); /* as written; empty: none, or too large */

#endif
