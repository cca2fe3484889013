/*
 * ops - operations of the record: named lists of SQL statements that run in one
 * transaction, as data.
 *
 * An operation has named parameters, and up to three groups: rows of further
 * parameters, for statements that run once per row. Statements name what they
 * need as `$name`. One text serves both databases where it can: from_ms() and
 * to_ms() turn milliseconds into the database's times and back. What an operation
 * is called with and what it answers has a compact wire form (op_wire.h), so any
 * of them can run in another process.
 *
 * The operations stand beside the verbs that use them (sessions.c, turns.c, ..)
 * and are listed in ops.tbl.
 */
#ifndef WORKER_STORE_OPS_H
#define WORKER_STORE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum op_expect {
	OP_ANY,         /* whatever comes */
	OP_ONE,         /* a row or a change, else the operation fails with `err` */
	OP_NONE,        /* no row, else the operation fails with `err` and the row is its answer */
	OP_DONE_IF_ROW, /* a row ends the operation well and is its answer */
};

enum {
	OP_STATEMENTS_MAX = 14,
	OP_CONSTRAINTS_MAX = 2,
	OP_GROUPS_MAX = 3,
	OP_VALUES_MAX = 32, /* parameters and a row of a group together; columns of an answer */
};

struct op_statement {
	const char *sql;      /* both databases', or SQLite's where `postgres` is given. "": none */
	const char *postgres; /* NULL: the same. "": none */
	enum op_expect expect;
	int err;
	unsigned each;  /* 1, 2, 3: runs once for each row of that group. 0: once */
	bool is_answer; /* its rows and its count of changes are the operation's */
};

/* A unique index that was violated, and what it means. */
struct op_constraint {
	const char *index;   /* PostgreSQL says its name, */
	const char *columns; /* SQLite its columns: "turns.session_id, turns.request_id" */
	int err;
};

struct op {
	const char *name;
	const char *params; /* names with a space between */
	const char *groups[OP_GROUPS_MAX];
	bool is_write;
	bool is_slow;   /* a read of many rows: not on the loop */
	bool is_first;  /* ends a turn or keeps a lease: does not wait behind reads (PostgreSQL) */
	bool is_upkeep; /* a write that comes again by itself: not waited for at the end */
	struct op_statement statements[OP_STATEMENTS_MAX]; /* until sql is NULL */
	struct op_constraint constraints[OP_CONSTRAINTS_MAX];
};

#define OP(name) extern const struct op op_##name;
#include "worker/store/ops.tbl"
#undef OP

enum {
#define OP(name) OP_INDEX_##name,
#include "worker/store/ops.tbl"
#undef OP
	OP_COUNT
};

const struct op *op_find(struct str name); /* NULL: none */
const struct op *op_at(unsigned index);    /* index < OP_COUNT */
unsigned op_index(const struct op *);

size_t op_names_count(const char *names); /* how many there are; NULL: 0 */

/*
 * Where the value of a parameter stands for a statement: first the operation's,
 * behind them the row's of the statement's group. -1: no such name.
 */
int op_position(const struct op *, const struct op_statement *, struct str name);

/*
 * The statement as PostgreSQL takes it: $1, $2, .. in place of the names; the
 * value of $i+1 stands at positions[i]. Returns how many there are.
 */
size_t op_postgres_text(const struct op *, const struct op_statement *,
    uint8_t positions[OP_VALUES_MAX], struct buf *out);

#endif
