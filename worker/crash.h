/*
 * crash - the last words of a worker that dies of a signal: a backtrace on
 * standard error, then the signal again, so that the master sees it.
 */
#ifndef WORKER_CRASH_H
#define WORKER_CRASH_H

void crash_install(void);

#endif
