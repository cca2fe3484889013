/*
 * keys - secrets to principals: the config's keys, a cache, the store.
 *
 *   keys_check   shape -> config -> cache -> lookup in the store -> cache
 *
 * The cache knows keys and, for a second, non-keys; each kind has its own bound,
 * so that guessing does not push real keys out. It is dropped as a whole when
 * keys have changed: another worker says so in the shared memory, a process
 * outside of the host's workers (`parleyd key`) in the database, which is asked
 * twice a second.
 */
#include "worker/session/keys.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/list.h"
#include "common/log.h"
#include "common/region.h"
#include "common/strmap.h"
#include "worker/session/key_text.h"

enum {
	UNKNOWN_MS = 1000,
	UNKNOWN_MAX = 1024,
	POLL_MS = 500,
	WATCHERS_MAX = 4,
};

/* A secret's hash and what is known of it. */
struct entry {
	struct list node; /* in known or unknown, the latest used first */
	uint8_t hash[SHA256_LEN];
	struct arena arena; /* the principal's texts */
	struct principal principal;
	bool is_known;
	uint64_t until_ms; /* of an unknown one */
	unsigned refs;     /* the cache and callbacks under way */
};

struct waiter {
	struct list node;
	uint64_t since_us;
	keys_on_principal *on_principal;
	void *arg;
};

/* A question to the store, and all who wait for its answer. */
struct lookup {
	struct keys *keys;
	struct list node;
	uint8_t hash[SHA256_LEN];
	uint64_t epoch; /* of the cache when it was asked */
	struct list waiters;
};

struct keys {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct store *store;
	struct backplane *backplane; /* NULL: none */
	struct strmap *configured;   /* struct entry by hash; for ever */
	struct strmap *cache;        /* struct entry by hash */
	struct list known, unknown;
	size_t known_count, unknown_count;
	struct strmap *lookups;                      /* by hash */
	struct list lookup_list, creations, changes; /* asked of the store */
	uint64_t epoch;                              /* grows when the cache is dropped */
	uint64_t shared_generation;                  /* as last seen */
	uint64_t stored_generation;                  /* 0: not known yet */
	bool is_polling;
	struct loop_timer poll;
	struct watcher {
		void (*on_change)(void *arg);
		void *arg;
	} watchers[WATCHERS_MAX];
	size_t watcher_count;
};

static struct str
hash_str(const uint8_t hash[SHA256_LEN])
{
	return str_sub((const char *)hash, SHA256_LEN);
}

/* ---- entries ---- */

static struct entry *
entry_new(const uint8_t hash[SHA256_LEN])
{
	struct entry *e = xcalloc(1, sizeof(*e));

	memcpy(e->hash, hash, SHA256_LEN);
	memcpy(e->principal.hash, hash, SHA256_LEN);
	e->refs = 1;
	return e;
}

static void
entry_unref(struct entry *e)
{
	if (--e->refs > 0)
		return;
	arena_fini(&e->arena);
	free(e);
}

static const char *
keep(struct entry *e, const char *s)
{
	return s == NULL || s[0] == '\0' ? NULL : arena_strdup(&e->arena, str_of(s));
}

static const struct conf_app *
find_app(const struct conf *conf, const char *id)
{
	for (size_t i = 0; id != NULL && i < conf->apps.n; i++)
		if (strcmp(conf->apps.v[i].id, id) == 0)
			return &conf->apps.v[i];
	return NULL;
}

static const struct conf_app *
look_up_app(const struct conf *conf, const char *id)
{
	uint64_t since_us = clock_mono_us();
	const struct conf_app *app = find_app(conf, id);

	region_count(REGION_APPS, app != NULL, since_us);
	return app;
}

/* A key of the configuration has no id of its own: this one is the same after each start. */
static const char *
configured_id(struct entry *e)
{
	char hex[SHA256_HEX_LEN + 1];

	crypto_hex(e->hash, sizeof(e->hash), hex);
	return arena_printf(&e->arena, "key_conf_%.16s", hex);
}

static struct entry *
entry_of_conf(const struct conf *conf, const struct conf_key *key)
{
	uint8_t hash[SHA256_LEN];
	struct entry *e;

	crypto_sha256(str_of(key->secret), hash);
	e = entry_new(hash);
	e->is_known = true;
	check(key_kind_parse(key->kind, &e->principal.kind));
	e->principal.key_id = configured_id(e);
	e->principal.app_id = keep(e, key->app);
	e->principal.app = find_app(conf, key->app);
	e->principal.device_id = keep(e, key->device_id);
	e->principal.rate.limit = (uint32_t)key->rate.limit;
	e->principal.rate.window_ms = (uint32_t)key->rate.window_ms;
	e->principal.rpm = (uint32_t)key->rpm;
	e->principal.tpm = (uint32_t)key->tpm;
	e->principal.rpd = (uint32_t)key->rpd;
	e->principal.models = key->models;
	e->principal.tools =
	    (struct key_tools){key->tools, key->denied_tools, key->read_only_tools};
	if (e->principal.kind == KEY_SERVER)
		e->principal.budget = budget_rule_of(key->budget.amount, key->budget.period);
	return e;
}

/* Revoked, expired, of an app that is no more: not a key. */
static bool
is_usable(struct keys *k, const struct store_key *key, const struct conf_app **ret_app)
{
	enum key_kind kind;

	if (key->revoked_at != 0 || !key_kind_parse(key->kind, &kind))
		return false;
	if (key->expires_at != 0 && key->expires_at <= clock_wall_ms())
		return false;
	*ret_app = kind == KEY_ADMIN ? NULL : look_up_app(k->conf, key->app_id);
	return kind == KEY_ADMIN || *ret_app != NULL;
}

static struct entry *
entry_of_store(struct keys *k, const struct lookup *lookup, const struct store_key *key)
{
	struct entry *e = entry_new(lookup->hash);
	const struct conf_app *app;

	if (key == NULL || !crypto_equal(key->hash, SHA256_LEN, lookup->hash, SHA256_LEN) ||
	    !is_usable(k, key, &app)) {
		e->until_ms = loop_now_ms(k->loop) + UNKNOWN_MS;
		return e;
	}
	e->is_known = true;
	check(key_kind_parse(key->kind, &e->principal.kind));
	e->principal.key_id = keep(e, key->id);
	e->principal.app_id = keep(e, key->app_id);
	e->principal.app = app;
	e->principal.device_id = keep(e, key->device_id);
	e->principal.expires_at = key->expires_at;
	key_limits_parse(key->limits_json, &e->arena, &e->principal);
	return e;
}

/* ---- the cache ---- */

/* Those of the configuration are as near. */
static void
count_entries(const struct keys *k)
{
	region_entries(
	    REGION_KEYS, strmap_count(k->configured) + k->known_count + k->unknown_count);
}

static void
cache_remove(struct keys *k, struct entry *e)
{
	strmap_del(k->cache, hash_str(e->hash));
	list_del(&e->node);
	if (e->is_known)
		k->known_count--;
	else
		k->unknown_count--;
	count_entries(k);
	entry_unref(e);
}

static void
cache_drop(struct keys *k)
{
	struct entry *e;

	k->epoch++;
	while ((e = list_first(&k->known, struct entry, node)) != NULL)
		cache_remove(k, e);
	while ((e = list_first(&k->unknown, struct entry, node)) != NULL)
		cache_remove(k, e);
	for (size_t i = 0; i < k->watcher_count; i++)
		k->watchers[i].on_change(k->watchers[i].arg);
}

static void
cache_add(struct keys *k, struct entry *e)
{
	struct list *list = e->is_known ? &k->known : &k->unknown;
	size_t *count = e->is_known ? &k->known_count : &k->unknown_count;
	size_t max = e->is_known ? (size_t)k->conf->auth.cache_size : UNKNOWN_MAX;
	struct entry *old = strmap_get(k->cache, hash_str(e->hash));

	if (old != NULL)
		cache_remove(k, old);
	if (*count >= max)
		cache_remove(k, list_entry(list->prev, struct entry, node));
	e->refs++;
	strmap_set(k->cache, hash_str(e->hash), e);
	list_add_head(list, &e->node);
	++*count;
	count_entries(k);
}

static struct entry *
cache_get(struct keys *k, const uint8_t hash[SHA256_LEN])
{
	struct entry *e = strmap_get(k->cache, hash_str(hash));
	struct list *list;

	if (e == NULL)
		return NULL;
	if (!e->is_known && loop_now_ms(k->loop) >= e->until_ms) {
		cache_remove(k, e);
		return NULL;
	}
	list = e->is_known ? &k->known : &k->unknown;
	list_del(&e->node);
	list_add_head(list, &e->node);
	return e;
}

/* Other workers, and the master, say through the shared memory that keys have changed. */
static void
look_at_shared(struct keys *k)
{
	uint64_t generation = atomic_load(shm_word(k->shm, SHM_WORD_KEYS_GENERATION));

	if (generation != k->shared_generation) {
		k->shared_generation = generation;
		cache_drop(k);
	}
}

static void
on_generation(void *arg, int err, uint64_t generation)
{
	struct keys *k = arg;

	k->is_polling = false;
	if (err != 0)
		return;
	if (k->stored_generation != 0 && k->stored_generation != generation)
		cache_drop(k);
	k->stored_generation = generation;
}

static void
on_poll(struct loop_timer *timer)
{
	struct keys *k = container_of(timer, struct keys, poll);

	look_at_shared(k);
	if (!k->is_polling) {
		k->is_polling = true;
		store_key_generation(k->store, on_generation, k);
	}
	loop_timer_set(k->loop, &k->poll, POLL_MS);
}

/* ---- what a key may ask for ---- */

static bool
names(const struct conf_list *rules, const char *name)
{
	for (size_t i = 0; i < rules->n; i++) {
		struct str rule = str_of(rules->v[i]);
		bool is_prefix = rule.len > 0 && rule.p[rule.len - 1] == '*';

		if (is_prefix ? strncmp(name, rule.p, rule.len - 1) == 0
			      : strcmp(name, rule.p) == 0)
			return true;
	}
	return false;
}

bool
keys_allow_model(const struct conf_list *models, const char *alias)
{
	return models->n == 0 || names(models, alias);
}

bool
keys_allow_tool(const struct key_tools *t, const char *name, bool only_reads)
{
	return (t->allowed.n == 0 || names(&t->allowed, name)) && !names(&t->denied, name) &&
	       (only_reads || !t->is_read_only);
}

bool
keys_allow_all_tools(const struct key_tools *t)
{
	return (t->allowed.n == 0 || conf_list_has(&t->allowed, "*")) && t->denied.n == 0 &&
	       !t->is_read_only;
}

/* ---- checking ---- */

static void
answer(struct entry *e, keys_on_principal *on_principal, void *arg)
{
	bool is_over = e->principal.expires_at != 0 && e->principal.expires_at <= clock_wall_ms();

	/* The callback may do what drops the cache. */
	e->refs++;
	if (e->is_known && !is_over)
		on_principal(arg, 0, &e->principal);
	else
		on_principal(arg, E_UNAUTHORIZED, NULL);
	entry_unref(e);
}

/* e is NULL when there is an error instead. */
static void
lookup_end(struct lookup *lookup, int err, struct entry *e)
{
	struct strmap *lookups = lookup->keys->lookups;
	struct waiter *waiter;

	/* A later one, asked after the cache was dropped, may have taken its place. */
	if (strmap_get(lookups, hash_str(lookup->hash)) == lookup)
		strmap_del(lookups, hash_str(lookup->hash));
	list_del(&lookup->node);
	while ((waiter = list_first(&lookup->waiters, struct waiter, node)) != NULL) {
		struct waiter w = *waiter;

		list_del(&waiter->node);
		free(waiter);
		region_count(REGION_KEYS, false, w.since_us);
		if (e == NULL)
			w.on_principal(w.arg, err, NULL);
		else
			answer(e, w.on_principal, w.arg);
	}
	free(lookup);
}

static void
on_found(void *arg, int err, const struct store_key *key)
{
	struct lookup *lookup = arg;
	struct keys *k = lookup->keys;
	struct entry *e;

	if (err != 0 && err != E_NOT_FOUND) {
		lookup_end(lookup, E_STORE_UNAVAILABLE, NULL);
		return;
	}
	e = entry_of_store(k, lookup, err == 0 ? key : NULL);
	/* What was read before a change may be what was changed: it is used, not kept. */
	if (lookup->epoch == k->epoch)
		cache_add(k, e);
	lookup_end(lookup, 0, e);
	entry_unref(e);
}

static void
ask_store(struct keys *k, const uint8_t hash[SHA256_LEN], uint64_t since_us,
    keys_on_principal *on_principal, void *arg)
{
	struct lookup *lookup = strmap_get(k->lookups, hash_str(hash));
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));
	bool is_new = lookup == NULL || lookup->epoch != k->epoch;

	waiter->since_us = since_us;
	waiter->on_principal = on_principal;
	waiter->arg = arg;
	if (is_new) {
		lookup = xcalloc(1, sizeof(*lookup));
		lookup->keys = k;
		lookup->epoch = k->epoch;
		memcpy(lookup->hash, hash, SHA256_LEN);
		list_init(&lookup->waiters);
		list_add_tail(&k->lookup_list, &lookup->node);
		strmap_set(k->lookups, hash_str(hash), lookup);
	}
	list_add_tail(&lookup->waiters, &waiter->node);
	if (is_new)
		store_key_by_hash(k->store, lookup->hash, on_found, lookup);
}

void
keys_check_hash(
    struct keys *k, const uint8_t hash[SHA256_LEN], keys_on_principal *on_principal, void *arg)
{
	uint64_t since_us = clock_mono_us();
	struct entry *e;

	look_at_shared(k);
	if ((e = strmap_get(k->configured, hash_str(hash))) == NULL)
		e = cache_get(k, hash);
	if (e == NULL) {
		ask_store(k, hash, since_us, on_principal, arg);
		return;
	}
	region_count(REGION_KEYS, true, since_us);
	answer(e, on_principal, arg);
}

void
keys_check(struct keys *k, struct str secret, keys_on_principal *on_principal, void *arg)
{
	uint8_t hash[SHA256_LEN];

	if (!key_text_is_sane(secret)) {
		on_principal(arg, E_UNAUTHORIZED, NULL);
		return;
	}
	crypto_sha256(secret, hash);
	keys_check_hash(k, hash, on_principal, arg);
}

void
keys_on_change(struct keys *k, void (*on_change)(void *arg), void *arg)
{
	check(k->watcher_count < WATCHERS_MAX);
	k->watchers[k->watcher_count++] = (struct watcher){on_change, arg};
}

/* ---- making and revoking ---- */

static void
tell_change(struct keys *k)
{
	atomic_fetch_add(shm_word(k->shm, SHM_WORD_KEYS_GENERATION), 1);
	if (k->backplane != NULL)
		backplane_broadcast(k->backplane, BACKPLANE_KEYS_CHANGED, STR_NONE, NULL, NULL);
}

/* Within this host the shared memory has said it. */
static void
on_changed_elsewhere(void *arg, const struct backplane_call *call)
{
	struct keys *k = arg;

	if (call->from.host != shm_host_id(k->shm))
		atomic_fetch_add(shm_word(k->shm, SHM_WORD_KEYS_GENERATION), 1);
}

void
keys_use_backplane(struct keys *k, struct backplane *backplane)
{
	check(k->backplane == NULL);
	k->backplane = backplane;
	backplane_serve(backplane, BACKPLANE_KEYS_CHANGED, on_changed_elsewhere, k);
}

struct creation {
	struct list node;
	struct keys *keys;
	struct id id;
	char secret[KEY_SECRET_LEN + 1];
	struct store_key key; /* its texts are in the arena */
	struct arena arena;
	keys_on_created *on_created;
	void *arg;
};

static void
creation_free(struct creation *c)
{
	list_del(&c->node);
	arena_fini(&c->arena);
	free(c);
}

static void
on_created(void *arg, int err)
{
	struct creation *c = arg;

	if (err == 0)
		log_info("key created key=%s kind=%s app=%s", c->id.s, c->key.kind,
		    c->key.app_id != NULL ? c->key.app_id : "-");
	list_del(&c->node);
	c->on_created(c->arg, err, err == 0 ? &c->key : NULL, err == 0 ? c->secret : NULL);
	creation_free(c);
}

static const char *
keep_text(struct arena *arena, const char *s)
{
	return s != NULL ? arena_strdup(arena, str_of(s)) : NULL;
}

void
keys_create(struct keys *k, const struct keys_create *create, keys_on_created *done, void *arg)
{
	struct creation *c = xcalloc(1, sizeof(*c));

	list_add_tail(&k->creations, &c->node);
	c->keys = k;
	c->id = id_new("key");
	c->on_created = done;
	c->arg = arg;
	key_secret_new(create->kind, c->secret);
	c->key = (struct store_key){
	    .id = c->id.s,
	    .kind = key_kind_name(create->kind),
	    .app_id = keep_text(&c->arena, create->app_id),
	    .device_id = keep_text(&c->arena, create->device_id),
	    .name = keep_text(&c->arena, create->name),
	    .limits_json = keep_text(&c->arena, create->limits_json),
	    .created_at = clock_wall_ms(),
	    .expires_at = create->expires_at,
	};
	crypto_sha256(str_of(c->secret), c->key.hash);
	store_key_create(k->store, &c->key, on_created, c);
}

struct change {
	struct list node;
	struct keys *keys;
	struct id id;
	const char *what;
	store_on_done *on_done;
	void *arg;
};

static void
on_changed(void *arg, int err)
{
	struct change *at = arg, c = *at;

	list_del(&at->node);
	free(at);
	if (err == 0) {
		tell_change(c.keys);
		log_info("key %s key=%s", c.what, c.id.s);
	}
	c.on_done(c.arg, err);
}

static struct change *
change_new(struct keys *k, const char *what, const char *key_id, store_on_done *on_done, void *arg)
{
	struct change *c = xcalloc(1, sizeof(*c));

	list_add_tail(&k->changes, &c->node);
	c->keys = k;
	c->what = what;
	c->on_done = on_done;
	c->arg = arg;
	snprintf(c->id.s, sizeof(c->id.s), "%s", key_id);
	return c;
}

void
keys_revoke(struct keys *k, const char *key_id, store_on_done *on_done, void *arg)
{
	store_key_revoke(k->store, key_id, clock_wall_ms(), on_changed,
	    change_new(k, "revoked", key_id, on_done, arg));
}

void
keys_change(struct keys *k, const char *key_id, const char *name, const char *limits_json,
    store_on_done *on_done, void *arg)
{
	store_key_change(k->store, key_id, name, limits_json, on_changed,
	    change_new(k, "changed", key_id, on_done, arg));
}

/* ---- life ---- */

static void
add_configured(struct keys *k)
{
	for (size_t i = 0; i < k->conf->keys.n; i++) {
		const struct conf_key *key = &k->conf->keys.v[i];
		struct entry *e, *old;

		if (key->secret[0] == '\0')
			continue;
		e = entry_of_conf(k->conf, key);
		if ((old = strmap_set(k->configured, hash_str(e->hash), e)) != NULL)
			entry_unref(old);
	}
	count_entries(k);
	region_entries(REGION_APPS, k->conf->apps.n);
}

struct keys *
keys_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct store *store)
{
	struct keys *k = xcalloc(1, sizeof(*k));

	k->loop = loop;
	k->conf = conf;
	k->shm = shm;
	k->store = store;
	k->configured = strmap_new();
	k->cache = strmap_new();
	k->lookups = strmap_new();
	list_init(&k->known);
	list_init(&k->unknown);
	list_init(&k->lookup_list);
	list_init(&k->creations);
	list_init(&k->changes);
	k->shared_generation = atomic_load(shm_word(shm, SHM_WORD_KEYS_GENERATION));
	k->poll.on_fire = on_poll;
	add_configured(k);
	on_poll(&k->poll);
	return k;
}

static void
forget_lookups(struct keys *k)
{
	struct lookup *lookup;
	struct waiter *waiter;

	while ((lookup = list_first(&k->lookup_list, struct lookup, node)) != NULL) {
		while ((waiter = list_first(&lookup->waiters, struct waiter, node)) != NULL) {
			list_del(&waiter->node);
			free(waiter);
		}
		list_del(&lookup->node);
		free(lookup);
	}
}

static void
forget_changes(struct keys *k)
{
	struct creation *c;
	struct change *r;

	while ((c = list_first(&k->creations, struct creation, node)) != NULL)
		creation_free(c);
	while ((r = list_first(&k->changes, struct change, node)) != NULL) {
		list_del(&r->node);
		free(r);
	}
}

void
keys_free(struct keys **ref)
{
	struct keys *k = *ref;
	struct str hash;
	size_t cursor = 0;
	void *entry;

	if (k == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(k->loop, &k->poll);
	k->watcher_count = 0;
	cache_drop(k);
	forget_lookups(k);
	forget_changes(k);
	while (strmap_next(k->configured, &cursor, &hash, &entry))
		entry_unref(entry);
	strmap_free(&k->configured);
	strmap_free(&k->cache);
	strmap_free(&k->lookups);
	free(k);
}
