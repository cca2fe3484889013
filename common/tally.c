/*
 * tally - see tally.h.
 *
 *   bucket   | epoch 24 | a 20 | b 20 |     epoch: number of the bucket's tenth, since ever
 *
 * A bucket of another epoch than its place should have now is empty.
 */
#include "common/tally.h"

#include "common/check.h"

#define COUNT_BITS 20
#define EPOCH_MASK UINT64_C(0xffffff)

static uint64_t
count_a(uint64_t word)
{
	return word >> COUNT_BITS & TALLY_BUCKET_MAX;
}

static uint64_t
count_b(uint64_t word)
{
	return word & TALLY_BUCKET_MAX;
}

static uint64_t
add_up_to(uint64_t count, uint32_t n)
{
	return count + n < TALLY_BUCKET_MAX ? count + n : TALLY_BUCKET_MAX;
}

/* Never 0: a bucket that nobody has used is of no epoch. */
static uint64_t
epoch_of(uint64_t number)
{
	return number % EPOCH_MASK + 1;
}

/* The bucket is of a later window: who counts now was stopped for one, and what he saw is over. */
static bool
is_later(uint64_t bucket_epoch, uint64_t epoch)
{
	uint64_t ahead = (bucket_epoch + EPOCH_MASK - epoch) % EPOCH_MASK;

	return bucket_epoch != 0 && ahead > 0 && ahead < EPOCH_MASK / 2;
}

void
tally_add(struct tally *t, uint32_t window_ms, uint32_t a, uint32_t b, uint64_t now_ms)
{
	check(window_ms >= TALLY_BUCKETS);
	uint64_t number = now_ms / (window_ms / TALLY_BUCKETS), next;
	_Atomic uint64_t *bucket = &t->buckets[number % TALLY_BUCKETS];
	uint64_t word = atomic_load(bucket);

	do {
		if (is_later(word >> (2 * COUNT_BITS), epoch_of(number)))
			return;
		bool is_fresh = word >> (2 * COUNT_BITS) != epoch_of(number);
		uint64_t has_a = is_fresh ? 0 : count_a(word), has_b = is_fresh ? 0 : count_b(word);

		next = epoch_of(number) << (2 * COUNT_BITS) | add_up_to(has_a, a) << COUNT_BITS |
		       add_up_to(has_b, b);
	} while (!atomic_compare_exchange_weak(bucket, &word, next));
}

struct tally_counts
tally_read(const struct tally *t, uint32_t window_ms, uint64_t since_ms, uint64_t now_ms)
{
	check(window_ms >= TALLY_BUCKETS);
	uint64_t bucket_ms = window_ms / TALLY_BUCKETS, last = now_ms / bucket_ms;
	struct tally_counts sum = {0, 0};

	for (uint64_t i = 0; i < TALLY_BUCKETS && i <= last; i++) {
		uint64_t number = last - i;
		uint64_t word = atomic_load(&t->buckets[number % TALLY_BUCKETS]);

		if (number * bucket_ms < since_ms)
			break;
		if (word >> (2 * COUNT_BITS) != epoch_of(number))
			continue;
		sum.a += count_a(word);
		sum.b += count_b(word);
	}
	return sum;
}
