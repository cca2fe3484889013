/*
 * load - one process of a run: its share of the users and of the goal, what it
 * counts, and the clock of its users.
 */
#ifndef LOADTEST_PARLEY_LOAD_LOAD_H
#define LOADTEST_PARLEY_LOAD_LOAD_H

#include "loadtest/parley_load/conn.h"
#include "loadtest/parley_load/crowd.h"
#include "loadtest/parley_load/options.h"
#include "loadtest/parley_load/tally.h"

struct load {
	const struct options *options;
	struct conn_target target;
	struct conn_target other; /* where tool results and attaches go */
	struct tally *tally;
	const struct crowd *crowd;
	uint32_t users; /* our share */
	uint64_t goal;  /* operations, our share; UINT64_MAX: until the duration ends */
	double offered; /* our share */
	uint32_t process;
	bool is_closing; /* no more operations begin */
	bool is_ending;  /* what was held is to be let go: nothing at all begins */
};

enum outcome { LOAD_WHOLE, LOAD_FAILED, LOAD_REFUSED };

/* Claims the next operation; false: the goal is reached, the user rests. */
bool load_next(struct load *);
/* It ended. first_us: when the first event of its answer came; 0: none did, or none is meant. */
void load_done(struct load *, enum outcome, uint64_t began_us, uint64_t first_us);
/* A user cannot go on. When none is left the run is over. */
void load_gone(struct load *);

/* What a status says: 200 to 299 whole, 503 refused, the rest failed. */
enum outcome load_outcome(int status);

/* The measured part begins here, if not where the process began: what came before was preparation.
 */
void load_measure(struct load *);

/* For a scenario that prepares: all users of the process stand. When it is so in all processes
 * hold() is called. */
void load_stands(struct load *);

/* Calls fn once, on the loop. */
void load_after(struct load *, uint64_t delay_ms, void (*fn)(void *arg), void *arg);
/* How long a user thinks who asked at began_us, by the pace; differs by chance. */
uint64_t load_think_ms(const struct load *, uint64_t began_us);

struct scenario {
	const char *name, *help;
	bool holds; /* an operation is one that stands; they stand until the program is told to end
		     */
	bool needs_offer;
	bool finishes; /* told to end it begins nothing new, and ends what it has begun */
	bool prepares; /* says itself, by load_measure(), when the measured part begins */
	/* One user: works until load_next() says no. Users live as long as the process. */
	void (*begin)(struct load *, uint32_t user);
	/* Once, before any user; NULL: nothing to do. */
	void (*start)(struct load *);
	/* Once, when all stand in all processes, after load_measure(). NULL: nothing to do. */
	void (*hold)(struct load *);
	/* When the hold is over: is nothing under way any more? NULL: nothing ever is. */
	bool (*is_idle)(void);
};

#define X(name) extern const struct scenario scenario_##name;
#include "loadtest/parley_load/scenarios.tbl"
#undef X

/* One process's part of the run, from here to its end. */
void load_run(const struct options *, const struct scenario *, uint32_t process,
    const struct crowd *, struct tally *);

#endif
