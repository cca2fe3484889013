/*
 * history - which of a session's messages the model is given.
 * Pure: decides, copies nothing, reads no record.
 *
 * The newest messages are kept until the budget is used up. A call of tools and
 * its results stay together or go together; a call whose results are not all
 * there, and a result without its call, are left out: providers refuse them.
 */
#ifndef WORKER_SESSION_HISTORY_H
#define WORKER_SESSION_HISTORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/str.h"

struct history_message {
	const json_t *body; /* an OpenAI chat message; NULL: a plain one */
	size_t bytes;       /* of its JSON text */
	bool is_kept;       /* the answer */
};

/*
 * A message of a user or the model, as we write it, that neither calls tools nor answers a call:
 * there is nothing in it that the cut must know. False for everything else, also when it is one in
 * another order of members.
 */
bool history_is_plain(struct str body_json);

/* What a text costs: a quarter of its bytes, as nobody but the provider can count. */
uint64_t history_tokens(size_t bytes);

/*
 * Sets is_kept. budget_tokens 0: no limit; system_bytes (of the system prompt, always sent) are
 * taken from it first. The newest whole unit is kept even when it alone exceeds the budget.
 */
void history_cut(
    struct history_message *, size_t count, uint64_t budget_tokens, size_t system_bytes);

#endif
