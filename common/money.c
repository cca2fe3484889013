/* money - see money.h. The only floats are the config's, on their way in. */
#include "common/money.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MICROS          1000000
#define PICOS_OF_MICRO  1000000
#define PRICE_UNITS_MAX 1e6

__extension__ typedef unsigned __int128 picos;

static uint64_t
picos_of(double units_per_million)
{
	double capped = units_per_million < PRICE_UNITS_MAX ? units_per_million : PRICE_UNITS_MAX;

	/* Units per million tokens are micros a token. */
	return capped > 0 ? (uint64_t)llround(capped * PICOS_OF_MICRO) : 0;
}

struct money_price
money_price_of(double input, double output, double cached)
{
	if (input < 0 || output < 0)
		return (struct money_price){.is_known = false};
	return (struct money_price){.is_known = true,
	    .input = picos_of(input),
	    .output = picos_of(output),
	    .cached = picos_of(cached < 0 ? input : cached)};
}

int64_t
money_cost(
    const struct money_price *p, uint64_t input_tokens, uint64_t output_tokens, uint64_t cached)
{
	if (!p->is_known)
		return -1;
	if (cached > input_tokens)
		cached = input_tokens;
	picos sum = (picos)(input_tokens - cached) * p->input + (picos)cached * p->cached +
		    (picos)output_tokens * p->output;
	sum = (sum + PICOS_OF_MICRO - 1) / PICOS_OF_MICRO;
	return sum < INT64_MAX ? (int64_t)sum : INT64_MAX;
}

int64_t
money_micros(double units)
{
	if (!(units > 0))
		return 0;
	return units < (double)INT64_MAX / MICROS ? (int64_t)llround(units * MICROS) : INT64_MAX;
}

const char *
money_format(int64_t micros, char out[MONEY_TEXT_MAX])
{
	int n = snprintf(out, MONEY_TEXT_MAX, "%" PRId64 ".%06d", micros / MICROS,
	    (int)(micros < 0 ? -(micros % MICROS) : micros % MICROS));

	while (n > 0 && out[n - 1] == '0')
		n--;
	if (n > 0 && out[n - 1] == '.')
		n--;
	out[n] = '\0';
	return out;
}
