/*
 * reload - a new configuration for a running server.
 */
#ifndef MASTER_RELOAD_H
#define MASTER_RELOAD_H

#include "common/conf.h"
#include "master/options.h"

/*
 * Reads the configuration again: file, environment, flags. NULL when anything is wrong:
 * every error is logged, and appended to *errors, a line each. What takes effect only with a new
 * start is named in a warning and stays as it is in `now`.
 */
struct conf *reload_conf(const struct options *, char *const *environment, const struct conf *now,
    uint32_t workers_max, struct buf *errors);

#endif
