/* json_real - short, the same value when read back, and nothing else changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_real.h"

static void
assert_becomes(const char *text, const char *expected)
{
	char *copy = strdup(text);

	json_shorten_reals(copy);
	assert_string_equal(copy, expected);
	free(copy);
}

static void
test_texts(void **state)
{
	(void)state;
	assert_becomes("", "");
	assert_becomes("{\"cost\":1.2999999999999999e-5}", "{\"cost\":1.3e-5}");
	assert_becomes("[0.10000000000000001,0.20000000000000001]", "[0.1,0.2]");
	assert_becomes("[-0.10000000000000001]", "[-0.1]");
	assert_becomes("0.29999999999999999", "0.3");
	/* Really so long. */
	assert_becomes("0.30000000000000004", "0.30000000000000004");
	assert_becomes("[1.0,2.5,1e300,12345678901234567890,9007199254740993]",
	    "[1.0,2.5,1e300,12345678901234567890,9007199254740993]");
	assert_becomes("100000000000000000000.0", "1e20");
	assert_becomes("3.0000000000000000", "3.0");
	/* Not within strings, whatever they contain. */
	assert_becomes(
	    "{\"a\":\"0.10000000000000001\",\"\\\"0.10000000000000001\":0.10000000000000001}",
	    "{\"a\":\"0.10000000000000001\",\"\\\"0.10000000000000001\":0.1}");
	assert_becomes("[\"\\\\\",0.10000000000000001,\"x\"]", "[\"\\\\\",0.1,\"x\"]");
}

/* Any double, as jansson writes it. */
static void
test_round_trip(void **state)
{
	uint64_t bits = 88172645463325252ULL;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		double value, again;
		json_t *v, *read;
		char *text;

		bits ^= bits << 13;
		bits ^= bits >> 7;
		bits ^= bits << 17;
		memcpy(&value, &bits, sizeof(value));
		if (i % 2 == 0)
			value = (double)(bits % 100000000) / 1e6;
		if (!isfinite(value))
			continue;
		v = json_pack("{s:f}", "v", value);
		text = json_dumps(v, JSON_COMPACT);
		size_t len = strlen(text);
		json_shorten_reals(text);
		assert_true(strlen(text) <= len);
		if (i % 2 == 0)
			assert_true(strlen(text) <= strlen("{\"v\":12.345678}") + 2);
		read = json_loads(text, 0, NULL);
		assert_non_null(read);
		assert_true(json_is_real(json_object_get(read, "v")));
		again = json_real_value(json_object_get(read, "v"));
		assert_memory_equal(&again, &value, sizeof(value));
		free(text);
		json_decref(v);
		json_decref(read);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_texts),
	    cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
