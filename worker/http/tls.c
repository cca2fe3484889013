/*
 * tls - see tls.h. TLS 1.2 and later; HTTP/2 is offered only where the config says so.
 *
 * Sessions are resumed by tickets alone, whose keys all workers share (common/tickets.h): nothing
 * is kept here for a client that may never come back.
 */
#include "worker/http/tls.h"

#include <h2o.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"
#include "common/tickets.h"

static int tickets_index = -1; /* of the context's data */

static void
log_failure(const char *what, const char *file)
{
	char reason[256];

	ERR_error_string_n(ERR_peek_last_error(), reason, sizeof(reason));
	ERR_clear_error();
	log_error("certificate not usable what=%s file=%s reason=%s", what,
	    log_quote(str_of(file)).s, log_quote(str_of(reason)).s);
}

static bool
load_files(SSL_CTX *tls, const struct conf *conf)
{
	if (SSL_CTX_use_certificate_chain_file(tls, conf->tls.certificate) != 1) {
		log_failure("certificate", conf->tls.certificate);
		return false;
	}
	if (SSL_CTX_use_PrivateKey_file(tls, conf->tls.key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(tls) != 1) {
		log_failure("key", conf->tls.key);
		return false;
	}
	return true;
}

/* ---- tickets ---- */

static bool
use_key(struct ticket_key *key, EVP_MAC_CTX *mac)
{
	static char digest[] = "SHA256";
	OSSL_PARAM params[] = {
	    OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac, sizeof(key->hmac)),
	    OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
	    OSSL_PARAM_construct_end(),
	};

	return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 0 means a full handshake, 2 that a new ticket is due. */
static int
seal(const struct tickets *tickets, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac)
{
	struct ticket_key key;

	if (!tickets_get(tickets, TICKET_PRESENT, &key) ||
	    RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
		return 0;
	memcpy(name, key.name, sizeof(key.name));
	return EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) == 1 &&
	       use_key(&key, mac);
}

static int
unseal(const struct tickets *tickets, const unsigned char *name, const unsigned char *iv,
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
	struct ticket_key key;

	for (int i = 0; i < TICKET_PERIODS; i++) {
		if (!tickets_get(tickets, (enum ticket_period)i, &key) ||
		    memcmp(name, key.name, sizeof(key.name)) != 0)
			continue;
		if (EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) != 1 ||
		    !use_key(&key, mac))
			return 0;
		return i == TICKET_PRESENT ? 1 : 2;
	}
	return 0;
}

static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int is_sealing)
{
	const struct tickets *tickets = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tickets_index);

	return is_sealing ? seal(tickets, name, iv, cipher, mac)
			  : unseal(tickets, name, iv, cipher, mac);
}

static void
share_tickets(SSL_CTX *tls, const struct conf *conf, struct tickets *tickets)
{
	if (tickets_index < 0)
		tickets_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	check(tickets_index >= 0 && SSL_CTX_set_ex_data(tls, tickets_index, tickets) == 1);
	check(SSL_CTX_set_tlsext_ticket_key_evp_cb(tls, on_ticket) == 1);
	SSL_CTX_set_timeout(tls, (long)(conf->tls.ticket_lifetime_ms / 1000));
}

SSL_CTX *
tls_new(const struct conf *conf, struct tickets *tickets)
{
	static char http1[] = "http/1.1";
	static const h2o_iovec_t http1_only[] = {{http1, sizeof(http1) - 1}, {NULL, 0}};
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	bool is_13_only = strcmp(conf->tls.min_version, "1.3") == 0;

	check(tls != NULL);
	if (!load_files(tls, conf)) {
		SSL_CTX_free(tls);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(tls, is_13_only ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(
	    tls, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	/* 24 KB a connection become 15. */
	SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
	share_tickets(tls, conf, tickets);
	h2o_ssl_register_alpn_protocols(tls, conf->tls.http2 ? h2o_alpn_protocols : http1_only);
	return tls;
}
