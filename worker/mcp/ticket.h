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

enum { TICKET_TEXT_LEN = 56, TICKET_OWNER_LEN = 8 };

struct mcp_ticket {
	enum mcp_revision revision;      /* what was agreed upon; not a modern one */
	uint8_t owner[TICKET_OWNER_LEN]; /* of the key's hash; zeros: nobody */
	int64_t issued_ms;               /* wall clock */
	uint64_t nonce;                  /* not 0 */
};

void mcp_ticket_format(const struct mcp_ticket *, struct str key, char out[TICKET_TEXT_LEN + 1]);
bool mcp_ticket_parse(
    struct str text, struct str key, struct mcp_ticket *ret); /* false: none of ours */

#endif
