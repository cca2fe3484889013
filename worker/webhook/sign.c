/* sign - see sign.h. */
#include "worker/webhook/sign.h"

#include "common/crypto.h"

void
sign_key(struct str secret, struct buf *out)
{
	static const struct str prefix = {"whsec_", 6};

	if (str_starts(secret, prefix) &&
	    crypto_base64_decode(str_sub(secret.p + prefix.len, secret.len - prefix.len), out))
		return;
	buf_add_str(out, secret);
}

void
sign_webhook(const char *const *secrets, size_t count, struct str id, uint64_t timestamp_s,
    struct str body, struct buf *out)
{
	struct buf content = BUF_INIT, key = BUF_INIT;
	uint8_t mac[SHA256_LEN];

	for (size_t i = 0; i < count; i++) {
		if (secrets[i] == NULL || *secrets[i] == '\0')
			continue;
		if (content.len == 0) {
			buf_printf(&content, "%.*s.%llu.", (int)id.len, id.p,
			    (unsigned long long)timestamp_s);
			buf_add_str(&content, body);
		}
		buf_clear(&key);
		sign_key(str_of(secrets[i]), &key);
		crypto_hmac_sha256(buf_str(&key), buf_str(&content), mac);
		buf_add_cstr(out, out->len > 0 ? " v1," : "v1,");
		crypto_base64(str_sub((const char *)mac, sizeof(mac)), out);
	}
	buf_fini(&content);
	buf_fini(&key);
}
