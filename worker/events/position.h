/*
 * position - how far somebody has heard each host's log, and when. Pure.
 *
 *   text: TIME-HOST.NUMBER-HOST.NUMBER..     hexadecimal; the id of an event
 *
 * Of more than POSITION_HOSTS hosts the one that was heard of longest ago is forgotten.
 */
#ifndef WORKER_EVENTS_POSITION_H
#define WORKER_EVENTS_POSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum {
	POSITION_HOSTS = 16,
	POSITION_TEXT_MAX = 17 + POSITION_HOSTS * 34 + 1, /* with its NUL */
};

struct position {
	int64_t at_ms; /* wall clock */
	uint32_t count;
	struct {
		uint64_t host, number;
	} hosts[POSITION_HOSTS]; /* the one that was set last is the first */
};

uint64_t position_get(const struct position *, uint64_t host); /* 0: never heard of */
void position_set(struct position *, uint64_t host, uint64_t number);
/* The greater of each. */
void position_merge(struct position *, const struct position *other);
bool position_covers(const struct position *, const struct position *other);

size_t position_format(const struct position *, char out[POSITION_TEXT_MAX]); /* its length */
bool position_parse(struct str, struct position *ret);                        /* false: not one */

#endif
