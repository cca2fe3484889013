/*
 * op_wire - what an operation is called with and what it answers, in bytes.
 *
 * Pure. A call is the operation's name and its values in order; an answer is an
 * error, a count of changes, and rows. Values carry their types. What is read
 * borrows from the wire.
 */
#ifndef WORKER_STORE_OP_WIRE_H
#define WORKER_STORE_OP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"
#include "worker/store/ops.h"

enum op_type { OP_NULL, OP_INT, OP_TEXT, OP_BLOB };

struct op_value {
	enum op_type type;
	int64_t number;
	struct str bytes; /* a text is followed by a NUL that is not counted */
};

/* ---- a call: every parameter, then for each group the count of its rows and their values ---- */

struct op_call {
	const struct op *op;
	struct buf wire;
	size_t missing; /* values that must still be put before the next count or the end */
	unsigned groups_put;
};

void op_call_init(struct op_call *, const struct op *);
void op_call_fini(struct op_call *);
void op_put_int(struct op_call *, int64_t);
void op_put_time(struct op_call *, int64_t wall_ms); /* 0 becomes NULL */
void op_put_text(struct op_call *, const char *);    /* NULL becomes NULL */
void op_put_blob(struct op_call *, const void *bytes, size_t len);
void op_put_count(struct op_call *, size_t rows); /* of the next group */
bool op_call_is_complete(const struct op_call *);

struct op_call_view {
	const struct op *op;
	struct op_value values[OP_VALUES_MAX]; /* the parameters; behind them a row */
	size_t param_count;
	struct {
		uint64_t count;
		size_t columns;
		struct str rows;
	} groups[OP_GROUPS_MAX];
};

/* False: malformed, or an operation that this program does not have. Checks the rows too. */
bool op_call_read(struct str wire, struct op_call_view *ret);
/* Puts the next row of *rows behind the parameters. */
void op_call_take_row(struct op_call_view *, unsigned group, struct str *rows);

/* ---- an answer ---- */

struct op_answer {
	struct buf values; /* row after row */
	int err;           /* 0 or E_* */
	uint64_t changes, rows;
	unsigned columns;
	bool is_cut; /* there were more rows */
};

void op_answer_fini(struct op_answer *);
void op_answer_clear(struct op_answer *);                        /* keeps the room */
void op_answer_add(struct op_answer *, const struct op_value *); /* the next value of a row */
void op_answer_write(const struct op_answer *, struct buf *out);

struct op_rows {
	int err;
	bool is_cut;
	uint64_t changes, count;
	unsigned columns;
	struct str rest;
};

bool op_rows_read(struct str wire, struct op_rows *ret); /* false: malformed */
struct op_rows op_rows_of(const struct op_answer *);     /* without the way over the wire */
/* The next row; false at the end. */
bool op_rows_next(struct op_rows *, struct op_value values[OP_VALUES_MAX]);

const char *op_text(const struct op_value *); /* NULL when NULL */
int64_t op_int(const struct op_value *);      /* 0 when NULL */

#endif
