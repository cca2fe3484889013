/*
 * pg_error - what PostgreSQL's errors mean to an operation and to its connection.
 *
 * The codes: https://www.postgresql.org/docs/15/errcodes-appendix.html
 */
#include "worker/store/pg_error.h"

#include <string.h>

#include "common/check.h"
#include "common/err.h"

/* The longest prefix that matches decides. */
static const struct {
	const char *prefix;
	enum pg_verdict verdict;
	int err;
} meanings[] = {
    {"08", PG_REPEAT_ELSEWHERE, 0},     /* connection */
    {"22021", PG_OWN, E_INVALID_VALUE}, /* no UTF-8: somebody gave it as a text */
    {"25006", PG_REPEAT_ELSEWHERE, 0},  /* read-only: it was demoted */
    {"25P02", PG_REPEAT_ELSEWHERE, 0},  /* a failed transaction that should not be there */
    {"25P03", PG_REPEAT_ELSEWHERE, 0},  /* idle in a transaction for too long */
    {"26", PG_REPEAT, 0},               /* no such prepared statement */
    {"40", PG_REPEAT, 0},               /* deadlock, serialization */
    {"42P05", PG_REPEAT, 0},            /* a prepared statement is there already */
    {"53", PG_FAILING, 0},              /* disk full, memory, connections */
    {"54", PG_OWN, E_PAYLOAD_TOO_LARGE},
    {"55P03", PG_FAILING, 0},       /* lock not available */
    {"57", PG_REPEAT_ELSEWHERE, 0}, /* shutdown, crash, idle, starting up */
    {"57014", PG_FAILING, 0},       /* cancelled: statement_timeout */
    {"58", PG_FAILING, 0},          /* its system, its disk */
    {"XX", PG_FAILING, 0},          /* internal, corrupted */
    {"", PG_OWN, E_INTERNAL},
};

enum pg_verdict
pg_error_judge(const struct op *op, const char *sqlstate, const char *constraint, bool is_repeated,
    int *ret_err)
{
	size_t best = ARRAY_LEN(meanings) - 1;

	*ret_err = E_STORE_UNAVAILABLE;
	if (sqlstate == NULL)
		return PG_REPEAT_ELSEWHERE;
	for (int i = 0; constraint != NULL && i < OP_CONSTRAINTS_MAX; i++)
		if (strcmp(sqlstate, "23505") == 0 && op->constraints[i].index != NULL &&
		    strcmp(op->constraints[i].index, constraint) == 0) {
			*ret_err = op->constraints[i].err;
			return PG_OWN;
		}
	/* The row that is in the way is its own: next time it finds it. */
	if (is_repeated && strcmp(sqlstate, "23505") == 0)
		return PG_REPEAT;
	for (size_t i = 0; i < ARRAY_LEN(meanings); i++) {
		size_t len = strlen(meanings[i].prefix);

		if (strncmp(sqlstate, meanings[i].prefix, len) == 0 &&
		    len > strlen(meanings[best].prefix))
			best = i;
	}
	if (meanings[best].verdict == PG_OWN)
		*ret_err = meanings[best].err;
	return meanings[best].verdict;
}
