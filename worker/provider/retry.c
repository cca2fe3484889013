/* retry - see retry.h. */
#include "worker/provider/retry.h"

#include <string.h>
#include <time.h>

enum { RETRY_AFTER_MAX_S = 86400 };

/* ---- Retry-After ---- */

/* IMF-fixdate, and the two obsolete forms that a recipient must take. False: none of them. */
static bool
parse_date(struct str value, int64_t *ret_s)
{
	static const char *const forms[] = {
	    "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"};
	char text[64];

	if (value.len >= sizeof(text))
		return false;
	memcpy(text, value.p, value.len);
	text[value.len] = '\0';
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, forms[i], &tm);

		if (end != NULL && *end == '\0') {
			*ret_s = timegm(&tm);
			return true;
		}
	}
	return false;
}

uint32_t
retry_after_parse(struct str value, int64_t wall_ms)
{
	uint64_t seconds = 0;
	int64_t at_s, left_ms;

	if (value.len == 0)
		return 0;
	if (str_to_u64(value, &seconds))
		left_ms =
		    (int64_t)(seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S) * 1000;
	else if (parse_date(value, &at_s))
		left_ms = at_s * 1000 - wall_ms;
	else
		return 0;
	if (left_ms < 0)
		return 0;
	return (uint32_t)(left_ms < RETRY_AFTER_MAX_S * 1000 ? left_ms : RETRY_AFTER_MAX_S * 1000);
}
