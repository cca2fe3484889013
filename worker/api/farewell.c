/* farewell - see farewell.h. */
#include "worker/api/farewell.h"

#include "common/crypto.h"

enum {
	BATCH_MAX = 256,
	SPREAD_PARTS = 5, /* of the timeout: four are for the spread */
	MARGIN_MS = 500,  /* after turns have failed for want of time; less of a short timeout */
	MARGIN_PARTS = 20,
};

uint32_t
farewell_batch(const struct conf *conf, size_t count)
{
	uint64_t spread_ms = conf->drain.timeout_ms / SPREAD_PARTS * (SPREAD_PARTS - 1);

	if (spread_ms > conf->drain.spread_ms)
		spread_ms = conf->drain.spread_ms;
	if (spread_ms < FAREWELL_STEP_MS)
		return BATCH_MAX;
	uint64_t batch = (uint64_t)count * FAREWELL_STEP_MS / spread_ms + 1;
	return batch < BATCH_MAX ? (uint32_t)batch : BATCH_MAX;
}

uint64_t
farewell_end_ms(const struct conf *conf)
{
	uint64_t margin_ms = conf->drain.timeout_ms / MARGIN_PARTS;

	return conf->drain.timeout_ms - (margin_ms < MARGIN_MS ? margin_ms : MARGIN_MS);
}

uint32_t
farewell_come_back_ms(const struct conf *conf)
{
	uint64_t chance;

	crypto_random(&chance, sizeof(chance));
	return (uint32_t)(chance % (conf->drain.come_back_ms + 1));
}
