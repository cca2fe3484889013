/* err - the table of errors. */
#include "common/err.h"

#include <string.h>

#include "common/check.h"

static const struct err_info table[ERR_COUNT] = {
#define X(name, status, type, code, text) {#name, status, type, code, text},
#include "common/err.tbl"
#undef X
};

const struct err_info *
err_info(int err)
{
	check(err < 0 && err >= -ERR_COUNT);
	return &table[-err - 1];
}

int
err_by_code(const char *code)
{
	for (int i = 0; i < ERR_COUNT; i++) {
		if (strcmp(table[i].code, code) == 0)
			return -(i + 1);
	}
	return E_INTERNAL;
}
