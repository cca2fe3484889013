/* failure - the table, and what statuses mean. */
#include "worker/provider/failure.h"

#include "common/check.h"
#include "common/err.h"
#include "common/metric.h"
#include "worker/provider/openai.h"

static const struct failure_info infos[FAILURE_COUNT] = {
#define X(name, err, outcome, again, elsewhere, weighs, text)                                      \
	[name] = {text, err, outcome, again, elsewhere, weighs},
#include "worker/provider/failure.tbl"
#undef X
};

const struct failure_info *
failure_info(enum failure f)
{
	check((unsigned)f < FAILURE_COUNT);
	return &infos[f];
}

enum failure
failure_of_status(int status, struct str body)
{
	switch (status) {
	case 401:
	case 402:
	case 403:
		return FAILURE_KEY;
	case 404:
		return FAILURE_NO_MODEL;
	case 408:
	case 409:
		return FAILURE_CONFLICT;
	case 429: /* money does not come back by waiting */
		return openai_error_is_quota(body) ? FAILURE_KEY : FAILURE_RATE_LIMITED;
	default:
		break;
	}
	if (status >= 500)
		return FAILURE_SERVER;
	if (status < 400)
		return FAILURE_MALFORMED;
	return openai_error_is_context(body) ? FAILURE_CONTEXT : FAILURE_REFUSED;
}
