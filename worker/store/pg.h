/*
 * pg - the record in PostgreSQL: this worker's connections, and the operations that wait for one.
 *
 * Private to worker/store; pg_direct.c makes a backend of it.
 */
#ifndef WORKER_STORE_PG_H
#define WORKER_STORE_PG_H

#include "common/list.h"
#include "worker/store/backend.h"

void *pg_open(const struct backend_env *); /* NULL: logged */
/* As struct backend says. */
void pg_add(void *, struct job *);
bool pg_is_elected(const void *);
const struct conf *pg_conf(const void *);
/* Frees it. Writes whose end nobody knows go to the list, as struct job, in the order in which they
 * came; reads and upkeep are dropped. */
void pg_give_up(void *, struct list *writes);

#endif
