/*
 * talker - a user in conversation: asks a turn, reads its answer to the last
 * event, and after some turns begins another conversation. When it asks is the
 * scenario's to say.
 */
#ifndef LOADTEST_PARLEY_LOAD_TALKER_H
#define LOADTEST_PARLEY_LOAD_TALKER_H

#include "loadtest/parley_load/load.h"

struct talker {
	struct load *load;
	struct conn *conn;
	/* May ask now; retry_after_s is what the server said when it refused the last turn, else 0.
	 */
	void (*on_ready)(struct talker *, uint64_t retry_after_s);
	void *arg; /* the scenario's */

	bool is_direct; /* the provider itself is asked */
	char path[128];
	uint32_t turns; /* of this session, those refused left out */
	uint64_t began_us, first_us;
	char tail[64]; /* the end of what came, to find the last event */
	size_t tail_len;
	bool saw_last;
};

/* Opens a conversation, then is ready. Lives as long as the process. */
void talker_begin(struct load *, void (*on_ready)(struct talker *, uint64_t), void *arg);
/* Has no session: asks the provider as Parley would. */
void talker_begin_direct(struct load *, void (*on_ready)(struct talker *, uint64_t));

/* One operation, which load_next() has allowed; it counts from began_us, when it was due. */
void talker_ask(struct talker *, uint64_t began_us);

#endif
