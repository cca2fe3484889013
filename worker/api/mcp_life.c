/*
 * mcp_life - see mcp_impl.h.
 *
 * A session is its id (worker/mcp/ticket.h): nothing is kept while it lives. That one has ended
 * before its time is told to all workers, which remember it until it would have; a worker that
 * starts, or that reaches other hosts again, asks them. Who is asked may not be back itself: so the
 * first of a host also tells what it knows when it is.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/strmap.h"
#include "worker/api/mcp_impl.h"

enum { KEY_WORDS = SHM_WORD_MCP_KEY_LAST - SHM_WORD_MCP_KEY + 1, TELL_MAX = 500 };

struct ended {
	struct list node; /* oldest first */
	uint64_t nonce;
	int64_t until_ms;
};

struct mcp_life {
	struct mcp_front *front;
	uint8_t key[SHA256_LEN];
	struct list ended;
	struct strmap *by_nonce;
};

/* ---- the key ---- */

/* Whoever comes first chooses a word. True: the first one was ours. */
static bool
shared_key(struct shm *shm, uint8_t out[SHA256_LEN])
{
	bool is_first = false;

	for (int i = 0; i < KEY_WORDS; i++) {
		_Atomic uint64_t *word = shm_word(shm, SHM_WORD_MCP_KEY + i);
		uint64_t none = 0, mine;

		crypto_random(&mine, sizeof(mine));
		mine |= 1; /* 0 is none */
		if (atomic_compare_exchange_strong(word, &none, mine) && i == 0)
			is_first = true;
		mine = atomic_load(word);
		memcpy(out + i * (int)sizeof(mine), &mine, sizeof(mine));
	}
	return is_first;
}

static void
take_key(struct mcp_life *l, const struct api *api)
{
	const char *secret = api->conf->mcp.session_secret;

	if (secret != NULL && *secret != '\0')
		crypto_hmac_sha256(str_of(secret), STR("parley mcp sessions"), l->key);
	else if (shared_key(api->shm, l->key) && *api->conf->backplane.url != '\0')
		log_info("mcp sessions are of this host alone option=mcp.session_secret");
}

static struct str
key_of(const struct mcp_life *l)
{
	return str_sub((const char *)l->key, sizeof(l->key));
}

/* ---- what workers tell each other ---- */

void
mcp_tell(const struct mcp_front *front, const struct backplane_addr *to,
    enum backplane_method method, struct str what)
{
	struct backplane *backplane = front->api->backplane;

	if (to == NULL)
		backplane_broadcast(backplane, method, what, NULL, NULL);
	else
		backplane_cast(backplane, *to, method, what);
}

bool
mcp_tells_for_host(const struct mcp_front *front)
{
	return shm_is_first(front->api->shm, backplane_self(front->api->backplane).who);
}

/* ---- those that have ended ---- */

static struct str
nonce_text(const uint64_t *nonce)
{
	return str_sub((const char *)nonce, sizeof(*nonce));
}

static void
forget(struct mcp_life *l, struct ended *e)
{
	list_del(&e->node);
	strmap_del(l->by_nonce, nonce_text(&e->nonce));
	free(e);
}

static void
forget_old(struct mcp_life *l)
{
	size_t max = (size_t)l->front->api->conf->mcp.max_ended;
	int64_t now = clock_wall_ms();
	struct ended *e;

	while ((e = list_first(&l->ended, struct ended, node)) != NULL &&
	       (e->until_ms <= now || strmap_count(l->by_nonce) > max))
		forget(l, e);
}

static void
remember(struct mcp_life *l, uint64_t nonce, int64_t until_ms)
{
	struct ended *e;

	if (nonce == 0 || strmap_get(l->by_nonce, nonce_text(&nonce)) != NULL)
		return;
	e = xcalloc(1, sizeof(*e));
	e->nonce = nonce;
	e->until_ms = until_ms;
	list_add_tail(&l->ended, &e->node);
	strmap_set(l->by_nonce, nonce_text(&nonce), e);
	forget_old(l);
	mcp_note_forget(l->front, nonce);
	mcp_feeds_end(l->front, nonce);
}

static void
put_ended(struct buf *b, uint64_t nonce, int64_t until_ms)
{
	backplane_put_u64(b, nonce);
	backplane_put_u64(b, (uint64_t)until_ms);
}

/* All that is remembered here; what does not fit into a queue is missed. */
static void
tell_all(struct mcp_life *l, const struct backplane_addr *to)
{
	struct buf b = BUF_INIT;
	unsigned n = 0;

	list_for (node, &l->ended) {
		const struct ended *e = list_entry(node, struct ended, node);

		put_ended(&b, e->nonce, e->until_ms);
		if (++n % TELL_MAX == 0) {
			mcp_tell(l->front, to, BACKPLANE_MCP_ENDED, buf_str(&b));
			buf_clear(&b);
		}
	}
	if (b.len > 0)
		mcp_tell(l->front, to, BACKPLANE_MCP_ENDED, buf_str(&b));
	buf_fini(&b);
}

static void
on_ended(void *arg, const struct backplane_call *call)
{
	struct mcp_life *l = arg;
	struct str rest = call->payload;
	uint64_t nonce, until;

	if (rest.len == 0) {
		tell_all(l, &call->from);
		return;
	}
	while (
	    rest.len > 0 && backplane_take_u64(&rest, &nonce) && backplane_take_u64(&rest, &until))
		remember(l, nonce, (int64_t)until);
}

static void
ask_all(struct mcp_life *l)
{
	mcp_tell(l->front, NULL, BACKPLANE_MCP_ENDED, STR_NONE);
}

static void
on_resumed(void *arg)
{
	struct mcp_life *l = arg;

	ask_all(l);
	if (mcp_tells_for_host(l->front))
		tell_all(l, NULL);
}

static void
on_missed(void *arg, struct backplane_addr addr)
{
	(void)arg;
	log_info("mcp session's end not told worker=%u reason=\"its queue is full\"", addr.who.row);
}

int64_t
mcp_life_until_ms(const struct mcp_front *front, const struct mcp_ticket *t)
{
	return t->issued_ms + (int64_t)front->api->conf->mcp.session_life_ms;
}

void
mcp_life_end(struct mcp_front *front, const struct mcp_ticket *t)
{
	struct buf b = BUF_INIT;

	put_ended(&b, t->nonce, mcp_life_until_ms(front, t));
	backplane_broadcast(
	    front->api->backplane, BACKPLANE_MCP_ENDED, buf_str(&b), on_missed, NULL);
	buf_fini(&b);
	remember(front->life, t->nonce, mcp_life_until_ms(front, t));
}

/* ---- ids ---- */

static const char *
begin(struct mcp_front *front, struct api_call *call, struct mcp_ticket *t)
{
	char *text = arena_alloc(&call->arena, TICKET_TEXT_LEN + 1);

	t->issued_ms = clock_wall_ms();
	memcpy(t->owner, call->key_hash, TICKET_OWNER_LEN);
	while (t->nonce == 0)
		crypto_random(&t->nonce, sizeof(t->nonce));
	mcp_ticket_format(t, key_of(front->life), text);
	return text;
}

const char *
mcp_life_begin(
    struct mcp_front *front, struct api_call *call, enum mcp_revision revision, uint8_t caps)
{
	struct mcp_ticket t = {.revision = revision, .caps = caps};

	return begin(front, call, &t);
}

const char *
mcp_life_begin_pair(struct mcp_front *front, struct api_call *call, struct mcp_ticket *ret)
{
	struct backplane_addr self = backplane_self(front->api->backplane);

	*ret = (struct mcp_ticket){
	    .revision = MCP_2024_11_05, .home = {self.host, self.who.row, self.who.number}};
	return begin(front, call, ret);
}

bool
mcp_life_has_ended(const struct mcp_front *front, uint64_t session)
{
	return strmap_get(front->life->by_nonce, nonce_text(&session)) != NULL;
}

static bool
is_alive(const struct mcp_front *front, const struct api_call *call, const struct mcp_ticket *t)
{
	return t->home.host == 0 && memcmp(t->owner, call->key_hash, TICKET_OWNER_LEN) == 0 &&
	       mcp_life_until_ms(front, t) > clock_wall_ms() &&
	       !mcp_life_has_ended(front, t->nonce);
}

bool
mcp_life_read_pair(
    struct mcp_front *front, const struct api_call *call, struct str id, struct mcp_ticket *ret)
{
	return mcp_ticket_parse(id, key_of(front->life), ret) && ret->home.host != 0 &&
	       memcmp(ret->owner, call->key_hash, TICKET_OWNER_LEN) == 0;
}

static void
refuse(struct api_call *call, struct http_req *req, int status, int code, const char *why)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_error(&b, STR_NONE, code, str_of(why), STR_NONE);
	http_reply(req, status, "application/json", buf_str(&b));
	buf_fini(&b);
	call_end(call);
}

bool
mcp_life_check(struct api_call *call, struct http_req *req, struct mcp_ticket *ret)
{
	struct mcp_front *front = call->api->mcp;
	struct str id = http_header(req, "mcp-session-id");
	struct str revision = http_header(req, "mcp-protocol-version");

	if (revision.p != NULL && mcp_revision_parse(str_trim(revision)) == MCP_REVISION_NONE)
		refuse(call, req, 400, MCP_SERVER_ERROR, "Unsupported MCP-Protocol-Version");
	else if (id.p == NULL)
		refuse(call, req, 400, MCP_SERVER_ERROR, "Mcp-Session-Id is required");
	else if (!mcp_ticket_parse(str_trim(id), key_of(front->life), ret) ||
		 !is_alive(front, call, ret))
		refuse(call, req, 404, MCP_SESSION_NOT_FOUND, "Session not found");
	else
		return true;
	return false;
}

/* ---- requests that are taken back ---- */

void
mcp_life_take_back(struct mcp_front *front, const struct mcp_ticket *t, struct str id)
{
	struct buf b = BUF_INIT;

	backplane_put_u64(&b, t->nonce);
	backplane_put_str(&b, id);
	backplane_broadcast(front->api->backplane, BACKPLANE_MCP_STOP, buf_str(&b), NULL, NULL);
	buf_fini(&b);
	mcp_ask_take_back(front, t->nonce, id);
}

static void
on_stop(void *arg, const struct backplane_call *call)
{
	struct mcp_life *l = arg;
	struct str rest = call->payload, id;
	uint64_t nonce;

	if (backplane_take_u64(&rest, &nonce) && nonce != 0 && backplane_take_str(&rest, &id))
		mcp_ask_take_back(l->front, nonce, id);
}

/* ---- life ---- */

struct mcp_life *
mcp_life_new(struct mcp_front *front)
{
	struct mcp_life *l = xcalloc(1, sizeof(*l));
	struct backplane *backplane = front->api->backplane;

	l->front = front;
	list_init(&l->ended);
	l->by_nonce = strmap_new();
	take_key(l, front->api);
	backplane_serve(backplane, BACKPLANE_MCP_ENDED, on_ended, l);
	backplane_serve(backplane, BACKPLANE_MCP_STOP, on_stop, l);
	backplane_on_resumed(backplane, on_resumed, l);
	ask_all(l);
	return l;
}

void
mcp_life_free(struct mcp_life **ref)
{
	struct mcp_life *l = *ref;
	struct ended *e;

	if (l == NULL)
		return;
	*ref = NULL;
	while ((e = list_first(&l->ended, struct ended, node)) != NULL)
		forget(l, e);
	strmap_free(&l->by_nonce);
	free(l);
}
