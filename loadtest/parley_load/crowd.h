/*
 * crowd - what the processes of a run must know of one another: in memory that
 * they share. The parent writes, they look now and then.
 */
#ifndef LOADTEST_PARLEY_LOAD_CROWD_H
#define LOADTEST_PARLEY_LOAD_CROWD_H

#include <stdatomic.h>

struct crowd {                   /* zeroed before first use */
	atomic_bool is_standing; /* of a scenario that holds: the goal stands, in all of them */
	atomic_bool is_full;     /* the machine takes no more: begin nothing new */
};

#endif
