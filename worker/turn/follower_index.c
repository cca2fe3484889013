/* follower_index - as many buckets as followers, or up to four times as many. */
#include "worker/turn/follower_index.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/turn/turn_impl.h"

enum { BUCKETS_MIN = 16, SPARSE = 4 };

/* Handles and addresses come from workers of ours: nobody chooses them to collide. */
static uint64_t
hash_of(const struct backplane_addr *addr, uint64_t listener)
{
	uint64_t h = listener;

	if (addr != NULL)
		h ^= (addr->host ^ (uint64_t)addr->who.row << 48 ^ addr->who.number) *
		     0xff51afd7ed558ccdull;
	h *= 0x9e3779b97f4a7c15ull; /* Fibonacci hashing: Knuth, TAOCP 3, 6.4 */
	return h ^ h >> 32;
}

static const struct backplane_addr *
addr_of(const struct follower *f)
{
	return f->is_far ? &f->addr : NULL;
}

static struct follower **
bucket_of(const struct follower_index *x, const struct backplane_addr *addr, uint64_t listener)
{
	return &x->buckets[hash_of(addr, listener) & (x->bucket_count - 1)];
}

static void
put(struct follower_index *x, struct follower *f)
{
	struct follower **bucket = bucket_of(x, addr_of(f), f->listener);

	f->next_of_bucket = *bucket;
	*bucket = f;
}

static void
resize(struct follower_index *x, size_t bucket_count)
{
	struct follower_index old = *x;

	x->bucket_count = bucket_count;
	x->buckets = xcalloc(bucket_count, sizeof(struct follower *));
	for (size_t i = 0; i < old.bucket_count; i++) {
		for (struct follower *f = old.buckets[i], *next; f != NULL; f = next) {
			next = f->next_of_bucket;
			put(x, f);
		}
	}
	free(old.buckets);
}

static bool
is_of(const struct follower *f, const struct backplane_addr *addr, uint64_t listener)
{
	if (f->listener != listener || f->is_far != (addr != NULL))
		return false;
	return addr == NULL || owner_equal(f->addr, *addr);
}

struct follower *
follower_index_find(
    const struct follower_index *x, const struct backplane_addr *addr, uint64_t listener)
{
	if (x->count == 0)
		return NULL;
	for (struct follower *f = *bucket_of(x, addr, listener); f != NULL; f = f->next_of_bucket) {
		if (is_of(f, addr, listener))
			return f;
	}
	return NULL;
}

void
follower_index_add(struct follower_index *x, struct follower *f)
{
	if (x->count == x->bucket_count)
		resize(x, x->bucket_count > 0 ? 2 * x->bucket_count : BUCKETS_MIN);
	put(x, f);
	x->count++;
}

void
follower_index_del(struct follower_index *x, struct follower *f)
{
	struct follower **at;

	check(x->count > 0);
	for (at = bucket_of(x, addr_of(f), f->listener); *at != f; at = &(*at)->next_of_bucket)
		check(*at != NULL);
	*at = f->next_of_bucket;
	f->next_of_bucket = NULL;
	x->count--;
	if (x->bucket_count > BUCKETS_MIN && x->count < x->bucket_count / SPARSE)
		resize(x, x->bucket_count / 2);
}

void
follower_index_fini(struct follower_index *x)
{
	check(x->count == 0);
	free(x->buckets);
	*x = (struct follower_index){0};
}
