/*
 * breaker - see breaker.h.
 *
 *   closed      | 0 2 | failures in a row 16 | since 46 |
 *   half-open   | 1 2 | number 32 | row 12 | serial 18 |      the prober
 *   open        | 2 2 | 0 16 | since 46 |
 */
#include "common/breaker.h"

#include "common/check.h"

#define KIND_SHIFT    62
#define SINCE_BITS    46
#define SINCE_MASK    ((UINT64_C(1) << SINCE_BITS) - 1)
#define FAILURES_MASK UINT64_C(0xffff)
#define ROW_SHIFT     18
#define NUMBER_SHIFT  30
#define ROW_MASK      UINT64_C(0xfff)
#define SERIAL_MASK   UINT64_C(0x3ffff)

static enum breaker_state
kind_of(uint64_t word)
{
	return (enum breaker_state)(word >> KIND_SHIFT);
}

static uint64_t
since_of(uint64_t word)
{
	return word & SINCE_MASK;
}

static uint64_t
failures_of(uint64_t word)
{
	return word >> SINCE_BITS & FAILURES_MASK;
}

static uint64_t
closed_word(uint64_t failures, uint64_t since_ms)
{
	return (uint64_t)BREAKER_CLOSED << KIND_SHIFT | failures << SINCE_BITS |
	       (since_ms & SINCE_MASK);
}

static uint64_t
open_word(uint64_t since_ms)
{
	return (uint64_t)BREAKER_OPEN << KIND_SHIFT | (since_ms & SINCE_MASK);
}

/* The serial tells a probe from an earlier one of the same worker. */
static uint64_t
probe_word(struct shm_who who, uint64_t before)
{
	uint64_t serial = (kind_of(before) == BREAKER_HALF_OPEN ? before + 1 : since_of(before));

	check(who.row <= ROW_MASK);
	return (uint64_t)BREAKER_HALF_OPEN << KIND_SHIFT | (uint64_t)who.number << NUMBER_SHIFT |
	       (uint64_t)who.row << ROW_SHIFT | (serial & SERIAL_MASK);
}

static bool
prober_is_dead(uint64_t word, const struct shm *shm)
{
	struct shm_who who = {.row = (uint32_t)(word >> ROW_SHIFT & ROW_MASK),
	    .number = (uint32_t)(word >> NUMBER_SHIFT)};

	return shm != NULL && !shm_is_alive(shm, who);
}

static bool
may_probe(uint64_t word, const struct breaker_rule *rule, const struct shm *shm, uint64_t now_ms)
{
	if (kind_of(word) == BREAKER_HALF_OPEN)
		return prober_is_dead(word, shm);
	return now_ms >= since_of(word) + rule->recovery_ms;
}

bool
breaker_allows(const struct breaker *b, const struct breaker_rule *rule, const struct shm *shm,
    uint64_t now_ms)
{
	uint64_t word = atomic_load(&b->state);

	return kind_of(word) == BREAKER_CLOSED || may_probe(word, rule, shm, now_ms);
}

bool
breaker_enter(struct breaker *b, const struct breaker_rule *rule, const struct shm *shm,
    struct shm_who me, uint64_t now_ms, struct breaker_pass *ret)
{
	uint64_t word = atomic_load(&b->state);

	while (kind_of(word) != BREAKER_CLOSED) {
		uint64_t probe = probe_word(me, word);

		if (!may_probe(word, rule, shm, now_ms))
			return false;
		if (atomic_compare_exchange_weak(&b->state, &word, probe)) {
			ret->word = probe;
			return true;
		}
	}
	ret->word = word;
	return true;
}

bool
breaker_is_probe(const struct breaker_pass *pass)
{
	return kind_of(pass->word) == BREAKER_HALF_OPEN;
}

/* Too many of the window's calls since it was closed. */
static bool
rate_is_bad(
    const struct breaker *b, const struct breaker_rule *rule, uint64_t word, uint64_t now_ms)
{
	if (rule->failure_rate <= 0)
		return false;
	struct tally_counts n = tally_read(&b->calls, rule->window_ms, since_of(word), now_ms);
	return n.a >= rule->calls_min && (double)n.b >= rule->failure_rate * (double)n.a;
}

/* The state after one more call; the word itself: nothing changes. */
static uint64_t
word_after(const struct breaker *b, const struct breaker_rule *rule, uint64_t word,
    enum breaker_outcome outcome, uint64_t now_ms)
{
	uint64_t failures = failures_of(word);

	if (outcome == BREAKER_SUCCESS)
		return failures > 0 ? closed_word(0, since_of(word)) : word;
	failures += failures < FAILURES_MASK;
	if ((rule->failures > 0 && failures >= rule->failures) ||
	    rate_is_bad(b, rule, word, now_ms))
		return open_word(now_ms);
	return closed_word(failures, since_of(word));
}

static bool
record_probe(struct breaker *b, uint64_t word, enum breaker_outcome outcome, uint64_t now_ms)
{
	return atomic_compare_exchange_strong(&b->state, &word,
	    outcome == BREAKER_SUCCESS ? closed_word(0, now_ms) : open_word(now_ms));
}

bool
breaker_record(struct breaker *b, const struct breaker_rule *rule, struct breaker_pass pass,
    enum breaker_outcome outcome, uint64_t now_ms)
{
	uint64_t word, next;

	if (breaker_is_probe(&pass))
		return record_probe(b, pass.word, outcome, now_ms);
	tally_add(&b->calls, rule->window_ms, 1, outcome == BREAKER_FAILURE, now_ms);
	word = atomic_load(&b->state);
	do {
		/* Closed, and not opened and closed again meanwhile. */
		if (kind_of(word) != BREAKER_CLOSED || since_of(word) != since_of(pass.word))
			return false;
		next = word_after(b, rule, word, outcome, now_ms);
		if (next == word)
			return false;
	} while (!atomic_compare_exchange_weak(&b->state, &word, next));
	return kind_of(next) != BREAKER_CLOSED;
}

void
breaker_return(
    struct breaker *b, const struct breaker_rule *rule, struct breaker_pass pass, uint64_t now_ms)
{
	uint64_t since_ms = now_ms > rule->recovery_ms ? now_ms - rule->recovery_ms : 0;

	if (breaker_is_probe(&pass))
		atomic_compare_exchange_strong(&b->state, &pass.word, open_word(since_ms));
}

enum breaker_state
breaker_state(const struct breaker *b)
{
	return kind_of(atomic_load(&b->state));
}

const char *
breaker_state_name(enum breaker_state state)
{
	static const char *const names[] = {"closed", "half_open", "open"};

	return names[state];
}

uint32_t
breaker_wait_ms(const struct breaker *b, const struct breaker_rule *rule, uint64_t now_ms)
{
	uint64_t word = atomic_load(&b->state);
	uint64_t until_ms = since_of(word) + rule->recovery_ms;

	if (kind_of(word) != BREAKER_OPEN || until_ms <= now_ms)
		return 0;
	return (uint32_t)(until_ms - now_ms);
}
