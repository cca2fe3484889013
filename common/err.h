/*
 * err - the negative numbers that functions return, and what clients see.
 *
 * 0 is success. The facts are in err.tbl.
 */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

enum err_index {
#define X(name, status, type, code, text) name##_index,
#include "common/err.tbl"
#undef X
	ERR_COUNT
};

enum err {
	E_OK = 0,
#define X(name, status, type, code, text) name = -(name##_index + 1),
#include "common/err.tbl"
#undef X
};

struct err_info {
	const char *name; /* "E_NOT_FOUND", for logs */
	int status;       /* HTTP */
	const char *type;
	const char *code;
	const char *text;
};

/* Never NULL; err must be one of the negative numbers above. */
const struct err_info *err_info(int err);

/* The number whose `code` is this, or E_INTERNAL: for errors that travelled as text. */
int err_by_code(const char *code);

#endif
