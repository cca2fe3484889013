/*
 * money - what tokens cost, in integers.
 *
 * Pure. An amount is in micros: millionths of the unit of the configured prices. A price is in
 * picos a token (10^-12 units): a millionth of what a million tokens cost in micros, so that
 * prices with six digits behind the point are exact. Costs are summed up in picos and rounded
 * once, up: a call that costs anything costs a micro at least.
 */
#ifndef COMMON_MONEY_H
#define COMMON_MONEY_H

#include <stdbool.h>
#include <stdint.h>

struct money_price {
	bool is_known;
	uint64_t input, output, cached; /* picos a token; up to 10^12 */
};

/* Units per million tokens, as the config says them; input or output below 0: not known, cached
 * below 0: as input. */
struct money_price money_price_of(double input, double output, double cached);

/* Micros, rounded up; -1 without a price. cached are among input. At most INT64_MAX. */
int64_t money_cost(
    const struct money_price *, uint64_t input_tokens, uint64_t output_tokens, uint64_t cached);

/* Units to the nearest micro; below 0: 0. */
int64_t money_micros(double units);

/* As people write it: "12", "0.5", "0.000001". Room for MONEY_TEXT_MAX bytes. */
enum { MONEY_TEXT_MAX = 24 };
const char *money_format(int64_t micros, char out[MONEY_TEXT_MAX]);

#endif
