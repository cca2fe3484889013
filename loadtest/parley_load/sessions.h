/*
 * sessions - very many sessions, opened over a few connections that are kept:
 * a connection for each, as user.h makes it, would be as much work again.
 */
#ifndef LOADTEST_PARLEY_LOAD_SESSIONS_H
#define LOADTEST_PARLEY_LOAD_SESSIONS_H

#include "loadtest/parley_load/load.h"

/*
 * on_session once, with an empty id when it failed; again and again when the server is full. With
 * --devices it is that of the process's nth device, which an earlier run may have opened.
 */
void sessions_open(struct load *, void (*on_session)(void *arg, struct str id), void *arg);

#endif
