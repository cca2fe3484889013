/* expect - a name, one or two signs, a number. */
#include "loadtest/parley_load/expect.h"

#include <stdlib.h>

static const struct {
	const char *sign;
	enum expect_op op;
} signs[] = {{"<=", EXPECT_AT_MOST}, {">=", EXPECT_AT_LEAST}, {"<", EXPECT_LESS},
    {">", EXPECT_MORE}, {"=", EXPECT_EQUAL}};

bool
expect_parse(const char *text, struct expect *ret)
{
	size_t name_len = strcspn(text, "<>="), sign_len = 0;
	const char *sign = text + name_len;
	struct expect e = {.text = text, .name = {text, name_len}};
	char *end;

	for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]) && sign_len == 0; i++) {
		if (strncmp(sign, signs[i].sign, strlen(signs[i].sign)) != 0)
			continue;
		sign_len = strlen(signs[i].sign);
		e.op = signs[i].op;
	}
	if (name_len == 0 || sign_len == 0)
		return false;
	const char *number = sign + sign_len;
	if (*number < '0' || *number > '9')
		return false;
	e.bound = strtod(number, &end);
	if (*end != '\0')
		return false;
	*ret = e;
	return true;
}

bool
expect_holds(const struct expect *e, double value)
{
	switch (e->op) {
	case EXPECT_LESS:
		return value < e->bound;
	case EXPECT_AT_MOST:
		return value <= e->bound;
	case EXPECT_MORE:
		return value > e->bound;
	case EXPECT_AT_LEAST:
		return value >= e->bound;
	case EXPECT_EQUAL:
		return value == e->bound;
	}
	return false;
}
