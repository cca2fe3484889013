/*
 * answer - what the tool server says: JSON-RPC in, JSON-RPC out. Pure.
 *
 * It knows server/discover, initialize, ping, tools/list and tools/call, in the form of the
 * revision that the message is of; the tool `echo` gives its argument `text` back.
 */
#ifndef LOADTEST_MOCK_MCP_ANSWER_H
#define LOADTEST_MOCK_MCP_ANSWER_H

#include "common/buf.h"

struct answer_conf {
	bool is_legacy; /* knows no revision without sessions */
	struct buf tools;
};

/* tools: how many there are, echo among them; from 1. */
void answer_init(struct answer_conf *, unsigned tools, bool is_legacy);
void answer_fini(struct answer_conf *);

/* Appends the answer, without a line's end. False: there is none, it was a notification. */
bool answer(const struct answer_conf *, struct str message, struct buf *out);

#endif
