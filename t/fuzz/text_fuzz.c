/*
 * text_fuzz - the small readers of outside text in common: times, ids, base64,
 * numbers, UTF-8. What is accepted must survive a round trip.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"
#include "common/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_time(struct str text)
{
	char out[CLOCK_RFC3339_LEN + 1];
	int64_t ms, again;

	if (!clock_parse(text, &ms) || ms < 0 || ms > 253402300799999)
		return;
	clock_format(ms, out);
	check(clock_parse(str_of(out), &again) && again == ms);
}

static void
read_id(struct str text)
{
	struct id id, again;
	uint8_t bits[16];

	if (!id_parse(text, "turn", &id))
		return;
	check(id_parse(id_str(&id), "turn", &again) && strcmp(id.s, again.s) == 0);
	id_bits(&id, bits);
}

static void
read_base64(struct str text)
{
	struct buf bytes = BUF_INIT, encoded = BUF_INIT, again = BUF_INIT;

	if (crypto_base64_decode(text, &bytes)) {
		crypto_base64url(buf_str(&bytes), &encoded);
		check(crypto_base64_decode(buf_str(&encoded), &again));
		check(str_eq(buf_str(&bytes), buf_str(&again)));
	}
	buf_fini(&bytes);
	buf_fini(&encoded);
	buf_fini(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str text = str_sub((const char *)data, size), rest = text;
	struct buf escaped = BUF_INIT;
	uint64_t n;

	read_time(text);
	read_id(text);
	read_base64(text);
	str_to_u64(text, &n);
	while (rest.len > 0)
		str_trim(str_split(&rest, ','));
	buf_add_json_escaped(&escaped, text);
	check(str_is_utf8(text) == str_is_utf8(buf_str(&escaped)));
	buf_fini(&escaped);
	return 0;
}
