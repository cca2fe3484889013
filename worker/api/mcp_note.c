/*
 * mcp_note - see mcp_impl.h: what sessions of older clients want to be told beside lists: changes
 * of resources (resources/subscribe), and what servers log (logging/setLevel).
 *
 * Every worker knows the wishes of all sessions, as it knows which have ended, and serves those
 * whose stream it has; so a stream may be opened again at another one. One that starts, or reaches
 * other hosts again, asks the others. What a session wanted is forgotten when it ends or expires;
 * of a pair (mcp_pair.c) only its home knows. So many of one key are remembered at most, so
 * that it leaves room for others.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/strmap.h"
#include "worker/api/mcp_impl.h"

enum { TELL_MAX_BYTES = 64 * 1024 };
enum op { OP_LEVEL, OP_SUBSCRIBE, OP_UNSUBSCRIBE };

struct subscription {
	struct list node;
	size_t server;
	char *uri;
};

struct note {
	struct list node; /* oldest first */
	uint64_t session;
	uint64_t owner; /* of its key's hash; 0: nobody, who has no limit of his own */
	int64_t until_ms;
	int level; /* MCP_LEVEL_NONE: it has set none */
	struct list subscriptions;
	uint32_t count;
};

struct mcp_notes {
	struct mcp_front *front;
	struct list all;
	struct strmap *by_session;
	struct strmap *owners; /* struct owner, of those that have any */
};

struct owner {
	uint32_t count;
};

static const char *const levels[] = {
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"};

int
mcp_level_parse(struct str text)
{
	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		if (str_eq(text, str_of(levels[i])))
			return (int)i;
	}
	return MCP_LEVEL_NONE;
}

int
mcp_level_of(struct str params)
{
	struct buf text = BUF_INIT;
	int level = MCP_LEVEL_NONE;

	if (params.len > 0 && jsonrpc_text_member(params, "level", &text))
		level = mcp_level_parse(buf_str(&text));
	buf_fini(&text);
	return level;
}

const char *
mcp_level_name(int level)
{
	check(level >= 0 && (size_t)level < ARRAY_LEN(levels));
	return levels[level];
}

/* ---- notes ---- */

static struct str
nonce_text(const uint64_t *nonce)
{
	return str_sub((const char *)nonce, sizeof(*nonce));
}

static struct note *
find(const struct mcp_notes *notes, uint64_t session)
{
	return strmap_get(notes->by_session, nonce_text(&session));
}

static void
subscription_free(struct note *n, struct subscription *s)
{
	list_del(&s->node);
	n->count--;
	free(s->uri);
	free(s);
}

static void
count_owner(struct mcp_notes *notes, uint64_t owner)
{
	struct owner *o = strmap_get(notes->owners, nonce_text(&owner));

	if (o == NULL) {
		o = xcalloc(1, sizeof(*o));
		strmap_set(notes->owners, nonce_text(&owner), o);
	}
	o->count++;
}

static void
uncount_owner(struct mcp_notes *notes, uint64_t owner)
{
	struct owner *o = strmap_get(notes->owners, nonce_text(&owner));

	check(o != NULL && o->count > 0);
	if (--o->count > 0)
		return;
	strmap_del(notes->owners, nonce_text(&owner));
	free(o);
}

static void
note_free(struct mcp_notes *notes, struct note *n)
{
	uncount_owner(notes, n->owner);
	list_for_safe (node, &n->subscriptions)
		subscription_free(n, list_entry(node, struct subscription, node));
	list_del(&n->node);
	strmap_del(notes->by_session, nonce_text(&n->session));
	free(n);
}

/* The most talkative of all. */
static void
apply_level(const struct mcp_notes *notes)
{
	int least = MCP_LEVEL_NONE;

	list_for (node, &notes->all) {
		const struct note *n = list_entry(node, struct note, node);

		if (n->level != MCP_LEVEL_NONE && (least == MCP_LEVEL_NONE || n->level < least))
			least = n->level;
	}
	if (least != MCP_LEVEL_NONE)
		mcp_set_log_level(notes->front->api->upstreams, levels[least]);
}

static void
forget_old(struct mcp_notes *notes)
{
	int64_t now = clock_wall_ms();

	list_for_safe (node, &notes->all) {
		struct note *n = list_entry(node, struct note, node);

		if (n->until_ms <= now)
			note_free(notes, n);
	}
}

static bool
is_full(const struct mcp_notes *notes, uint64_t owner)
{
	const struct conf *conf = notes->front->api->conf;
	const struct owner *o = owner != 0 ? strmap_get(notes->owners, nonce_text(&owner)) : NULL;

	return strmap_count(notes->by_session) >= (size_t)conf->mcp.max_noted ||
	       (o != NULL && o->count >= conf->mcp.max_noted_per_key);
}

/* NULL: there are too many. */
static struct note *
need(struct mcp_notes *notes, uint64_t session, uint64_t owner, int64_t until_ms)
{
	struct note *n = find(notes, session);

	if (n != NULL)
		return n;
	if (is_full(notes, owner))
		forget_old(notes);
	if (is_full(notes, owner))
		return NULL;
	n = xcalloc(1, sizeof(*n));
	n->session = session;
	n->owner = owner;
	count_owner(notes, owner);
	n->until_ms = until_ms;
	n->level = MCP_LEVEL_NONE;
	list_init(&n->subscriptions);
	list_add_tail(&notes->all, &n->node);
	strmap_set(notes->by_session, nonce_text(&n->session), n);
	return n;
}

static struct subscription *
find_subscription(const struct note *n, struct str uri)
{
	list_for (node, &n->subscriptions) {
		struct subscription *s = list_entry(node, struct subscription, node);

		if (str_eq(str_of(s->uri), uri))
			return s;
	}
	return NULL;
}

int
mcp_note_level(const struct mcp_front *front, uint64_t session)
{
	const struct note *n = session != 0 ? find(front->notes, session) : NULL;

	return n != NULL ? n->level : MCP_LEVEL_NONE;
}

void
mcp_note_forget(struct mcp_front *front, uint64_t session)
{
	struct note *n = find(front->notes, session);

	if (n == NULL)
		return;
	note_free(front->notes, n);
	apply_level(front->notes);
}

void
mcp_note_follow(struct mcp_feed *f)
{
	const struct note *n = find(f->front->notes, f->session);

	if (n == NULL)
		return;
	list_for (node, &n->subscriptions) {
		const struct subscription *s = list_entry(node, struct subscription, node);

		mcp_feed_watch(f, s->server, str_of(s->uri));
	}
}

/* ---- changes ---- */

struct change {
	enum op op;
	uint64_t session, owner;
	int64_t until_ms;
	uint64_t level;
	struct str server, uri;
};

static void
put_change(struct buf *b, const struct change *c)
{
	backplane_put_u64(b, c->op);
	backplane_put_u64(b, c->session);
	backplane_put_u64(b, (uint64_t)c->until_ms);
	backplane_put_u64(b, c->level);
	backplane_put_str(b, c->server);
	backplane_put_str(b, c->uri);
	backplane_put_u64(b, c->owner);
}

static bool
take_change(struct str *rest, struct change *c)
{
	uint64_t op, until_ms;

	if (!backplane_take_u64(rest, &op) || op > OP_UNSUBSCRIBE ||
	    !backplane_take_u64(rest, &c->session) || c->session == 0 ||
	    !backplane_take_u64(rest, &until_ms) || !backplane_take_u64(rest, &c->level) ||
	    c->level >= ARRAY_LEN(levels) || !backplane_take_str(rest, &c->server) ||
	    !backplane_take_str(rest, &c->uri))
		return false;
	/* A worker of an older binary does not say whose it is. */
	c->owner = 0;
	if (rest->len > 0 && !backplane_take_u64(rest, &c->owner))
		return false;
	c->op = (enum op)op;
	c->until_ms = (int64_t)until_ms;
	return true;
}

static bool
find_server(const struct mcp_front *front, struct str name, size_t *ret)
{
	const struct conf *conf = front->api->conf;

	for (size_t i = 0; i < conf->mcp.servers.n; i++) {
		if (str_eq(str_of(conf->mcp.servers.v[i].name), name)) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static int
subscribe(struct mcp_notes *notes, struct note *n, const struct change *c)
{
	size_t server;

	if (find_subscription(n, c->uri) != NULL || !find_server(notes->front, c->server, &server))
		return 0;
	if (n->count >= (uint64_t)notes->front->api->conf->mcp.max_subscriptions)
		return E_BUSY;
	struct subscription *s = xcalloc(1, sizeof(*s));
	s->server = server;
	s->uri = xstrndup(c->uri.p, c->uri.len);
	list_add_tail(&n->subscriptions, &s->node);
	n->count++;
	mcp_feeds_watch(notes->front, c->session, server, c->uri);
	return 0;
}

static void
unsubscribe(struct mcp_notes *notes, struct note *n, const struct change *c)
{
	struct subscription *s = find_subscription(n, c->uri);

	if (s == NULL)
		return;
	subscription_free(n, s);
	mcp_feeds_unwatch(notes->front, c->session, c->uri);
}

/* 0, or E_BUSY: there is no room for it. */
static int
apply(struct mcp_notes *notes, const struct change *c)
{
	struct note *n = need(notes, c->session, c->owner, c->until_ms);

	if (n == NULL)
		return E_BUSY;
	if (c->op == OP_SUBSCRIBE)
		return subscribe(notes, n, c);
	if (c->op == OP_UNSUBSCRIBE) {
		unsubscribe(notes, n, c);
	} else {
		n->level = (int)c->level;
		apply_level(notes);
	}
	return 0;
}

/* ---- other workers ---- */

static void
put_note(const struct mcp_notes *notes, struct buf *b, const struct note *n)
{
	struct change c = {.session = n->session, .owner = n->owner, .until_ms = n->until_ms};

	if (n->level != MCP_LEVEL_NONE) {
		c.level = (uint64_t)n->level;
		put_change(b, &c);
	}
	c.op = OP_SUBSCRIBE;
	c.level = 0;
	list_for (node, &n->subscriptions) {
		const struct subscription *s = list_entry(node, struct subscription, node);

		c.server = str_of(notes->front->api->conf->mcp.servers.v[s->server].name);
		c.uri = str_of(s->uri);
		put_change(b, &c);
	}
}

/* All that is known here, but for the pairs of this worker. */
static void
tell_all(const struct mcp_notes *notes, const struct backplane_addr *to)
{
	struct buf b = BUF_INIT;

	list_for (node, &notes->all) {
		const struct note *n = list_entry(node, struct note, node);

		if (mcp_pair_find(notes->front, n->session) == NULL)
			put_note(notes, &b, n);
		if (b.len >= TELL_MAX_BYTES) {
			mcp_tell(notes->front, to, BACKPLANE_MCP_NOTE, buf_str(&b));
			buf_clear(&b);
		}
	}
	if (b.len > 0)
		mcp_tell(notes->front, to, BACKPLANE_MCP_NOTE, buf_str(&b));
	buf_fini(&b);
}

static void
on_note(void *arg, const struct backplane_call *call)
{
	struct mcp_notes *notes = arg;
	struct str rest = call->payload;
	struct change c;

	if (rest.len == 0)
		tell_all(notes, &call->from);
	while (rest.len > 0 && take_change(&rest, &c)) {
		if (!mcp_life_has_ended(notes->front, c.session))
			apply(notes, &c);
	}
}

static void
ask_all(struct mcp_notes *notes)
{
	mcp_tell(notes->front, NULL, BACKPLANE_MCP_NOTE, STR_NONE);
}

/* As of sessions that have ended: who is asked may not be back itself. */
static void
on_resumed(void *arg)
{
	struct mcp_notes *notes = arg;

	ask_all(notes);
	if (mcp_tells_for_host(notes->front))
		tell_all(notes, NULL);
}

/* ---- requests ---- */

static void
make(struct mcp_ask *a, struct change *c)
{
	struct mcp_front *front = a->front;
	struct buf b = BUF_INIT;

	c->session = a->session;
	memcpy(&c->owner, a->call->key_hash, sizeof(c->owner));
	c->until_ms = a->is_paired ? INT64_MAX : a->until_ms;
	if (apply(front->notes, c) != 0) {
		mcp_ask_refuse(a, 200, MCP_SERVER_ERROR, "There is no room for one more", STR_NONE);
		return;
	}
	if (!a->is_paired) {
		put_change(&b, c);
		backplane_broadcast(
		    front->api->backplane, BACKPLANE_MCP_NOTE, buf_str(&b), NULL, NULL);
	}
	buf_fini(&b);
	mcp_ask_reply(a, STR("{}"));
}

void
mcp_set_level(struct mcp_ask *a)
{
	int level = mcp_level_of(a->params);
	struct change c = {.op = OP_LEVEL, .level = (uint64_t)level};

	if (level == MCP_LEVEL_NONE)
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "level is none of them", STR_NONE);
	else
		make(a, &c);
}

static void
subscribe_or_not(struct mcp_ask *a, enum op op)
{
	struct buf uri = BUF_INIT;
	struct change c = {.op = op};
	size_t server;

	if (a->params.len == 0 || !jsonrpc_text_member(a->params, "uri", &uri) || uri.len == 0 ||
	    uri.len > MCP_URI_MAX) {
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "uri is required", STR_NONE);
	} else if (op == OP_SUBSCRIBE && !mcp_find_resource(a->call, buf_str(&uri), &server)) {
		mcp_refuse_resource(a, buf_str(&uri));
	} else {
		c.uri = buf_str(&uri);
		if (op == OP_SUBSCRIBE)
			c.server = str_of(a->front->api->conf->mcp.servers.v[server].name);
		make(a, &c);
	}
	buf_fini(&uri);
}

void
mcp_subscribe(struct mcp_ask *a)
{
	subscribe_or_not(a, OP_SUBSCRIBE);
}

void
mcp_unsubscribe(struct mcp_ask *a)
{
	subscribe_or_not(a, OP_UNSUBSCRIBE);
}

/* ---- life ---- */

struct mcp_notes *
mcp_notes_new(struct mcp_front *front)
{
	struct mcp_notes *notes = xcalloc(1, sizeof(*notes));
	struct backplane *backplane = front->api->backplane;

	notes->front = front;
	list_init(&notes->all);
	notes->by_session = strmap_new();
	notes->owners = strmap_new();
	backplane_serve(backplane, BACKPLANE_MCP_NOTE, on_note, notes);
	backplane_on_resumed(backplane, on_resumed, notes);
	ask_all(notes);
	return notes;
}

void
mcp_notes_free(struct mcp_notes **ref)
{
	struct mcp_notes *notes = *ref;

	if (notes == NULL)
		return;
	*ref = NULL;
	list_for_safe (node, &notes->all)
		note_free(notes, list_entry(node, struct note, node));
	strmap_free(&notes->by_session);
	strmap_free(&notes->owners);
	free(notes);
}
