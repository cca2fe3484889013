/* crypto - thin covers over OpenSSL, so that no other file includes it for this. */
#include "common/crypto.h"

/* SHA256_Init() and its like: what OpenSSL 3 has in their place looks its algorithm up each time,
 * which takes longer than to hash a key. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <sys/random.h>

#include "common/check.h"

/* One getrandom() serves many ids; a child of fork() must not share the rest with its parent. */
static _Thread_local struct {
	uint8_t bytes[256];
	size_t left;
	unsigned fork_count;
} pool;
static unsigned fork_count;

static void
on_fork(void)
{
	fork_count++;
}

__attribute__((constructor)) static void
watch_forks(void)
{
	pthread_atfork(NULL, NULL, on_fork);
}

static void
read_kernel(uint8_t *out, size_t len)
{
	while (len > 0) {
		ssize_t n = getrandom(out, len, 0);

		check(n > 0 || errno == EINTR);
		if (n > 0) {
			out += n;
			len -= (size_t)n;
		}
	}
}

void
crypto_random(void *out, size_t len)
{
	if (len > sizeof(pool.bytes)) {
		read_kernel(out, len);
		return;
	}
	if (pool.left < len || pool.fork_count != fork_count) {
		read_kernel(pool.bytes, sizeof(pool.bytes));
		pool.left = sizeof(pool.bytes);
		pool.fork_count = fork_count;
	}
	uint8_t *from = pool.bytes + sizeof(pool.bytes) - pool.left;
	memcpy(out, from, len);
	OPENSSL_cleanse(from, len);
	pool.left -= len;
}

void
crypto_sha256(struct str data, uint8_t out[SHA256_LEN])
{
	SHA256_CTX sha;

	check(SHA256_Init(&sha) == 1 && SHA256_Update(&sha, data.p, data.len) == 1 &&
	      SHA256_Final(out, &sha) == 1);
}

void
crypto_sha1(struct str data, uint8_t out[SHA1_LEN])
{
	SHA1((const uint8_t *)data.p, data.len, out);
}

void
crypto_hmac_sha256(struct str key, struct str data, uint8_t out[SHA256_LEN])
{
	unsigned len = SHA256_LEN;

	check(key.len <= INT32_MAX);
	/* OpenSSL takes a NULL for a missing argument, also where the length is 0. */
	check(HMAC(EVP_sha256(), key.len ? key.p : "", (int)key.len,
		  (const uint8_t *)(data.len ? data.p : ""), data.len, out, &len) != NULL);
}

void
crypto_hex(const void *bytes, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = bytes;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[b[i] >> 4];
		out[2 * i + 1] = digits[b[i] & 15];
	}
	out[2 * len] = '\0';
}

enum { NONCE_LEN = 12, TAG_LEN = 16 };

void
crypto_seal(const uint8_t key[SHA256_LEN], struct str bytes, struct buf *out)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	uint8_t *nonce = (uint8_t *)buf_reserve(out, NONCE_LEN + bytes.len + TAG_LEN);
	uint8_t *sealed = nonce + NONCE_LEN;
	int len = 0, end = 0;

	check(cipher != NULL && bytes.len < INT_MAX - NONCE_LEN - TAG_LEN);
	crypto_random(nonce, NONCE_LEN);
	check(EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
	      EVP_EncryptUpdate(cipher, sealed, &len, (const uint8_t *)bytes.p, (int)bytes.len) ==
		  1 &&
	      EVP_EncryptFinal_ex(cipher, sealed + len, &end) == 1 &&
	      EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_LEN, sealed + bytes.len) == 1);
	EVP_CIPHER_CTX_free(cipher);
	out->len += NONCE_LEN + bytes.len + TAG_LEN;
}

bool
crypto_open(const uint8_t key[SHA256_LEN], struct str sealed, struct buf *out)
{
	const uint8_t *nonce = (const uint8_t *)sealed.p;
	size_t bytes = sealed.len - NONCE_LEN - TAG_LEN;
	int len = 0, end = 0;

	if (sealed.len < NONCE_LEN + TAG_LEN || sealed.len > INT_MAX)
		return false;
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	uint8_t *to = (uint8_t *)buf_reserve(out, bytes + 1);
	uint8_t tag[TAG_LEN];
	check(cipher != NULL);
	memcpy(tag, nonce + NONCE_LEN + bytes, TAG_LEN);
	bool is_ours = EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
		       EVP_DecryptUpdate(cipher, to, &len, nonce + NONCE_LEN, (int)bytes) == 1 &&
		       EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1 &&
		       EVP_DecryptFinal_ex(cipher, to + len, &end) == 1;
	EVP_CIPHER_CTX_free(cipher);
	if (is_ours)
		out->len += bytes;
	else
		OPENSSL_cleanse(to, bytes);
	return is_ours;
}

bool
crypto_equal(const void *a, size_t a_len, const void *b, size_t b_len)
{
	return a_len == b_len && CRYPTO_memcmp(a, b, a_len) == 0;
}

static void
encode(struct str bytes, struct buf *out, const char *alphabet, bool is_padded)
{
	const uint8_t *b = (const uint8_t *)bytes.p;

	for (size_t i = 0; i < bytes.len; i += 3) {
		size_t left = bytes.len - i;
		uint32_t w = (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) |
			     (left > 2 ? b[i + 2] : 0);

		for (size_t k = 0; k < 4; k++) {
			if (k <= left)
				buf_add_char(out, alphabet[w >> (18 - 6 * k) & 63]);
			else if (is_padded)
				buf_add_char(out, '=');
		}
	}
}

#define BASE64_COMMON "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

static const char base64_alphabet[] = BASE64_COMMON "+/";
static const char base64url_alphabet[] = BASE64_COMMON "-_";

void
crypto_base64(struct str bytes, struct buf *out)
{
	encode(bytes, out, base64_alphabet, true);
}

void
crypto_base64url(struct str bytes, struct buf *out)
{
	encode(bytes, out, base64url_alphabet, false);
}

static int
base64_digit(char c)
{
	if (c == '-')
		c = '+';
	if (c == '_')
		c = '/';
	const char *at = c != '\0' ? strchr(base64_alphabet, c) : NULL;
	return at != NULL ? (int)(at - base64_alphabet) : -1;
}

bool
crypto_base64_decode(struct str text, struct buf *out)
{
	size_t before = out->len;
	uint32_t w = 0;
	int bits = 0, pad = 0;

	for (; pad < 2 && text.len > 0 && text.p[text.len - 1] == '='; pad++)
		text.len--;
	if (text.len % 4 == 1 || (pad > 0 && (text.len + (size_t)pad) % 4 != 0))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int d = base64_digit(text.p[i]);

		if (d < 0) {
			if (out->data != NULL)
				out->data[before] = '\0';
			out->len = before;
			return false;
		}
		w = w << 6 | (uint32_t)d;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			buf_add_char(out, (char)(w >> bits & 0xff));
		}
	}
	return true;
}
