/*
 * tls - see tls.h. TLS 1.2 and later; HTTP/2 is offered only where the config says so.
 */
#include "worker/http/tls.h"

#include <h2o.h>
#include <openssl/err.h>
#include <string.h>

#include "common/check.h"
#include "common/log.h"

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

SSL_CTX *
tls_new(const struct conf *conf)
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
	h2o_ssl_register_alpn_protocols(tls, conf->tls.http2 ? h2o_alpn_protocols : http1_only);
	return tls;
}
