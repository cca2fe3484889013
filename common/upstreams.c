/* upstreams - two tables with open addressing; a key once written never changes. */
#include "common/upstreams.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/crypto.h"

struct table {
	struct upstream_target_shared targets[UPSTREAM_TARGETS_MAX];
	struct upstream_shared providers[UPSTREAMS_MAX];
};

size_t
upstreams_shm_bytes(void)
{
	return sizeof(struct table);
}

static uint64_t
key_of(struct str a, struct str b)
{
	struct buf text = BUF_INIT;
	uint8_t hash[SHA256_LEN];
	uint64_t key;

	buf_add_str(&text, a);
	buf_add_char(&text, '\0');
	buf_add_str(&text, b);
	crypto_sha256(buf_str(&text), hash);
	memcpy(&key, hash, sizeof(key));
	buf_fini(&text);
	return key != 0 ? key : 1;
}

/* Is this entry that key's, or now made so? */
static bool
claim(_Atomic uint64_t *at, uint64_t key)
{
	uint64_t was = 0;

	return atomic_compare_exchange_strong(at, &was, key) || was == key;
}

static struct table *
table_of(struct shm *shm)
{
	return shm_upstreams(shm, NULL);
}

struct upstream_shared *
upstreams_provider(struct shm *shm, struct str name)
{
	struct table *t = table_of(shm);
	uint64_t key = key_of(name, STR_NONE);

	for (uint32_t i = 0; i < UPSTREAMS_MAX; i++) {
		struct upstream_shared *s = &t->providers[(key + i) % UPSTREAMS_MAX];

		if (claim(&s->key, key))
			return s;
	}
	return NULL;
}

struct upstream_target_shared *
upstreams_target(struct shm *shm, struct str provider, struct str model)
{
	struct table *t = table_of(shm);
	uint64_t key = key_of(provider, model);

	for (uint32_t i = 0; i < UPSTREAM_TARGETS_MAX; i++) {
		struct upstream_target_shared *s = &t->targets[(key + i) % UPSTREAM_TARGETS_MAX];

		if (claim(&s->key, key))
			return s;
	}
	return NULL;
}

bool
upstreams_cool_down(struct upstream_target_shared *s, uint64_t until_ms, uint64_t now_ms)
{
	uint64_t was = atomic_load(&s->cool_until_ms);

	while (was < until_ms && !atomic_compare_exchange_weak(&s->cool_until_ms, &was, until_ms))
		;
	return was <= now_ms && until_ms > now_ms;
}

uint32_t
upstreams_cooling_ms(const struct upstream_target_shared *s, uint64_t now_ms)
{
	uint64_t until_ms = atomic_load(&s->cool_until_ms);

	return until_ms > now_ms ? (uint32_t)(until_ms - now_ms) : 0;
}
