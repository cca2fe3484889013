/*
 * keys - who is asking: secrets to principals, cached, revoked everywhere
 * within a second.
 *
 * Keys of the config and keys of the store. A secret is hashed (SHA-256) and the
 * hash looked up: this worker's cache, then the store. The cache is dropped when
 * the shared generation of keys changes. Comparison is constant time in the hash.
 */
#ifndef WORKER_SESSION_KEYS_H
#define WORKER_SESSION_KEYS_H

#include "common/budget.h"
#include "common/conf.h"
#include "common/id.h"
#include "common/limiter.h"
#include "worker/backplane/backplane.h"
#include "worker/store/store.h"

struct keys;

enum key_kind { KEY_CLIENT, KEY_SERVER, KEY_ADMIN };

/* Which tools a key may list and call at /mcp, by the names that they have there. */
struct key_tools {
	struct conf_list allowed; /* exact or prefix*; none: any */
	struct conf_list denied;  /* likewise; it wins. none: none */
	bool is_read_only;        /* those alone that say of themselves that they only read */
};

/* A principal; lives in the cache, borrowed for the callback: copy what is kept. */
struct principal {
	enum key_kind kind;
	const char *key_id;
	const char *app_id;         /* NULL for admin */
	const struct conf_app *app; /* of the config; NULL for admin */
	const char *device_id;      /* NULL: unbound */
	struct limiter_rule rate;   /* requests; limit 0: none */
	uint32_t rpm, tpm, rpd;     /* server keys; 0: none */
	struct budget_rule budget;  /* server keys */
	int64_t expires_at;         /* wall ms; 0: never */
	struct conf_list models;    /* aliases a server key may use: exact or prefix*; none: any */
	struct key_tools tools;
	uint8_t hash[32]; /* of the secret, for keys_check_hash() */
};

struct keys *keys_new(struct loop *, const struct conf *, struct shm *, struct store *);
void keys_free(struct keys **); /* before the store; no callback comes any more */

/* Is this alias among them? */
bool keys_allow_model(const struct conf_list *models, const char *alias);
bool keys_allow_tool(const struct key_tools *, const char *name, bool only_reads);
bool keys_allow_all_tools(const struct key_tools *); /* nothing is looked at */

/* err 0, E_UNAUTHORIZED, E_STORE_UNAVAILABLE. on_principal may be called from inside when the
 * answer is cached. */
typedef void keys_on_principal(void *arg, int err, const struct principal *);
void keys_check(struct keys *, struct str secret, keys_on_principal *, void *arg);

/* The same for who holds on to a key longer than a request: what it was still may be not any more.
 */
void keys_check_hash(struct keys *, const uint8_t hash[32], keys_on_principal *, void *arg);
/* Other hosts hear of changes at once, and this one of theirs; without it they see in the record,
 * which is looked at twice a second. Borrowed; once. */
void keys_use_backplane(struct keys *, struct backplane *);
/* Told within a second after keys may have changed, on any worker or by `parleyd key`: ask again.
 * Called in the midst of things: only post. Few watchers, never taken back. */
void keys_on_change(struct keys *, void (*on_change)(void *arg), void *arg);

/* Makes a key; secret is shown once, in the callback. limits_json may be NULL. */
struct keys_create {
	enum key_kind kind;
	const char *app_id, *device_id, *name, *limits_json;
	int64_t expires_at;
};
typedef void keys_on_created(void *arg, int err, const struct store_key *, const char *secret);
void keys_create(struct keys *, const struct keys_create *, keys_on_created *, void *arg);
void keys_revoke(struct keys *, const char *key_id, store_on_done *, void *arg);
/* Takes the place of name and limits as they are. E_NOT_FOUND, also for a revoked one. */
void keys_change(struct keys *, const char *key_id, const char *name, const char *limits_json,
    store_on_done *, void *arg);

#endif
