/* ticket - see ticket.h.
 *
 *   version 1 | revision 1 | caps 2 | owner 8 | issued 8 | nonce 8 | host 8 | row 4 | number 4 |
 *   seal 16                                                          60 bytes, base64url
 */
#include "worker/mcp/ticket.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/crypto.h"

enum { VERSION = 2, BODY_LEN = 44, SEAL_LEN = 16 };

static void
put_u64(uint8_t *p, uint64_t n)
{
	for (int i = 7; i >= 0; i--, n >>= 8)
		p[i] = (uint8_t)n;
}

static uint64_t
get_u64(const uint8_t *p)
{
	uint64_t n = 0;

	for (int i = 0; i < 8; i++)
		n = n << 8 | p[i];
	return n;
}

static void
seal(const uint8_t body[BODY_LEN], struct str key, uint8_t out[SHA256_LEN])
{
	crypto_hmac_sha256(key, str_sub((const char *)body, BODY_LEN), out);
}

void
mcp_ticket_format(const struct mcp_ticket *t, struct str key, char out[TICKET_TEXT_LEN + 1])
{
	uint8_t bytes[BODY_LEN + SHA256_LEN] = {VERSION, (uint8_t)t->revision};
	struct buf text = BUF_INIT;

	check(t->nonce != 0 && !mcp_revision_info(t->revision)->is_modern);
	bytes[3] = t->caps;
	memcpy(bytes + 4, t->owner, TICKET_OWNER_LEN);
	put_u64(bytes + 12, (uint64_t)t->issued_ms);
	put_u64(bytes + 20, t->nonce);
	put_u64(bytes + 28, t->home.host);
	put_u64(bytes + 36, (uint64_t)t->home.row << 32 | t->home.number);
	seal(bytes, key, bytes + BODY_LEN);
	crypto_base64url(str_sub((const char *)bytes, BODY_LEN + SEAL_LEN), &text);
	check(text.len == TICKET_TEXT_LEN);
	memcpy(out, text.data, TICKET_TEXT_LEN + 1);
	buf_fini(&text);
}

static bool
read_body(const uint8_t *bytes, struct mcp_ticket *t)
{
	uint64_t worker = get_u64(bytes + 36);

	*t = (struct mcp_ticket){.revision = (enum mcp_revision)bytes[1],
	    .caps = bytes[3] & TICKET_CAPS,
	    .issued_ms = (int64_t)get_u64(bytes + 12),
	    .nonce = get_u64(bytes + 20),
	    .home = {get_u64(bytes + 28), (uint32_t)(worker >> 32), (uint32_t)worker}};
	memcpy(t->owner, bytes + 4, TICKET_OWNER_LEN);
	return bytes[0] == VERSION && bytes[1] < MCP_REVISION_COUNT &&
	       !mcp_revision_info(t->revision)->is_modern && t->nonce != 0;
}

bool
mcp_ticket_parse(struct str text, struct str key, struct mcp_ticket *ret)
{
	uint8_t expected[SHA256_LEN];
	struct buf bytes = BUF_INIT;
	struct mcp_ticket t;
	bool is_ours = text.len == TICKET_TEXT_LEN && crypto_base64_decode(text, &bytes) &&
		       bytes.len == BODY_LEN + SEAL_LEN;

	if (is_ours) {
		seal((const uint8_t *)bytes.data, key, expected);
		is_ours = crypto_equal(expected, SEAL_LEN, bytes.data + BODY_LEN, SEAL_LEN) &&
			  read_body((const uint8_t *)bytes.data, &t);
	}
	buf_fini(&bytes);
	if (is_ours)
		*ret = t;
	return is_ours;
}
