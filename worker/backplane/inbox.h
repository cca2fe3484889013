/*
 * inbox - what crosses Redis between the workers of different hosts. Pure.
 *
 * Each worker subscribes to two channels by their exact names: its own, and one of all.
 * (Exact names cost Redis one look-up per message; a pattern would be compared with every message
 * of every host.)
 *
 *   PREFIX in:HOST.ROW.NUMBER     PREFIX all
 *
 * A message there:
 *
 *   version (1 byte)  host (8, big-endian)  row  number  method (numbers as of payload.c)  payload
 *
 * Whoever can publish in Redis can say anything: what is not of this form is refused, and a
 * version that is not known is not guessed at.
 */
#ifndef WORKER_BACKPLANE_INBOX_H
#define WORKER_BACKPLANE_INBOX_H

#include "worker/backplane/backplane.h"

enum { INBOX_VERSION = 1 };

struct inbox_message {
	struct backplane_addr from;
	uint16_t method;
	struct str payload; /* borrowed */
};

void inbox_channel(const char *prefix, struct backplane_addr, struct buf *out); /* replaces */
void inbox_channel_of_all(const char *prefix, struct buf *out);

void inbox_format(const struct inbox_message *, struct buf *out); /* appends */
bool inbox_parse(struct str, struct inbox_message *ret);

#endif
