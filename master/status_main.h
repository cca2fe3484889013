/*
 * status_main - `parleyd status`: asks the running server and shows what it says.
 */
#ifndef MASTER_STATUS_MAIN_H
#define MASTER_STATUS_MAIN_H

#include "common/conf.h"

/*
 * `--watch`, `-w`: again every second, on a terminal, until q or Ctrl-C; once where standard
 * output is none. `--json`: the answer as it came. Returns the exit status: 3, as init scripts say
 * it, when no server is running. argv as options.h gives it.
 */
int status_command(const struct conf *, int argc, char **argv);

#endif
