/*
 * failure - the ways in which an attempt at a target fails, and what follows from
 * each. Pure: failure.tbl is the truth.
 */
#ifndef WORKER_PROVIDER_FAILURE_H
#define WORKER_PROVIDER_FAILURE_H

#include <stdbool.h>

#include "common/str.h"

enum failure {
#define X(name, ...) name,
#include "worker/provider/failure.tbl"
#undef X
	FAILURE_COUNT,
};

enum failure_weight { SAYS_NOTHING, PROVES, FAILS };

struct failure_info {
	const char *name; /* for logs */
	int err;
	unsigned outcome; /* LABEL_PROVIDER_OUTCOME */
	bool may_go_again, may_go_elsewhere;
	enum failure_weight weight;
};

const struct failure_info *failure_info(enum failure);

/* What an answer with such a status (not 2xx) and body means. */
enum failure failure_of_status(int status, struct str body);

#endif
