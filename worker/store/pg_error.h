/*
 * pg_error - what PostgreSQL's errors mean to an operation and to its connection. Pure.
 */
#ifndef WORKER_STORE_PG_ERROR_H
#define WORKER_STORE_PG_ERROR_H

#include <stdbool.h>

#include "worker/store/ops.h"

enum pg_verdict {
	PG_OWN,              /* only this operation suffers: `err` */
	PG_REPEAT,           /* it may be repeated at once: a deadlock, a statement not prepared */
	PG_REPEAT_ELSEWHERE, /* and this connection is of no use any more */
	PG_FAILING, /* the database cannot do it now, or not in time: E_STORE_UNAVAILABLE */
};

/*
 * sqlstate: five characters, or NULL when libpq itself has failed. constraint: its name, for a
 * violation, or NULL. is_repeated: an earlier try may have been committed meanwhile.
 */
enum pg_verdict pg_error_judge(const struct op *, const char *sqlstate, const char *constraint,
    bool is_repeated, int *ret_err);

#endif
