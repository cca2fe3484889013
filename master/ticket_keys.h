/*
 * ticket_keys - turns the keys of TLS session tickets when their time has come.
 *
 * Random ones turn tls.ticket_lifetime after they were made. Those of tls.ticket_secret are of the
 * period that the clock on the wall says, so that all hosts have the same.
 */
#ifndef MASTER_TICKET_KEYS_H
#define MASTER_TICKET_KEYS_H

#include <event2/event.h>

#include "common/conf.h"
#include "common/shm.h"

struct ticket_keys;

/* shm outlives it. Random keys that are there already stay. */
struct ticket_keys *ticket_keys_new(struct event_base *, struct shm *, const struct conf *);
void ticket_keys_use(struct ticket_keys *, const struct conf *); /* of a reload */
void ticket_keys_free(struct ticket_keys **);

#endif
