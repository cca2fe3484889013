/*
 * reap - who has ended, and how.
 */
#ifndef MASTER_REAP_H
#define MASTER_REAP_H

#include <stdbool.h>
#include <sys/types.h>

enum { REAP_TEXT_MAX = 64 };

/* Every child that has ended, one call each; takes them all, blocks for none. */
void reap_all(void (*on_death)(void *arg, pid_t pid, int status), void *arg);

/* A wait status as log pairs: "exit=0", "signal=ABRT core=yes". Pure. */
void reap_describe(int status, char out[REAP_TEXT_MAX]);

#endif
