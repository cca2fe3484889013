/*
 * ticket - the id of a session with an older client: all that is to be known of it, and a seal.
 *
 * Pure. Whoever has the key can read it, so any worker takes any request of the session and none
 * keeps it. The seal is HMAC-SHA-256, cut to 128 bits (RFC 2104, 5).
 */
#ifndef WORKER_MCP_TICKET_H
#define WORKER_MCP_TICKET_H

#include "common/str.h"
#include "worker/mcp/revision.h"

enum { TICKET_TEXT_LEN = 80, TICKET_OWNER_LEN = 8 };

/* What the client can be asked for, as bits. */
enum { TICKET_SAMPLING = 1, TICKET_ELICITATION = 2, TICKET_ROOTS = 4, TICKET_CAPS = 7 };

/* The worker that has the session's only stream, of 2024-11-05. */
struct ticket_home {
	uint64_t host; /* 0: it has none, and any worker is as good */
	uint32_t row, number;
};

struct mcp_ticket {
	enum mcp_revision revision;      /* what was agreed upon; not a modern one */
	uint8_t owner[TICKET_OWNER_LEN]; /* of the key's hash; zeros: nobody */
	int64_t issued_ms;               /* wall clock */
	uint64_t nonce;                  /* not 0 */
	uint8_t caps;
	struct ticket_home home;
};

void mcp_ticket_format(const struct mcp_ticket *, struct str key, char out[TICKET_TEXT_LEN + 1]);
bool mcp_ticket_parse(
    struct str text, struct str key, struct mcp_ticket *ret); /* false: none of ours */

#endif
