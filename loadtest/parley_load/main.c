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

enum { FILES_OWN = 500 }; /* of a process, beside its users' sockets */

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

/* As many descriptors as the system allows: thousands of sockets. Returns how many. */
static uint64_t
raise_file_limit(void)
{
	struct rlimit limit;
	int failed = getrlimit(RLIMIT_NOFILE, &limit);

	check(failed == 0);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_max;
}

/* One process has only so many descriptors: as many processes as the sockets need, unless the
 * command line says how many. */
static void
fit_processes(struct options *o, const struct scenario *scenario, uint64_t files)
{
	uint64_t sockets = scenario->holds && o->count > 0 ? o->count : o->users;
	uint64_t each = files > FILES_OWN ? files - FILES_OWN : 1;
	uint64_t needed = (sockets + each - 1) / each;
	char text[160];

	if (o->processes == 0) {
		o->processes = (uint32_t)needed;
		if (o->users < o->processes)
			o->users = o->processes;
		return;
	}
	if (o->processes >= needed)
		return;
	snprintf(text, sizeof(text),
	    "a process may open %llu files: --processes must be at least %llu",
	    (unsigned long long)files, (unsigned long long)needed);
	refuse(text);
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
	fit_processes(&options, scenario, raise_file_limit());
	signal(SIGPIPE, SIG_IGN);
	fleet_run(&options, scenario, &report);
	bool has_passed = report_format(&report, &json);
	fwrite(json.data, 1, json.len, stdout);
	buf_fini(&json);
	if (report.stopped != NULL)
		fprintf(stderr, "parley_load: %s\n", report.stopped);
	if (report_saturation(&report) != NULL)
		fprintf(stderr, "parley_load: %s\n", report_saturation(&report));
	return has_passed ? 0 : 1;
}
