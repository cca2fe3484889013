/*
 * parley_load - a load generator for Parley on libevent.
 *
 * Runs one scenario in one or more processes until its goal is reached, its time
 * is over or it is told to end (SIGTERM), and prints one line of JSON: what was
 * done, how it ended, latencies in microseconds, whether the expectations held,
 * and whether the generator itself was the limit. Exit status: 0 passed, 1 not,
 * 64 the command line is wrong.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/check.h"
#include "loadtest/parley_load/fleet.h"

static const struct scenario *const scenarios[] = {
#define X(name) &scenario_##name,
#include "loadtest/parley_load/scenarios.tbl"
#undef X
};

static void
usage(FILE *out)
{
	fprintf(out, "usage: parley_load [options] SCENARIO\n");
	options_print(out);
	fprintf(out, "scenarios:\n");
	for (size_t i = 0; i < ARRAY_LEN(scenarios); i++)
		fprintf(out, "  %-20s %s\n", scenarios[i]->name, scenarios[i]->help);
}

static _Noreturn void
refuse(const char *what)
{
	fprintf(stderr, "parley_load: %s; --help says more\n", what);
	exit(64);
}

static const struct scenario *
scenario_of(const struct options *o)
{
	for (size_t i = 0; i < ARRAY_LEN(scenarios); i++) {
		if (strcmp(scenarios[i]->name, o->scenario) == 0)
			return scenarios[i];
	}
	refuse("there is no such scenario");
}

static void
check_expects(const struct options *o)
{
	static struct report empty;
	double value;

	empty.options = o;
	for (size_t i = 0; i < o->expect_count; i++) {
		if (!report_value(&empty, o->expects[i].name, &value))
			refuse("--expect names a figure that does not exist");
	}
}

/* As many descriptors as the system allows: thousands of sockets. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int
main(int argc, char **argv)
{
	static struct report report;
	static struct options options;
	struct buf json = BUF_INIT;
	const char *error;

	if (!options_parse(&options, argc, argv, &error))
		refuse(error);
	if (options.wants_help) {
		usage(stdout);
		return 0;
	}
	const struct scenario *scenario = scenario_of(&options);
	if (scenario->needs_offer && options.offered <= 0)
		refuse("it needs --offer");
	check_expects(&options);
	raise_file_limit();
	signal(SIGPIPE, SIG_IGN);
	fleet_run(&options, scenario, &report);
	bool has_passed = report_format(&report, &json);
	fwrite(json.data, 1, json.len, stdout);
	buf_fini(&json);
	if (report_saturation(&report) != NULL)
		fprintf(stderr, "parley_load: %s\n", report_saturation(&report));
	return has_passed ? 0 : 1;
}
