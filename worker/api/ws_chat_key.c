/*
 * ws_chat_key - the keys of open sockets: when keys change each is looked up again,
 * and the sockets of one that holds no more are closed.
 *
 * Every socket may have a key of its own, minted for its device. So they are looked up
 * a few in each round of the loop, and the sockets are gone through once for all keys
 * that have become void in a round.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/api/ws_chat_impl.h"

enum {
	AGAIN_MS = 1000,     /* when the record could not be asked */
	RECHECKS_MAX = 64,   /* under way */
	RECHECK_BATCH = 256, /* in one round, of those that are answered at once */
};

static struct str
hash_str(const struct chat_key *k)
{
	return str_sub((const char *)k->hash, sizeof(k->hash));
}

static void
run_close_void(struct loop_post *post)
{
	struct chats *c = container_of(post, struct chats, close_void);
	uint32_t cursor = 0;

	for (struct chat_socket *cs; (cs = idmap_next(c->sockets, &cursor)) != NULL;)
		chat_socket_consider_key(cs);
}

static void
make_void(struct chat_key *k, const char *reason)
{
	if (k->void_reason != NULL)
		return;
	k->void_reason = reason;
	log_info("websockets closed reason=\"%s\" key=%s", reason, k->key_id);
	loop_post(k->chats->api->loop, &k->chats->close_void);
}

static void
on_expiry(struct wheel_entry *e)
{
	make_void(container_of(e, struct chat_key, expiry), "key expired");
}

/* ---- looked up again ---- */

static void
go_on(struct chats *c)
{
	if (!list_empty(&c->stale_keys) && c->rechecks < RECHECKS_MAX &&
	    !loop_timer_is_set(&c->recheck))
		loop_timer_set(c->api->loop, &c->recheck, 0);
}

static void
on_rechecked(void *arg, int err, const struct principal *who)
{
	struct chat_key *k = arg;
	struct chats *c = k->chats;
	bool is_unsure = err != 0 && err != E_UNAUTHORIZED;

	c->rechecks--;
	if (err == E_UNAUTHORIZED)
		make_void(k, "key revoked");
	if (err == 0) {
		k->rate = rate_of_key(who, "");
		k->budget = who->budget;
	}
	if (is_unsure && !list_linked(&k->stale))
		list_add_tail(&c->stale_keys, &k->stale);
	chat_key_put(&k);
	if (is_unsure)
		loop_timer_set(c->api->loop, &c->recheck, AGAIN_MS);
	go_on(c);
}

static void
on_recheck(struct loop_timer *t)
{
	struct chats *c = container_of(t, struct chats, recheck);
	struct chat_key *k;

	for (int i = 0; i < RECHECK_BATCH && c->rechecks < RECHECKS_MAX &&
			(k = list_first(&c->stale_keys, struct chat_key, stale)) != NULL;
	     i++) {
		list_del(&k->stale);
		k->refs++;
		c->rechecks++;
		keys_check_hash(c->api->keys, k->hash, on_rechecked, k);
	}
	go_on(c);
}

/* Also those under way: what they are answered may have been read before. */
static void
on_keys_changed(void *arg)
{
	struct chats *c = arg;
	size_t cursor = 0;
	struct str hash;
	void *key;

	while (strmap_next(c->keys, &cursor, &hash, &key)) {
		struct chat_key *k = key;

		if (!list_linked(&k->stale))
			list_add_tail(&c->stale_keys, &k->stale);
	}
	go_on(c);
}

static const char *
keep(struct chat_key *k, const char *text)
{
	return text != NULL && *text != '\0' ? arena_strdup(&k->arena, str_of(text)) : NULL;
}

static struct chat_key *
key_new(struct chats *c, const struct principal *who)
{
	struct chat_key *k = xcalloc(1, sizeof(*k));

	k->chats = c;
	memcpy(k->hash, who->hash, sizeof(k->hash));
	k->kind = who->kind;
	k->key_id = keep(k, who->key_id);
	k->app_id = keep(k, who->app_id);
	k->device_id = keep(k, who->device_id);
	k->app = who->app;
	k->budget = who->budget;
	k->rate = rate_of_key(who, "");
	k->expiry.on_fire = on_expiry;
	if (who->expires_at != 0) {
		int64_t left_ms = who->expires_at - clock_wall_ms();

		wheel_set(http_server_wheel(c->api->http), &k->expiry,
		    left_ms > 0 ? (uint64_t)left_ms : 0);
	}
	strmap_set(c->keys, hash_str(k), k);
	return k;
}

/* What we were told may have been read before a change of which we have heard: asked once more. */
struct chat_key *
chat_key_get(struct chats *c, const struct principal *who)
{
	struct chat_key *k =
	    strmap_get(c->keys, str_sub((const char *)who->hash, sizeof(who->hash)));

	if (k != NULL) {
		k->refs++;
		return k;
	}
	k = key_new(c, who);
	k->refs++;
	list_add_tail(&c->stale_keys, &k->stale);
	go_on(c);
	return k;
}

void
chat_key_put(struct chat_key **ref)
{
	struct chat_key *k = *ref;

	*ref = NULL;
	check(k->refs > 0);
	if (--k->refs > 0)
		return;
	wheel_stop(http_server_wheel(k->chats->api->http), &k->expiry);
	list_del(&k->stale);
	strmap_del(k->chats->keys, hash_str(k));
	arena_fini(&k->arena);
	free(k);
}

void
chat_keys_init(struct chats *c)
{
	c->keys = strmap_new();
	list_init(&c->stale_keys);
	c->recheck.on_fire = on_recheck;
	c->close_void.run = run_close_void;
	keys_on_change(c->api->keys, on_keys_changed, c);
}

void
chat_keys_fini(struct chats *c)
{
	loop_post_cancel(c->api->loop, &c->close_void);
	loop_timer_stop(c->api->loop, &c->recheck);
	strmap_free(&c->keys);
}
