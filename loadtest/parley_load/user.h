/*
 * user - the steps that scenarios have in common: open a session, keep an
 * answer's body.
 */
#ifndef LOADTEST_PARLEY_LOAD_USER_H
#define LOADTEST_PARLEY_LOAD_USER_H

#include "common/buf.h"
#include "loadtest/parley_load/load.h"

enum { USER_SESSION_MAX = 64 };

/* The value of the first "name":"value" in the text, or empty. */
struct str user_find(struct str json, const char *name);

/* Opens a session on its own connection, again when the server is full; on_session once, with an
 * empty id when it failed otherwise. */
void user_open_session(struct load *, void (*on_session)(void *arg, struct str id), void *arg);

/* For on_session: keeps the id, terminated. False: there is none, and the user is gone. */
bool user_keep_session(struct load *, struct str id, char ret_session[USER_SESSION_MAX]);

#endif
