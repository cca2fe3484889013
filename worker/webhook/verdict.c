/* verdict - see verdict.h. */
#include "worker/webhook/verdict.h"

#include <stddef.h>

static const char *
error_of(const struct attempt *a)
{
	/* An answer whose rest did not come has said all that counts. */
	if (a->status == 0)
		return client_outcome_name(a->outcome);
	if (a->status == 410)
		return "gone";
	return a->status >= 300 && a->status < 400 ? "redirect_not_followed" : "status";
}

static uint64_t
delay_of(const struct attempt *a, const struct conf_webhooks *conf)
{
	uint64_t delay_ms = conf->backoff_ms;

	for (uint64_t i = 0; i < a->before && delay_ms < conf->backoff_max_ms; i++)
		delay_ms *= 2;
	delay_ms += (uint64_t)((double)delay_ms * a->dice / 4);
	if (delay_ms < a->retry_after_ms)
		delay_ms = a->retry_after_ms;
	return delay_ms < conf->backoff_max_ms ? delay_ms : conf->backoff_max_ms;
}

struct verdict
verdict_of(const struct attempt *a, const struct conf_webhooks *conf)
{
	struct verdict v = {.what = VERDICT_AGAIN, .counts_as_fault = true};

	if (a->status >= 200 && a->status < 300)
		return (struct verdict){.what = VERDICT_DELIVERED};
	v.error = error_of(a);
	if (a->status == 410) {
		v.what = VERDICT_GONE;
		v.counts_as_fault = false;
	} else if (a->outcome == CLIENT_REFUSED_ADDRESS) {
		v.what = VERDICT_DEAD;
		v.counts_as_fault = false;
	} else if (a->before >= (uint64_t)conf->max_retries) {
		v.what = VERDICT_DEAD;
	} else {
		v.delay_ms = delay_of(a, conf);
	}
	return v;
}
