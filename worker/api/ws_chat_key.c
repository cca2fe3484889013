/*
 * ws_chat_key - the keys of open sockets: when keys change each is looked up again,
 * and the sockets of one that holds no more are closed.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/api/ws_chat_impl.h"

enum { AGAIN_MS = 1000 }; /* when the record could not be asked */

static struct str
hash_str(const struct chat_key *k)
{
	return str_sub((const char *)k->hash, sizeof(k->hash));
}

static void
make_void(struct chat_key *k, const char *reason)
{
	uint32_t cursor = 0;

	if (k->void_reason != NULL)
		return;
	k->void_reason = reason;
	log_info("websockets closed reason=\"%s\" key=%s", reason, k->key_id);
	for (struct chat_socket *cs; (cs = idmap_next(k->chats->sockets, &cursor)) != NULL;) {
		if (cs->key == k)
			chat_socket_consider_key(cs);
	}
}

static void
on_expiry(struct wheel_entry *e)
{
	make_void(container_of(e, struct chat_key, expiry), "key expired");
}

static void
on_rechecked(void *arg, int err, const struct principal *who)
{
	struct chat_key *k = arg;
	struct chats *c = k->chats;

	if (err == E_UNAUTHORIZED)
		make_void(k, "key revoked");
	else if (err != 0)
		loop_timer_set(c->api->loop, &c->recheck_again, AGAIN_MS);
	else {
		k->rate = rate_of_key(who, "");
		k->budget = who->budget;
	}
	chat_key_put(&k);
}

static void
recheck(struct chat_key *k)
{
	k->refs++;
	keys_check_hash(k->chats->api->keys, k->hash, on_rechecked, k);
}

/* No key is freed meanwhile, each has a socket: the map does not change below us. */
static void
run_recheck(struct loop_post *post)
{
	struct chats *c = container_of(post, struct chats, recheck_keys);
	size_t cursor = 0;
	struct str hash;
	void *key;

	while (strmap_next(c->keys, &cursor, &hash, &key))
		recheck(key);
}

static void
on_keys_changed(void *arg)
{
	struct chats *c = arg;

	loop_post(c->api->loop, &c->recheck_keys);
}

static void
on_recheck_again(struct loop_timer *t)
{
	on_keys_changed(container_of(t, struct chats, recheck_again));
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
	recheck(k);
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
	strmap_del(k->chats->keys, hash_str(k));
	arena_fini(&k->arena);
	free(k);
}

void
chat_keys_init(struct chats *c)
{
	c->keys = strmap_new();
	c->recheck_keys.run = run_recheck;
	c->recheck_again.on_fire = on_recheck_again;
	keys_on_change(c->api->keys, on_keys_changed, c);
}

void
chat_keys_fini(struct chats *c)
{
	loop_post_cancel(c->api->loop, &c->recheck_keys);
	loop_timer_stop(c->api->loop, &c->recheck_again);
	strmap_free(&c->keys);
}
