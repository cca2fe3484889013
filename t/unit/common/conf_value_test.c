/* conf_value: what a user may write for a duration, a size, a number, a switch. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/conf_value.h"

static void
test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
		const char *shortest;
	} good[] = {{"0", 0, "0"}, {"0ms", 0, "0"}, {"0s", 0, "0"}, {"500ms", 500, "500ms"},
	    {"30s", 30000, "30s"}, {"60s", 60000, "1m"}, {"5m", 300000, "5m"},
	    {"1h", 3600000, "1h"}, {"24h", 86400000, "1d"}, {"3650d", 315360000000, "3650d"},
	    {"1500ms", 1500, "1500ms"}};
	static const char *const bad[] = {"", "s", "5", "5 s", "-5s", "+5s", "1.5s", "5S", "5sec",
	    "5s ", "1h30m", "0x5s", "18446744073709551615d", "99999999999999999999s",
	    "9223372036854775807s"};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct buf text = BUF_INIT;
		uint64_t ms = 1;

		assert_true(conf_parse_duration(str_of(good[i].text), &ms));
		assert_int_equal(ms, good[i].ms);
		conf_format_duration(&text, ms);
		assert_string_equal(text.data, good[i].shortest);
		buf_fini(&text);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t ms = 77;

		assert_false(conf_parse_duration(str_of(bad[i]), &ms));
		assert_int_equal(ms, 77);
	}
}

static void
test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		const char *shortest;
	} good[] = {{"0", 0, "0"}, {"512", 512, "512"}, {"512B", 512, "512"},
	    {"1024", 1024, "1KiB"}, {"16KiB", 16384, "16KiB"}, {"1MiB", 1 << 20, "1MiB"},
	    {"1536KiB", 1536 << 10, "1536KiB"}, {"2GiB", 2ULL << 30, "2GiB"},
	    {"1TiB", 1ULL << 40, "1TiB"}, {"1025", 1025, "1025"}};
	static const char *const bad[] = {"", "KiB", "1K", "1kb", "1KB", "1 KiB", "-1", "1.5MiB",
	    "99999999999999999999", "9999999999TiB", "1MiB "};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct buf text = BUF_INIT;
		uint64_t bytes = 1;

		assert_true(conf_parse_size(str_of(good[i].text), &bytes));
		assert_int_equal(bytes, good[i].bytes);
		conf_format_size(&text, bytes);
		assert_string_equal(text.data, good[i].shortest);
		buf_fini(&text);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t bytes = 77;

		assert_false(conf_parse_size(str_of(bad[i]), &bytes));
		assert_int_equal(bytes, 77);
	}
}

static void
test_whole_numbers(void **state)
{
	static const char *const bad[] = {"", "-", "+1", "1.0", "1e3", "0x10", " 1", "1 ",
	    "9223372036854775808", "-9223372036854775808", "1_000"};
	int64_t n = 0;

	assert_true(conf_parse_int(STR("0"), &n) && n == 0);
	assert_true(conf_parse_int(STR("-1"), &n) && n == -1);
	assert_true(conf_parse_int(STR("9223372036854775807"), &n) && n == INT64_MAX);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		n = 77;
		assert_false(conf_parse_int(str_of(bad[i]), &n));
		assert_int_equal(n, 77);
	}
}

static void
test_decimals(void **state)
{
	static const char *const good[] = {"0", "0.05", "-1", "2.5", "0.1", "1e-05", "1e+20"};
	static const char *const bad[] = {
	    "", ".", "nan", "inf", "0x1p3", "1,5", "1e999", "--1", "1e", "1.5 "};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct buf text = BUF_INIT;
		double value;

		assert_true(conf_parse_float(str_of(good[i]), &value));
		conf_format_float(&text, value);
		assert_string_equal(text.data, good[i]);
		buf_fini(&text);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		double value = 77;

		assert_false(conf_parse_float(str_of(bad[i]), &value));
		assert_true(value == 77);
	}
}

static void
test_switches(void **state)
{
	static const char *const on[] = {"true", "True", "YES", "on", "1"};
	static const char *const off[] = {"false", "FALSE", "no", "Off", "0"};
	static const char *const neither[] = {"", "t", "tru", "truely", "2", "enabled", "true "};
	bool value;

	for (size_t i = 0; i < ARRAY_LEN(on); i++)
		assert_true(conf_parse_bool(str_of(on[i]), &value) && value);
	for (size_t i = 0; i < ARRAY_LEN(off); i++)
		assert_true(conf_parse_bool(str_of(off[i]), &value) && !value);
	for (size_t i = 0; i < ARRAY_LEN(neither); i++)
		assert_false(conf_parse_bool(str_of(neither[i]), &value));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_durations),
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_whole_numbers),
	    cmocka_unit_test(test_decimals),
	    cmocka_unit_test(test_switches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
