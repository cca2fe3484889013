/*
 * fleet - the processes of a run: forks them, shows how they do, waits for them,
 * adds up what they counted.
 *
 * SIGTERM and SIGINT end the run early, with what there is. A process that does
 * not end by itself is killed.
 */
#ifndef LOADTEST_PARLEY_LOAD_FLEET_H
#define LOADTEST_PARLEY_LOAD_FLEET_H

#include "loadtest/parley_load/load.h"
#include "loadtest/parley_load/report.h"

/* Prints "standing N" when in every process all stand that are meant to. */
void fleet_run(const struct options *, const struct scenario *, struct report *ret);

#endif
