/* tickets - see tickets.h: a sequence lock with one writer. */
#include "common/tickets.h"

#include <string.h>

#include "common/check.h"
#include "common/crypto.h"

enum { TRIES = 1000 };

_Static_assert(sizeof(struct ticket_key) == TICKET_WORDS * 8, "a key is whole words");

/* Each part by its own HMAC of what it is for. */
static void
derive(struct str secret, const char *what, uint64_t period, void *out, size_t len)
{
	struct buf text = BUF_INIT;
	uint8_t hash[SHA256_LEN];

	check(len <= sizeof(hash));
	buf_printf(&text, "parley ticket %s %llu", what, (unsigned long long)period);
	crypto_hmac_sha256(secret, buf_str(&text), hash);
	memcpy(out, hash, len);
	buf_fini(&text);
}

static struct ticket_key
key_of(struct str secret, uint64_t period)
{
	struct ticket_key key = {.name = {0}};

	derive(secret, "name", period, key.name, sizeof(key.name));
	derive(secret, "aes", period, key.aes, sizeof(key.aes));
	derive(secret, "hmac", period, key.hmac, sizeof(key.hmac));
	return key;
}

static struct ticket_key
random_key(void)
{
	struct ticket_key key;

	crypto_random(&key, sizeof(key));
	return key;
}

static void
put(struct tickets *t, enum ticket_period at, const struct ticket_key *key)
{
	uint64_t words[TICKET_WORDS];

	memcpy(words, key, sizeof(words));
	for (int i = 0; i < TICKET_WORDS; i++)
		atomic_store_explicit(&t->words[at][i], words[i], memory_order_relaxed);
}

void
tickets_turn(struct tickets *t, struct str secret, uint64_t period)
{
	uint64_t sequence = atomic_load(&t->sequence) | 1; /* also when a writer has died */
	struct ticket_key keys[TICKET_PERIODS];

	for (int i = 0; i < TICKET_PERIODS; i++) {
		if (secret.len > 0)
			keys[i] = key_of(secret, period + (uint64_t)i - TICKET_PRESENT);
		else if (!tickets_get(t, i + 1 < TICKET_PERIODS ? i + 1 : i, &keys[i]) ||
			 i == TICKET_NEXT)
			keys[i] = random_key();
	}
	atomic_store(&t->sequence, sequence);
	atomic_thread_fence(memory_order_release);
	for (int i = 0; i < TICKET_PERIODS; i++)
		put(t, (enum ticket_period)i, &keys[i]);
	atomic_store_explicit(&t->sequence, sequence + 1, memory_order_release);
}

bool
tickets_get(const struct tickets *t, enum ticket_period at, struct ticket_key *ret)
{
	uint64_t words[TICKET_WORDS];

	check(at < TICKET_PERIODS);
	for (int try = 0; try < TRIES; try++) {
		uint64_t before = atomic_load_explicit(&t->sequence, memory_order_acquire);

		if (before == 0)
			return false;
		for (int i = 0; i < TICKET_WORDS; i++)
			words[i] = atomic_load_explicit(&t->words[at][i], memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
		if (before % 2 == 0 && atomic_load(&t->sequence) == before) {
			memcpy(ret, words, sizeof(*ret));
			return true;
		}
	}
	return false;
}
