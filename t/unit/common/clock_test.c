/* clock: RFC 3339 both ways. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/clock.h"

static void
test_format(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} known[] = {
	    {0, "1970-01-01T00:00:00.000Z"},
	    {999, "1970-01-01T00:00:00.999Z"},
	    {951782400000, "2000-02-29T00:00:00.000Z"},
	    {1769862896789, "2026-01-31T12:34:56.789Z"},
	    {253402300799999, "9999-12-31T23:59:59.999Z"},
	};
	char out[CLOCK_RFC3339_LEN + 1];
	int64_t back;

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		clock_format(known[i].ms, out);
		assert_string_equal(out, known[i].text);
		assert_true(clock_parse(str_of(out), &back));
		assert_true(back == known[i].ms);
	}
}

static void
test_parse(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {
	    /* The examples of RFC 3339, section 5.8. */
	    {"1985-04-12T23:20:50.52Z", 482196050520},
	    {"1996-12-19T16:39:57-08:00", 851042397000},
	    {"1996-12-20T00:39:57Z", 851042397000},
	    {"1990-12-31T23:59:60Z", 662688000000},
	    {"1937-01-01T12:00:27.87+00:20", -1041337172130},
	    {"2026-01-31t12:34:56.123456789z", 1769862896123},
	    {"2026-01-31 12:34:56.1+00:00", 1769862896100},
	    {"2024-02-29T00:00:00Z", 1709164800000},
	};
	static const char *const bad[] = {"", "2026", "2026-01-31", "2026-01-31T12:34:56",
	    "2026-01-31T12:34:56.Z", "2026-01-31T12:34:56.1234567890Z", "2026-01-31T12:34:56+0000",
	    "2026-01-31T12:34:56+24:00", "2026-01-31T12:34:56+00:60", "2026-01-31T24:00:00Z",
	    "2026-01-31T12:60:00Z", "2026-01-31T12:34:61Z", "2026-13-01T00:00:00Z",
	    "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z",
	    "2026-02-29T00:00:00Z", "2026-02-31T00:00:00Z", "2026-04-31T00:00:00Z",
	    "1900-02-29T00:00:00Z", "+026-01-01T00:00:00Z", "2026-01-31T12:34:56Z ",
	    "2026-01-31T12:34:56Zz", " 2026-01-31T12:34:56Z"};
	int64_t ms;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_true(clock_parse(str_of(good[i].text), &ms));
		assert_true(ms == good[i].ms);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ms = 42;
		if (clock_parse(str_of(bad[i]), &ms))
			fail_msg("%s was taken for a time", bad[i]);
		assert_true(ms == 42);
	}
	/* Cut anywhere it is none. */
	struct str whole = str_of(good[1].text);
	for (size_t len = 0; len < whole.len; len++)
		assert_false(clock_parse(str_sub(whole.p, len), &ms));
}

static void
test_monotonic(void **state)
{
	uint64_t before = clock_mono_us();

	for (int i = 0; i < 1000; i++) {
		uint64_t now = clock_mono_us();

		assert_true(now >= before);
		before = now;
	}
	assert_true(clock_mono_ms() - before / 1000 < 10000);
	assert_true(clock_wall_ms() > 1700000000000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_format),
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test(test_monotonic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
