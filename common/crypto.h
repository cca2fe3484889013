/*
 * crypto - hashes, randomness and encodings, by OpenSSL and the kernel.
 */
#ifndef COMMON_CRYPTO_H
#define COMMON_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum { SHA256_LEN = 32, SHA256_HEX_LEN = 64, SHA1_LEN = 20 };

/* Good randomness; buffered, and made anew in a forked child. Never fails. */
void crypto_random(void *out, size_t len);

void crypto_sha256(struct str data, uint8_t out[SHA256_LEN]);
void crypto_sha1(struct str data, uint8_t out[SHA1_LEN]); /* for protocols that fix it; no secret */
void crypto_hmac_sha256(struct str key, struct str data, uint8_t out[SHA256_LEN]);

void crypto_hex(const void *bytes, size_t len, char *out); /* 2 * len + 1 bytes, lower case, NUL */

/* AES-256-GCM with a random nonce (NIST SP 800-38D): 12 bytes of it, the sealed bytes, 16 of tag;
 * appends. crypto_open() is false, and *out as it was, when it was not sealed with that key. */
void crypto_seal(const uint8_t key[SHA256_LEN], struct str bytes, struct buf *out);
bool crypto_open(const uint8_t key[SHA256_LEN], struct str sealed, struct buf *out);

/* Constant time in the contents; lengths may differ (then false). */
bool crypto_equal(const void *a, size_t a_len, const void *b, size_t b_len);

void crypto_base64(struct str bytes, struct buf *out);    /* RFC 4648 section 4, padded; appends */
void crypto_base64url(struct str bytes, struct buf *out); /* section 5, not padded; appends */
/* Either alphabet, padding optional; false (and *out as it was) when it is neither. */
bool crypto_base64_decode(struct str text, struct buf *out);

#endif
