/*
 * drop - giving up root: `user` and `group`.
 *
 * After the sockets of every slot are made (a later bind by another uid could not join
 * their SO_REUSEPORT group), before anything that workers write is created.
 */
#ifndef MASTER_DROP_H
#define MASTER_DROP_H

#include <stdbool.h>

#include "common/conf.h"

/* What is made so far (run_dir, log file) is given to the user. False: logged. */
bool drop_privileges(const struct conf *);

#endif
