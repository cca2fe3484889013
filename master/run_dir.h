/*
 * run_dir - the directory for what lives as long as the server: the lock, the control
 * socket, the addresses.
 */
#ifndef MASTER_RUN_DIR_H
#define MASTER_RUN_DIR_H

#include "common/conf.h"

struct run_dir;

/*
 * Makes the directory (0700) and takes the lock in it, so that no two masters share it.
 * NULL: logged. The kernel gives the lock back when the last holder of the descriptor ends;
 * run_dir_close() also removes the control socket and the addresses.
 */
struct run_dir *run_dir_open(const struct conf *);
void run_dir_close(struct run_dir **);

/* For a master that takes over: the lock is inherited, and is nobody else's as long as one of the
 * two lives. claim: its number goes into the lock file. leave: the directory is the other's. */
struct run_dir *run_dir_inherit(const struct conf *, int lock_fd);
int run_dir_lock_fd(const struct run_dir *);
void run_dir_claim(const struct run_dir *);
void run_dir_leave(struct run_dir **);

/* The path of a file in it; malloc'd. */
char *run_dir_path(const struct conf *, const char *name);

#endif
