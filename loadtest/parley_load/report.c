/* report - figures by name, for the expectations and for the JSON. */
#include "loadtest/parley_load/report.h"

#include <math.h>

#include "common/check.h"

/* Above these a figure tells of the generator: a loop late by as much as a first event may take, a
 * core that has nothing left. */
enum { LAG_P99_US_MAX = 10000 };
static const double cpu_share_limit = 0.9;

static const struct {
	const char *name;
	double percent;
} percentiles[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}};

static double
seconds_of(const struct report *r)
{
	return (double)r->total.took_us / 1e6;
}

static uint64_t
missing_of(const struct report *r)
{
	uint64_t goal = r->options->count > 0 ? r->options->count : r->total.started;

	return goal > r->total.done ? goal - r->total.done : 0;
}

/* Of what is held: how fast it was made. */
static double
rate_of(const struct report *r, uint64_t count)
{
	uint64_t us = r->total.ramp_us > 0 ? r->total.ramp_us : r->total.took_us;

	return us > 0 ? (double)count * 1e6 / (double)us : 0;
}

static uint64_t
whole_of(const struct report *r)
{
	return r->total.done - r->total.failed - r->total.refused;
}

/* "first_p99_us" of the histogram named "first". */
static bool
time_value(const struct latency *l, const char *time, struct str name, double *ret)
{
	if (!str_starts(name, str_of(time)) || name.len <= strlen(time) ||
	    name.p[strlen(time)] != '_')
		return false;
	struct str rest = str_sub(name.p + strlen(time) + 1, name.len - strlen(time) - 1);
	struct str figure = str_split(&rest, '_');

	if (str_eq(figure, STR("count")) && rest.len == 0)
		return *ret = (double)l->count, true;
	if (!str_eq(rest, STR("us")))
		return false;
	if (str_eq(figure, STR("max")))
		return *ret = l->count > 0 ? (double)l->max_us : NAN, true;
	if (str_eq(figure, STR("mean")))
		return *ret = l->count > 0 ? latency_mean(l) : NAN, true;
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++) {
		if (str_eq(figure, str_of(percentiles[i].name)))
			return *ret = l->count > 0
					  ? (double)latency_percentile(l, percentiles[i].percent)
					  : NAN,
			       true;
	}
	return false;
}

bool
report_value(const struct report *r, struct str name, double *ret)
{
	const struct {
		const char *name;
		double value;
	} plain[] = {
#define X(count, what) {#count, (double)r->total.count},
	    TALLY_COUNTS(X)
#undef X
		{"missing", (double)missing_of(r)},
	    {"died", r->died},
	    {"seconds", seconds_of(r)},
	    {"ramp_s", (double)r->total.ramp_us / 1e6},
	    {"per_second", rate_of(r, r->total.done)},
	    {"whole_per_second", rate_of(r, whole_of(r))},
	    {"own_cpu_s", (double)r->total.cpu_us / 1e6},
	    {"saturated", report_saturation(r) != NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
		if (str_eq(name, str_of(plain[i].name)))
			return *ret = plain[i].value, true;
	}
#define X(time, what)                                                                              \
	if (time_value(&r->total.time, #time, name, ret))                                          \
		return true;
	TALLY_TIMES(X)
#undef X
	return false;
}

const char *
report_saturation(const struct report *r)
{
	if (r->total.cpu_share_max >= cpu_share_limit)
		return "generator saturated: a process of it used up its core";
	if (latency_percentile(&r->total.lag, 99) >= LAG_P99_US_MAX)
		return "generator saturated: its loop was late by more than 10 ms, p99";
	if (r->total.unoffered > 0)
		return "generator saturated: arrivals found no free user";
	return NULL;
}

static void
add_times(struct buf *out, const char *name, const struct latency *l)
{
	buf_printf(out, ",\"%s_us\":{\"count\":%llu,\"mean\":%.0f", name,
	    (unsigned long long)l->count, latency_mean(l));
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		buf_printf(out, ",\"%s\":%llu", percentiles[i].name,
		    (unsigned long long)latency_percentile(l, percentiles[i].percent));
	buf_printf(out, ",\"max\":%llu}", (unsigned long long)l->max_us);
}

static void
add_generator(struct buf *out, const struct report *r)
{
	const char *why = report_saturation(r);
	double wall_us = (double)r->total.took_us * r->options->processes;

	buf_printf(out, ",\"generator\":{\"saturated\":%s,\"why\":\"%s\"",
	    why != NULL ? "true" : "false", why != NULL ? why : "");
	buf_printf(out, ",\"cpu_share_max\":%.3f,\"waited_share\":%.3f}", r->total.cpu_share_max,
	    wall_us > 0 ? (double)r->total.waited_us / wall_us : 0);
}

static bool
add_expect(struct buf *out, const struct report *r, const struct expect *e)
{
	double value = NAN;
	bool is_known = report_value(r, e->name, &value);

	check(is_known);
	bool holds = !isnan(value) && expect_holds(e, value);
	buf_printf(out, "%s{\"test\":\"%s\",\"value\":", out->data[out->len - 1] == '[' ? "" : ",",
	    e->text);
	if (isnan(value))
		buf_add_cstr(out, "null");
	else
		buf_printf(out, "%.10g", value);
	buf_printf(out, ",\"holds\":%s}", holds ? "true" : "false");
	return holds;
}

static bool
is_expected(const struct options *o, struct str name)
{
	for (size_t i = 0; i < o->expect_count; i++) {
		if (str_eq(o->expects[i].name, name))
			return true;
	}
	return false;
}

static bool
add_expects(struct buf *out, const struct report *r)
{
	static const char *const defaults[] = {"failed=0", "refused=0", "missing=0", "gone=0",
	    "died=0", "turns_failed=0", "turns_refused=0", "lost=0", "doubled=0", "unanswered=0"};
	bool has_passed = true;

	buf_add_cstr(out, ",\"expect\":[");
	for (size_t i = 0; i < r->options->expect_count; i++)
		has_passed &= add_expect(out, r, &r->options->expects[i]);
	for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
		struct expect e;
		bool is_whole = expect_parse(defaults[i], &e);

		check(is_whole);
		if (!is_expected(r->options, e.name))
			has_passed &= add_expect(out, r, &e);
	}
	buf_printf(out, "],\"passed\":%s", has_passed ? "true" : "false");
	return has_passed;
}

bool
report_format(const struct report *r, struct buf *ret_json)
{
	buf_printf(ret_json, "{\"scenario\":\"%s\",\"users\":%u,\"processes\":%u",
	    r->options->scenario, r->options->users, r->options->processes);
#define X(name, what)                                                                              \
	buf_printf(ret_json, ",\"%s\":%llu", #name, (unsigned long long)r->total.name);
	TALLY_COUNTS(X)
#undef X
	buf_printf(ret_json,
	    ",\"missing\":%llu,\"died\":%u,\"seconds\":%.3f,\"per_second\":%.1f,"
	    "\"whole_per_second\":%.1f,\"ramp_s\":%.3f,\"own_cpu_s\":%.3f,\"open\":%llu,"
	    "\"stopped\":\"%s\"",
	    (unsigned long long)missing_of(r), r->died, seconds_of(r), rate_of(r, r->total.done),
	    rate_of(r, whole_of(r)), (double)r->total.ramp_us / 1e6, (double)r->total.cpu_us / 1e6,
	    (unsigned long long)r->total.open, r->stopped != NULL ? r->stopped : "");
#define X(name, what) add_times(ret_json, #name, &r->total.name);
	TALLY_TIMES(X)
#undef X
	add_generator(ret_json, r);
	bool has_passed = add_expects(ret_json, r);
	buf_add_cstr(ret_json, "}\n");
	return has_passed;
}
