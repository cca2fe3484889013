/*
 * run - what the verbs of the store are made of: an operation goes to the
 * backend, its answer comes back and is read by the verb's decoder.
 *
 * Private to worker/store.
 */
#ifndef WORKER_STORE_RUN_H
#define WORKER_STORE_RUN_H

#include "worker/store/op_wire.h"
#include "worker/store/store.h"

/* A verb's callback, whatever its type: the decoder casts it back. */
typedef void store_callback(void);

/* Reads the answer and calls back. rows->err is 0 or E_*; without an answer there are no rows. */
typedef void store_decode(struct op_rows *rows, store_callback *, void *arg);

/* Takes the call over (op_call_fini() is done here). Never calls back from inside. */
void store_run(struct store *, struct op_call *, store_decode *, store_callback *, void *arg);

/* Decoders that several verbs share: for store_on_done, and for store_on_count of changes or of the
 * first row's number. */
void store_decode_done(struct op_rows *, store_callback *, void *arg);
void store_decode_count(struct op_rows *, store_callback *, void *arg);
void store_decode_number(struct op_rows *, store_callback *, void *arg);

/* What store_use_lost_hooks() was told; returns how many. */
size_t store_lost_hooks(const struct store *, const struct store_lost_hook **ret);

#endif
