/*
 * interleave - actors that share memory, run one step at a time in every order.
 *
 * A source file that is included after this header stops before each of its atomic operations;
 * which actor goes on, or is killed there, is chosen anew. interleave_all() goes through all
 * schedules with few changes from one that could have gone on to another (a bug that shows only
 * beyond three is rare: Musuvathi and Qadeer, PLDI 2007); interleave_some() tries random ones. All
 * atomic operations are taken to be sequentially consistent.
 */
#ifndef T_UNIT_INTERLEAVE_H
#define T_UNIT_INTERLEAVE_H

#include "t/unit/unit.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { ACTORS_MAX = 3, STEPS_MAX = 4096, ACTOR_STACK = 128 << 10 };

struct interleave {
	int actors;
	unsigned switches_max, kills_max;
	void (*reset)(void);
	void (*run)(int me);
	void (*on_kill)(int me); /* as the master reaps it */
	void (*finish)(void);    /* all have ended or are dead */
};

static struct {
	const struct interleave *what;
	ucontext_t home, contexts[ACTORS_MAX];
	char *stacks[ACTORS_MAX];
	bool is_done[ACTORS_MAX], is_killed[ACTORS_MAX];
	int running; /* -1: none */
	unsigned choices[STEPS_MAX], options[STEPS_MAX];
	unsigned depth, given; /* choices before `given` are to be repeated */
	unsigned long schedules;
	uint64_t seed; /* 0: no random ones */
} interleave = {.running = -1};

static inline void
interleave_step(void)
{
	int me = interleave.running;

	if (me >= 0)
		swapcontext(&interleave.contexts[me], &interleave.home);
}

static void
interleave_enter(int me)
{
	interleave.what->run(me);
	interleave.is_done[me] = true;
	swapcontext(&interleave.contexts[me], &interleave.home);
}

static void
interleave_start(int me)
{
	ucontext_t *c = &interleave.contexts[me];

	interleave.is_done[me] = interleave.is_killed[me] = false;
	if (interleave.stacks[me] == NULL)
		interleave.stacks[me] = malloc(ACTOR_STACK);
	assert_int_equal(getcontext(c), 0);
	c->uc_stack.ss_sp = interleave.stacks[me];
	c->uc_stack.ss_size = ACTOR_STACK;
	c->uc_link = NULL;
	makecontext(c, (void (*)(void))interleave_enter, 1, me);
}

static inline bool
interleave_can_run(int me)
{
	return !interleave.is_done[me] && !interleave.is_killed[me];
}

/* options: actor, or actor + ACTORS_MAX to kill it. The one that ran last comes first. */
static unsigned
interleave_options(int last, unsigned switches, unsigned kills, int ret[2 * ACTORS_MAX])
{
	bool can_stay = last >= 0 && interleave_can_run(last);
	unsigned n = 0;

	if (can_stay)
		ret[n++] = last;
	for (int i = 0; i < interleave.what->actors; i++)
		if (i != last && interleave_can_run(i) &&
		    (!can_stay || switches < interleave.what->switches_max))
			ret[n++] = i;
	for (int i = 0; i < interleave.what->actors && kills < interleave.what->kills_max; i++)
		if (interleave_can_run(i))
			ret[n++] = i + ACTORS_MAX;
	return n;
}

static inline unsigned
interleave_choose(unsigned count)
{
	unsigned at = interleave.depth++, choice = 0;

	assert_true(at < STEPS_MAX);
	if (interleave.seed != 0) {
		interleave.seed =
		    interleave.seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		choice = (unsigned)(interleave.seed >> 33) % count;
	} else if (at < interleave.given) {
		choice = interleave.choices[at];
	}
	interleave.choices[at] = choice;
	interleave.options[at] = count;
	return choice;
}

static void
interleave_once(void)
{
	int last = -1, options[2 * ACTORS_MAX];
	unsigned switches = 0, kills = 0, count;

	interleave.depth = 0;
	interleave.schedules++;
	interleave.what->reset();
	for (int i = 0; i < interleave.what->actors; i++)
		interleave_start(i);
	while ((count = interleave_options(last, switches, kills, options)) > 0) {
		int option = options[interleave_choose(count)], me = option % ACTORS_MAX;

		if (option >= ACTORS_MAX) {
			kills++;
			interleave.is_killed[me] = true;
			interleave.what->on_kill(me);
			continue;
		}
		switches += last >= 0 && me != last && interleave_can_run(last);
		interleave.running = last = me;
		swapcontext(&interleave.home, &interleave.contexts[me]);
		interleave.running = -1;
	}
	interleave.what->finish();
}

static void
interleave_end(void)
{
	for (int i = 0; i < ACTORS_MAX; i++) {
		free(interleave.stacks[i]);
		interleave.stacks[i] = NULL;
	}
}

/* How many schedules there are. */
static inline unsigned long
interleave_all(const struct interleave *what)
{
	interleave.what = what;
	interleave.schedules = interleave.seed = interleave.given = 0;
	for (;;) {
		interleave_once();
		while (interleave.depth > 0 && interleave.choices[interleave.depth - 1] + 1 >=
						   interleave.options[interleave.depth - 1])
			interleave.depth--;
		if (interleave.depth == 0)
			break;
		interleave.choices[interleave.depth - 1]++;
		interleave.given = interleave.depth;
	}
	interleave_end();
	return interleave.schedules;
}

static inline void
interleave_some(const struct interleave *what, unsigned long count, uint64_t seed)
{
	interleave.what = what;
	interleave.seed = seed | 1;
	for (unsigned long i = 0; i < count; i++)
		interleave_once();
	interleave_end();
}

static inline bool
interleave_was_killed(int me)
{
	return interleave.is_killed[me];
}

/* ---- a stop before each atomic operation of what is included from here on ---- */

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak

#define atomic_load(at)                                                                            \
	__extension__({                                                                            \
		__auto_type load_at = (at);                                                        \
		__typeof__((void)0, *load_at) load_value;                                          \
		interleave_step();                                                                 \
		__atomic_load(load_at, &load_value, __ATOMIC_SEQ_CST);                             \
		load_value;                                                                        \
	})
#define atomic_load_explicit(at, order) atomic_load(at)
#define atomic_store(at, value)                                                                    \
	__extension__({                                                                            \
		__auto_type store_at = (at);                                                       \
		__typeof__((void)0, *store_at) store_value = (value);                              \
		interleave_step();                                                                 \
		__atomic_store(store_at, &store_value, __ATOMIC_SEQ_CST);                          \
	})
#define atomic_store_explicit(at, value, order) atomic_store(at, value)
#define atomic_exchange(at, value)                                                                 \
	(interleave_step(), __atomic_exchange_n((at), (value), __ATOMIC_SEQ_CST))
#define atomic_fetch_add(at, value)                                                                \
	(interleave_step(), __atomic_fetch_add((at), (value), __ATOMIC_SEQ_CST))
#define atomic_fetch_sub(at, value)                                                                \
	(interleave_step(), __atomic_fetch_sub((at), (value), __ATOMIC_SEQ_CST))
#define atomic_compare_exchange_strong(at, was, value)                                             \
	__extension__({                                                                            \
		__auto_type cas_at = (at);                                                         \
		__typeof__((void)0, *cas_at) cas_value = (value);                                  \
		interleave_step();                                                                 \
		__atomic_compare_exchange(                                                         \
		    cas_at, (was), &cas_value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);             \
	})
#define atomic_compare_exchange_weak(at, was, value) atomic_compare_exchange_strong(at, was, value)

#endif
