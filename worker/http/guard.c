/*
 * guard - see guard.h. Rates are windows of the limiter, open connections are counted in peers.
 */
#include "worker/http/guard.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limiter.h"
#include "common/log.h"
#include "common/peers.h"

enum {
	OVER_MAX = 64, /* connections of a worker that wait to be told 429; more are just closed */
	PEERS_RETRY_S = 5,
};

static const struct {
	unsigned label;
	const char *name, *kind; /* of the limiter's keys */
	const char *text;
} reasons[] = {
    [GUARD_CONNECTIONS] = {REJECT_ADDRESS, "address", "peers",
	"Too many open connections from this address."},
    [GUARD_RATE] = {REJECT_RATE, "rate", "conn", "Too many new connections from this address."},
    [GUARD_TLS] = {REJECT_HANDSHAKE, "handshake", "tls", "Too many handshakes from this address."},
    [GUARD_UPGRADE] = {REJECT_HANDSHAKE, "handshake", "upgrade",
	"Too many handshakes from this address."},
};

static bool
is_limited(const struct http_server *s, const struct addr *a)
{
	return a->kind == ADDR_IP && !(s->trusted.n > 0 && addr_nets_have(&s->trusted, a));
}

static struct limiter_key
key_of(const struct addr *a, enum guard_reason why)
{
	char network[ADDR_TEXT_MAX];

	addr_format_network(a, network);
	return limiter_key_of(reasons[why].kind, str_of(network));
}

/* limit 0: none. */
static bool
takes_one(const struct http_server *s, const struct addr *a, enum guard_reason why, int64_t limit,
    uint32_t *ret_retry_s)
{
	const struct limiter_rule rule = {
	    (uint32_t)limit, (uint32_t)s->conf->limits.connection_window_ms};
	struct limiter_verdict v;

	if (limit == 0)
		return true;
	v = limiter_take(s->handoff->shm, key_of(a, why), rule, 1, clock_mono_ms());
	*ret_retry_s = (v.retry_after_ms + 999) / 1000;
	return v.is_allowed;
}

static bool
enters(struct http_conn *c, const struct addr *a)
{
	const struct http_server *s = c->listener->server;
	int64_t limit = s->conf->limits.address_connections;
	struct limiter_key key;
	uint64_t hash;

	if (limit == 0)
		return true;
	key = key_of(a, GUARD_CONNECTIONS);
	memcpy(&hash, key.bytes, sizeof(hash));
	return peers_enter(s->handoff->shm, s->handoff->who, hash, (uint32_t)limit, &c->peer_place);
}

static void
tell(const struct http_server *s, const struct addr *a, enum guard_reason why)
{
	char client[ADDR_TEXT_MAX];

	addr_format(a, client);
	log_warn("connection refused reason=%s client=%s slot=%u", reasons[why].name, client,
	    s->handoff->slot);
	metric_add(METRIC_CONNECTIONS_REJECTED, reasons[why].label, 0, 1);
}

static enum guard_reason
judge(struct http_conn *c, const struct addr *a, uint32_t *ret_retry_s)
{
	const struct http_server *s = c->listener->server;

	if (!takes_one(s, a, GUARD_RATE, s->conf->limits.connection_rate, ret_retry_s))
		return GUARD_RATE;
	if (c->listener->from->is_tls &&
	    !takes_one(s, a, GUARD_TLS, s->conf->limits.handshake_rate, ret_retry_s))
		return GUARD_TLS;
	*ret_retry_s = PEERS_RETRY_S;
	return enters(c, a) ? GUARD_NOTHING : GUARD_CONNECTIONS;
}

bool
guard_admit(struct http_conn *c)
{
	struct http_server *s = c->listener->server;
	const struct addr *a;
	uint32_t retry_s = 1;
	enum guard_reason why;

	if ((s->conf->limits.address_connections == 0 && s->conf->limits.connection_rate == 0 &&
		s->conf->limits.handshake_rate == 0) ||
	    c->listener->from->is_metrics)
		return true;
	a = c->client.kind != ADDR_NONE ? &c->client : conn_peer(c);
	if (!is_limited(s, a))
		return true;
	why = judge(c, a, &retry_s);
	if (why == GUARD_NOTHING)
		return true;
	tell(s, a, why);
	if (c->listener->from->is_tls || s->over >= OVER_MAX)
		return false;
	s->over++;
	c->over = (uint8_t)why;
	c->over_retry_s = retry_s > 0 ? retry_s : 1;
	return true;
}

uint16_t
guard_adopt(struct http_server *s, int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	uint16_t place = 0;
	uint64_t hash;

	if (s->conf->limits.address_connections == 0 ||
	    getpeername(fd, (struct sockaddr *)&sa, &len) != 0)
		return 0;
	struct addr a = addr_of_sockaddr((struct sockaddr *)&sa);
	if (!is_limited(s, &a))
		return 0;
	struct limiter_key key = key_of(&a, GUARD_CONNECTIONS);
	memcpy(&hash, key.bytes, sizeof(hash));
	/* It was let in long ago: counted as far as there is a place, never refused. */
	return peers_enter(s->handoff->shm, s->handoff->who, hash, PEERS_LIMIT_MAX, &place) ? place
											    : 0;
}

void
guard_leave(struct http_server *s, uint16_t place, bool is_over)
{
	peers_leave(s->handoff->shm, s->handoff->who, place);
	if (is_over)
		s->over--;
}

void
guard_refuse(struct http_req *r)
{
	r->is_last = true;
	http_reply_retry(r, E_RATE_LIMITED, r->conn->over_retry_s, reasons[r->conn->over].text);
}

bool
guard_may_upgrade(struct http_req *r)
{
	struct http_server *s = r->server;
	struct addr a;
	uint32_t retry_s = 1;

	if ((r->route->flags & HTTP_UPGRADE) == 0 || s->conf->limits.handshake_rate == 0)
		return true;
	a = asked_client(r);
	if (!is_limited(s, &a) ||
	    takes_one(s, &a, GUARD_UPGRADE, s->conf->limits.handshake_rate, &retry_s))
		return true;
	tell(s, &a, GUARD_UPGRADE);
	http_reply_retry(r, E_RATE_LIMITED, retry_s, reasons[GUARD_UPGRADE].text);
	return false;
}
