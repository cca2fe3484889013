/*
 * ops - the table of operations, and what can be said of one without a database.
 */
#include "worker/store/ops.h"

#include <ctype.h>

#include "common/check.h"

static const struct op *const ops[OP_COUNT] = {
#define OP(name) &op_##name,
#include "worker/store/ops.tbl"
#undef OP
};

const struct op *
op_find(struct str name)
{
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (str_eq(str_of(ops[i]->name), name))
			return ops[i];
	return NULL;
}

const struct op *
op_at(unsigned index)
{
	check(index < OP_COUNT);
	return ops[index];
}

unsigned
op_index(const struct op *op)
{
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (ops[i] == op)
			return i;
	check(!"an operation that is not in ops.tbl");
	return OP_COUNT;
}

size_t
op_names_count(const char *names)
{
	size_t count = 0;

	for (struct str rest = str_of(names); rest.len > 0;)
		count += str_split(&rest, ' ').len > 0;
	return count;
}

static int
name_index(const char *names, struct str name)
{
	int i = 0;

	for (struct str rest = str_of(names); rest.len > 0; i++)
		if (str_eq(str_split(&rest, ' '), name))
			return i;
	return -1;
}

int
op_position(const struct op *op, const struct op_statement *st, struct str name)
{
	int i = name_index(op->params, name);

	if (i >= 0 || st->each == 0)
		return i;
	i = name_index(op->groups[st->each - 1], name);
	return i < 0 ? -1 : (int)op_names_count(op->params) + i;
}

static size_t
name_length(const char *s)
{
	size_t len = 0;

	while (isalnum((unsigned char)s[len]) || s[len] == '_')
		len++;
	return len;
}

static size_t
position_number(uint8_t positions[OP_VALUES_MAX], size_t *count, int position)
{
	check(position >= 0 && position < OP_VALUES_MAX);
	for (size_t i = 0; i < *count; i++)
		if (positions[i] == position)
			return i + 1;
	check(*count < OP_VALUES_MAX);
	positions[(*count)++] = (uint8_t)position;
	return *count;
}

size_t
op_postgres_text(const struct op *op, const struct op_statement *st,
    uint8_t positions[OP_VALUES_MAX], struct buf *out)
{
	size_t count = 0;

	for (const char *s = st->postgres != NULL ? st->postgres : st->sql; *s != '\0';) {
		size_t len = *s == '$' ? name_length(s + 1) : 0;

		if (len == 0) {
			buf_add_char(out, *s++);
			continue;
		}
		buf_printf(out, "$%zu",
		    position_number(positions, &count, op_position(op, st, str_sub(s + 1, len))));
		s += 1 + len;
	}
	return count;
}
