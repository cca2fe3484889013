/*
 * mend - the text of one answer that may come in pieces from several attempts: what
 * was given is kept, and what a later attempt says is laid over it.
 *
 *   CONTINUES   the model was shown what was given and goes on from there
 *   REPEATS     it was asked anew: as long as it says the same nothing is given again, and
 *               what follows goes on; when it says something else, all that was given is
 *               void, and its answer is given from the beginning
 *
 * Pure. Texts are valid UTF-8, and are never cut within a character.
 */
#ifndef WORKER_PROVIDER_MEND_H
#define WORKER_PROVIDER_MEND_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

enum mend_way { MEND_CONTINUES, MEND_REPEATS };

struct mend { /* zeroed before first use */
	struct buf given;
	enum mend_way way;
	size_t repeated;     /* REPEATS: so much of `given` */
	bool gave_reasoning; /* which is not repeated word for word */
};

void mend_fini(struct mend *);

/* Another attempt. CONTINUES only when there is a text to continue. */
void mend_begin(struct mend *, enum mend_way);
/* While it only repeats what was given. */
bool mend_is_silent(const struct mend *);

/* What the client is to get; borrowed until the next call. */
struct mend_step {
	bool is_restart; /* first: what it has is void, and `again` is the text so far */
	struct str again, text;
};

struct mend_step mend_text(struct mend *, struct str text);
/* is_restart: what it has is void. False: this thought is not to be shown. */
bool mend_reasoning(struct mend *, bool *ret_is_restart);
/* The answer is whole; when it was shorter than what was given, that is void. */
struct mend_step mend_end(struct mend *);

#endif
