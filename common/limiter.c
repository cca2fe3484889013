/* limiter - keys and the room for the table. */
#include "common/limiter.h"

#include "common/buf.h"
#include "common/crypto.h"

size_t
limiter_shm_bytes(void)
{
	return 4096;
}

struct limiter_key
limiter_key_of(const char *kind, struct str name)
{
	struct buf text = BUF_INIT;
	struct limiter_key key;
	uint8_t hash[SHA256_LEN];

	buf_add(&text, kind, strlen(kind) + 1);
	buf_add_str(&text, name);
	crypto_sha256(buf_str(&text), hash);
	memcpy(key.bytes, hash, sizeof(key.bytes));
	buf_fini(&text);
	return key;
}
