/*
 * limiter_log - the log of one key: what was spent when.
 *
 * An endless sequence of entries in a ring of 2^shift words. An entry is one word:
 * the time, and the sum of all that was ever spent up to it (modulo 2^31). What was spent
 * in a window is the newest sum less the sum at the last expired entry; a decision is
 * right when it is added to the very sequence that it was made from:
 *
 *   - The last entry may be replaced (same millisecond: sum and cost), by compare-and-swap,
 *     as long as it is not sealed. The next entry is put behind it only after it was sealed,
 *     by compare-and-swap of the word that a ring's length ago was there.
 *   - So each decision takes effect by one compare-and-swap, which fails when anybody else's
 *     has come in between. Sums are right, in whatever order processes run.
 *   - `head` (where the next entry goes) and `tail` (what is before it does not count) are
 *     hints: head is at most one behind, and whoever finds it behind moves it on; tail only
 *     grows. An entry's lap bit tells whether the word in the ring is the one meant.
 *
 * A process killed between any two instructions leaves one of: nothing, a moved hint, a sealed
 * entry (the next one is put behind it, also in the same millisecond), or a finished decision
 * whose answer nobody hears. None of them holds anybody up.
 *
 * The clock of a log is the greatest time that anybody came with; everyone decides at that
 * time or later, so what one process found expired is expired for all.
 *
 * A log whose window is empty may be closed: an entry with the closed bit ends it, so that no
 * decision can slip in, and the next key's log goes on behind that entry, once the tail is there.
 */
#ifndef COMMON_LIMITER_LOG_H
#define COMMON_LIMITER_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/limiter.h"

struct limiter_log {
	_Atomic uint64_t head, tail;
	_Atomic uint64_t mark; /* given back: sums up to this one do not count; an entry, or 0 */
	_Atomic uint64_t clock_ms;
	_Atomic uint64_t busy_until_ms; /* then nothing in it counts */
	uint64_t pad[3];
	_Atomic uint64_t ring[];
};

enum { LIMITER_LOG_HEAD_BYTES = 64 };

/* The rule as the log applies it. */
struct limiter_log_rule {
	uint32_t limit, window_ms;
	uint32_t quantum_ms; /* times are rounded up to it; 1: exact */
	unsigned shift;      /* of the ring */
};

/* Whose log it is: the word at id holds `expected` as long as it is that key's. */
struct limiter_log_owner {
	const _Atomic uint64_t *id;
	uint64_t expected;
};

enum limiter_log_result { LIMITER_LOG_DONE, LIMITER_LOG_LOST };

/* LOST: the log was closed or is another key's: look the key up again. */
enum limiter_log_result limiter_log_take(struct limiter_log *, const struct limiter_log_rule *,
    struct limiter_log_owner, uint32_t cost, uint64_t now_ms, struct limiter_verdict *ret);
enum limiter_log_result limiter_log_give(struct limiter_log *, const struct limiter_log_rule *,
    struct limiter_log_owner, uint32_t cost, uint64_t now_ms);

/* Closes a log that was idle for its window. True: it is closed, by us or another. */
bool limiter_log_close(struct limiter_log *, unsigned shift, uint64_t now_ms);
/* Where a closed one would begin anew; 0: it is open. */
uint64_t limiter_log_beginning(struct limiter_log *, unsigned shift);
/* It begins anew there. Saying it again, however late, does nothing. */
void limiter_log_open(struct limiter_log *, uint64_t beginning);
bool limiter_log_is_closed(struct limiter_log *, unsigned shift);

#endif
