/*
 * op_wire - what an operation is called with and what it answers, in bytes.
 *
 *   value   type(1) | INT: zigzag varint | TEXT, BLOB: varint length, bytes; TEXT: NUL
 *   call    name as TEXT, values of the parameters, per group: varint rows, values
 *   answer  zigzag varint err, is_cut(1), varint changes, columns, rows, values
 */
#include "worker/store/op_wire.h"

#include "common/check.h"
#include "common/err.h"

static void
put_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_add_char(b, (char)(v | 0x80));
	buf_add_char(b, (char)v);
}

static bool
take_varint(struct str *rest, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < rest->len && i < 10; i++) {
		uint8_t byte = (uint8_t)rest->p[i];

		if (i == 9 && byte > 1)
			return false;
		v |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80) {
			*ret = v;
			*rest = str_sub(rest->p + i + 1, rest->len - i - 1);
			return true;
		}
	}
	return false;
}

static uint64_t
zigzag(int64_t n)
{
	return ((uint64_t)n << 1) ^ (n < 0 ? UINT64_MAX : 0);
}

static int64_t
unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static void
put_value(struct buf *b, const struct op_value *v)
{
	buf_add_char(b, (char)v->type);
	if (v->type == OP_INT)
		put_varint(b, zigzag(v->number));
	if (v->type != OP_TEXT && v->type != OP_BLOB)
		return;
	put_varint(b, v->bytes.len);
	buf_add_str(b, v->bytes);
	if (v->type == OP_TEXT)
		buf_add_char(b, '\0');
}

static bool
take_bytes(struct str *rest, size_t extra, struct str *ret)
{
	uint64_t len;

	if (!take_varint(rest, &len) || len > rest->len || rest->len - len < extra)
		return false;
	if (extra > 0 && rest->p[len] != '\0')
		return false;
	*ret = str_sub(rest->p, len);
	*rest = str_sub(rest->p + len + extra, rest->len - len - extra);
	return true;
}

static bool
take_value(struct str *rest, struct op_value *ret)
{
	struct op_value v = {.type = OP_NULL};
	uint64_t n;

	if (rest->len == 0 || (uint8_t)rest->p[0] > OP_BLOB)
		return false;
	v.type = (enum op_type)rest->p[0];
	*rest = str_sub(rest->p + 1, rest->len - 1);
	if (v.type == OP_INT) {
		if (!take_varint(rest, &n))
			return false;
		v.number = unzigzag(n);
	} else if (v.type != OP_NULL && !take_bytes(rest, v.type == OP_TEXT, &v.bytes)) {
		return false;
	}
	*ret = v;
	return true;
}

/* ---- a call ---- */

void
op_call_init(struct op_call *call, const struct op *op)
{
	struct op_value name = {.type = OP_TEXT, .bytes = str_of(op->name)};

	*call = (struct op_call){.op = op, .missing = op_names_count(op->params)};
	put_value(&call->wire, &name);
}

void
op_call_fini(struct op_call *call)
{
	buf_fini(&call->wire);
}

static void
put_param(struct op_call *call, const struct op_value *v)
{
	check(call->missing > 0);
	call->missing--;
	put_value(&call->wire, v);
}

void
op_put_int(struct op_call *call, int64_t n)
{
	put_param(call, &(struct op_value){.type = OP_INT, .number = n});
}

void
op_put_time(struct op_call *call, int64_t wall_ms)
{
	put_param(
	    call, &(struct op_value){.type = wall_ms == 0 ? OP_NULL : OP_INT, .number = wall_ms});
}

void
op_put_text(struct op_call *call, const char *s)
{
	put_param(
	    call, &(struct op_value){.type = s == NULL ? OP_NULL : OP_TEXT, .bytes = str_of(s)});
}

void
op_put_blob(struct op_call *call, const void *bytes, size_t len)
{
	put_param(call, &(struct op_value){.type = OP_BLOB, .bytes = str_sub(bytes, len)});
}

void
op_put_count(struct op_call *call, size_t rows)
{
	check(call->missing == 0);
	check(call->groups_put < OP_GROUPS_MAX && call->op->groups[call->groups_put] != NULL);
	call->missing = rows * op_names_count(call->op->groups[call->groups_put++]);
	put_varint(&call->wire, rows);
}

bool
op_call_is_complete(const struct op_call *call)
{
	return call->missing == 0 &&
	       (call->groups_put == OP_GROUPS_MAX || call->op->groups[call->groups_put] == NULL);
}

static bool
read_group(struct str *rest, const char *names, struct op_call_view *view, unsigned g)
{
	struct op_value skipped;
	uint64_t count;
	size_t columns = op_names_count(names);

	if (!take_varint(rest, &count) || count > rest->len)
		return false;
	view->groups[g].count = count;
	view->groups[g].columns = columns;
	view->groups[g].rows = *rest;
	for (uint64_t i = 0; i < count * columns; i++)
		if (!take_value(rest, &skipped))
			return false;
	return true;
}

bool
op_call_read(struct str wire, struct op_call_view *ret)
{
	struct op_value name;

	*ret = (struct op_call_view){.op = NULL};
	if (!take_value(&wire, &name) || name.type != OP_TEXT)
		return false;
	if ((ret->op = op_find(name.bytes)) == NULL)
		return false;
	ret->param_count = op_names_count(ret->op->params);
	for (size_t i = 0; i < ret->param_count; i++)
		if (!take_value(&wire, &ret->values[i]))
			return false;
	for (unsigned g = 0; g < OP_GROUPS_MAX && ret->op->groups[g] != NULL; g++)
		if (!read_group(&wire, ret->op->groups[g], ret, g))
			return false;
	return wire.len == 0;
}

void
op_call_take_row(struct op_call_view *view, unsigned group, struct str *rows)
{
	for (size_t i = 0; i < view->groups[group].columns; i++)
		check(take_value(rows, &view->values[view->param_count + i]));
}

/* ---- an answer ---- */

void
op_answer_fini(struct op_answer *a)
{
	buf_fini(&a->values);
	*a = (struct op_answer){.err = 0};
}

void
op_answer_clear(struct op_answer *a)
{
	struct buf room = a->values;

	buf_clear(&room);
	*a = (struct op_answer){.values = room};
}

void
op_answer_add(struct op_answer *a, const struct op_value *v)
{
	put_value(&a->values, v);
}

void
op_answer_write(const struct op_answer *a, struct buf *out)
{
	put_varint(out, zigzag(a->err));
	buf_add_char(out, a->is_cut);
	put_varint(out, a->changes);
	put_varint(out, a->columns);
	put_varint(out, a->rows);
	buf_add_str(out, buf_str(&a->values));
}

static bool
rows_are_whole(const struct op_rows *r)
{
	struct op_value skipped;
	struct str rest = r->rest;

	if (r->columns > OP_VALUES_MAX || (r->columns == 0 && r->count > 0))
		return false;
	if (r->count > rest.len)
		return false;
	for (uint64_t i = 0; i < r->count * r->columns; i++)
		if (!take_value(&rest, &skipped))
			return false;
	return rest.len == 0;
}

bool
op_rows_read(struct str wire, struct op_rows *ret)
{
	struct op_rows r = {.err = 0};
	uint64_t err, columns;

	if (!take_varint(&wire, &err) || unzigzag(err) > 0 || unzigzag(err) < -(int64_t)ERR_COUNT)
		return false;
	if (wire.len == 0 || (uint8_t)wire.p[0] > 1)
		return false;
	r.err = (int)unzigzag(err);
	r.is_cut = wire.p[0] == 1;
	wire = str_sub(wire.p + 1, wire.len - 1);
	if (!take_varint(&wire, &r.changes) || !take_varint(&wire, &columns) ||
	    !take_varint(&wire, &r.count) || columns > OP_VALUES_MAX)
		return false;
	r.columns = (unsigned)columns;
	r.rest = wire;
	if (!rows_are_whole(&r))
		return false;
	*ret = r;
	return true;
}

struct op_rows
op_rows_of(const struct op_answer *a)
{
	return (struct op_rows){.err = a->err,
	    .is_cut = a->is_cut,
	    .changes = a->changes,
	    .count = a->rows,
	    .columns = a->columns,
	    .rest = buf_str(&a->values)};
}

bool
op_rows_next(struct op_rows *r, struct op_value values[OP_VALUES_MAX])
{
	if (r->count == 0)
		return false;
	r->count--;
	for (unsigned i = 0; i < r->columns; i++)
		check(take_value(&r->rest, &values[i]));
	return true;
}

const char *
op_text(const struct op_value *v)
{
	return v->type == OP_TEXT ? v->bytes.p : NULL;
}

int64_t
op_int(const struct op_value *v)
{
	return v->type == OP_INT ? v->number : 0;
}
