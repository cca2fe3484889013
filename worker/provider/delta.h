/*
 * delta - the usual event of a streamed answer, read without building a tree of it:
 * one choice whose delta is a piece of text, or nothing.
 *
 * Pure, and not a JSON parser: it knows some texts, each of which is valid JSON and
 * means what it says of it. Whatever it does not know is for jansson.
 */
#ifndef WORKER_PROVIDER_DELTA_H
#define WORKER_PROVIDER_DELTA_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

/* False: it is something else. True: *ret_content is the text, valid UTF-8, empty when there is
 * none; it lies in json or, where characters were escaped, in scratch. */
bool delta_read(struct str json, struct buf *scratch, struct str *ret_content);

#endif
