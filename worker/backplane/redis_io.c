/* redis_io - see redis_io.h. */
#include "worker/backplane/redis_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/metric.h"

struct redis_io {
	int fd;
	bool is_connected; /* the socket */
	SSL *ssl;          /* NULL: none */
	bool is_secure;    /* its handshake is done */
	char error[160];
};

/* ---- TLS ---- */

struct ssl_ctx_st *
redis_io_tls_new(const char *ca_file, const char **ret_error)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

	check(tls != NULL);
	SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				  SSL_MODE_RELEASE_BUFFERS);
	int ok = ca_file[0] != '\0' ? SSL_CTX_load_verify_locations(tls, ca_file, NULL)
				    : SSL_CTX_set_default_verify_paths(tls);
	if (ok != 1) {
		ERR_clear_error();
		SSL_CTX_free(tls);
		*ret_error = "backplane.ca_file cannot be read";
		return NULL;
	}
	return tls;
}

void
redis_io_tls_free(struct ssl_ctx_st **tls)
{
	SSL_CTX_free(*tls);
	*tls = NULL;
}

static bool
is_address(const char *host)
{
	struct in6_addr any;

	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static void
add_tls(struct redis_io *io, SSL_CTX *tls, const char *host)
{
	io->ssl = SSL_new(tls);
	check(io->ssl != NULL && SSL_set_fd(io->ssl, io->fd) == 1);
	if (is_address(host)) {
		X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(io->ssl), host);
	} else {
		SSL_set_tlsext_host_name(io->ssl, host);
		SSL_set1_host(io->ssl, host);
	}
	SSL_set_connect_state(io->ssl);
}

static void
keep_error(struct redis_io *io, const char *what, const char *detail)
{
	snprintf(io->error, sizeof(io->error), "%s%s%s", what, detail != NULL ? ": " : "",
	    detail != NULL ? detail : "");
}

static int
tls_result(struct redis_io *io, int ret)
{
	int saved = errno;

	switch (SSL_get_error(io->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		return REDIS_IO_READ;
	case SSL_ERROR_WANT_WRITE:
		return REDIS_IO_WRITE;
	case SSL_ERROR_ZERO_RETURN:
		keep_error(io, "closed", NULL);
		break;
	case SSL_ERROR_SYSCALL:
		keep_error(io, "TLS", saved != 0 ? strerror(saved) : "connection closed");
		break;
	default: {
		long verify = SSL_get_verify_result(io->ssl);
		unsigned long err = ERR_peek_error();

		keep_error(io, "TLS",
		    verify != X509_V_OK ? X509_verify_cert_error_string(verify)
					: ERR_reason_error_string(err));
	}
	}
	ERR_clear_error();
	return REDIS_IO_END;
}

/* ---- life ---- */

struct redis_io *
redis_io_open(const struct netaddr *addr, struct ssl_ctx_st *tls, const char *host)
{
	struct redis_io *io;
	int one = 1;
	int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return NULL;
	if (addr->sa.sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	}
	int rc = connect(fd, &addr->sa, addr->len);
	if (rc < 0 && errno != EINPROGRESS) { /* also EAGAIN: a Unix backlog that is full */
		int saved = errno;

		close(fd);
		errno = saved;
		return NULL;
	}
	io = xcalloc(1, sizeof(*io));
	io->fd = fd;
	io->is_connected = rc == 0;
	metric_gauge(METRIC_BACKPLANE_CONNECTIONS, 0, 0, 1);
	if (tls != NULL)
		add_tls(io, tls, host);
	return io;
}

void
redis_io_close(struct redis_io **ref)
{
	struct redis_io *io = *ref;

	if (io == NULL)
		return;
	*ref = NULL;
	if (io->ssl != NULL && io->is_secure)
		SSL_shutdown(io->ssl); /* says good-bye if the socket takes it */
	SSL_free(io->ssl);
	ERR_clear_error();
	close(io->fd);
	metric_gauge(METRIC_BACKPLANE_CONNECTIONS, 0, 0, -1);
	free(io);
}

int
redis_io_fd(const struct redis_io *io)
{
	return io->fd;
}

const char *
redis_io_error(const struct redis_io *io)
{
	return io->error;
}

/* ---- verbs ---- */

static int
finish_connect(struct redis_io *io)
{
	int err = 0;
	socklen_t len = sizeof(err);
	struct sockaddr_storage peer;
	socklen_t peer_len = sizeof(peer);

	if (getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err == 0 && getpeername(io->fd, (struct sockaddr *)&peer, &peer_len) < 0) {
		if (errno == ENOTCONN)
			return REDIS_IO_WRITE;
		err = errno;
	}
	if (err != 0) {
		keep_error(io, "connect", strerror(err));
		return REDIS_IO_END;
	}
	io->is_connected = true;
	return 0;
}

int
redis_io_connect(struct redis_io *io)
{
	if (!io->is_connected) {
		int rc = finish_connect(io);

		if (rc != 0)
			return rc;
	}
	if (io->ssl == NULL || io->is_secure)
		return 0;
	ERR_clear_error();
	errno = 0;
	int ret = SSL_do_handshake(io->ssl);
	if (ret != 1)
		return tls_result(io, ret);
	io->is_secure = true;
	return 0;
}

ssize_t
redis_io_read(struct redis_io *io, char *to, size_t room)
{
	if (io->ssl != NULL) {
		ERR_clear_error();
		errno = 0;
		int n = SSL_read(io->ssl, to, (int)(room < INT32_MAX ? room : INT32_MAX));
		return n > 0 ? n : tls_result(io, n);
	}
	ssize_t n = read(io->fd, to, room);
	if (n > 0)
		return n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return REDIS_IO_READ;
	keep_error(io, n == 0 ? "closed" : "read", n == 0 ? NULL : strerror(errno));
	return REDIS_IO_END;
}

ssize_t
redis_io_write(struct redis_io *io, const char *bytes, size_t len)
{
	if (io->ssl != NULL) {
		ERR_clear_error();
		errno = 0;
		int n = SSL_write(io->ssl, bytes, (int)(len < INT32_MAX ? len : INT32_MAX));
		return n > 0 ? n : tls_result(io, n);
	}
	ssize_t n = send(io->fd, bytes, len, MSG_NOSIGNAL);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return REDIS_IO_WRITE;
	keep_error(io, "write", strerror(errno));
	return REDIS_IO_END;
}
