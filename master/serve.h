/*
 * serve - the master's life, from the configuration to the last worker's end.
 */
#ifndef MASTER_SERVE_H
#define MASTER_SERVE_H

#include "common/conf.h"
#include "master/options.h"

/* Takes the conf over. Returns the exit status. */
int serve(struct conf *, const struct options *, char *const *environment);

#endif
