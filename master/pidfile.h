/*
 * pidfile - the master's process id in a file, when `pid_file` asks for it.
 */
#ifndef MASTER_PIDFILE_H
#define MASTER_PIDFILE_H

#include <stdbool.h>

bool pidfile_write(const char *path); /* "": nothing to do. False: logged. */
void pidfile_remove(const char *path);

#endif
