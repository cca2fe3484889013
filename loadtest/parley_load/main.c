/*
 * parley_load - a load generator for Parley on libevent.
 *
 * Runs one scenario until its goal is reached (or the time limit) and prints
 * one JSON line: operations, failures, seconds, latencies in microseconds, and
 * its own CPU seconds, so that its saturation is told from the server's.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/load.h"

static const struct scenario *const scenarios[] = {&scenario_turns, &scenario_direct,
    &scenario_tool_results, &scenario_idle_keepalive, &scenario_idle_sse};

static struct event_base *base;
static bool holds; /* the goal stands: stay until told to end */

bool
load_next(struct load *load)
{
	if (load->started >= load->goal)
		return false;
	load->started++;
	return true;
}

void
load_done(struct load *load, bool is_ok, uint64_t began_us, uint64_t first_us)
{
	latency_add(&load->whole, clock_mono_us() - began_us);
	if (first_us != 0)
		latency_add(&load->first, first_us - began_us);
	load->done++;
	load->failed += !is_ok;
	if (load->done < load->goal)
		return;
	load->is_over = true;
	if (!holds)
		event_base_loopbreak(base);
	else {
		printf("standing %llu\n", (unsigned long long)load->done);
		fflush(stdout);
	}
}

static double
own_cpu_s(void)
{
	struct rusage u;

	check(getrusage(RUSAGE_SELF, &u) == 0);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void
print_latency(const char *name, const struct latency *l)
{
	printf(",\"%s_us\":{\"p50\":%llu,\"p99\":%llu,\"max\":%llu}", name,
	    (unsigned long long)latency_percentile(l, 50),
	    (unsigned long long)latency_percentile(l, 99), (unsigned long long)l->max_us);
}

static void
print_result(const struct load *load, const char *name, double seconds)
{
	printf("{\"scenario\":\"%s\",\"users\":%u,\"done\":%llu,\"failed\":%llu,\"seconds\":%.3f,"
	       "\"per_second\":%.1f,\"own_cpu_s\":%.3f,\"deltas\":%llu",
	    name, load->users, (unsigned long long)load->done, (unsigned long long)load->failed,
	    seconds, (double)load->done / seconds, own_cpu_s(), (unsigned long long)load->deltas);
	print_latency("whole", &load->whole);
	print_latency("first", &load->first);
	printf("}\n");
}

static void
usage(FILE *out)
{
	fprintf(out,
	    "usage: parley_load [options] SCENARIO\n"
	    "  --target HOST:PORT   where Parley (or the mock) listens; IPv4 (127.0.0.1:8080)\n"
	    "  --key KEY            bearer token\n"
	    "  --users N            at once (16)\n"
	    "  --count N            operations in all (1000)\n"
	    "  --tokens N           of an answer (20)\n"
	    "  --interval MS        between its tokens, each in a packet of its own (all at once)\n"
	    "  --turns N            of a conversation, then a new one begins (10)\n"
	    "  --plain              turns that are not streamed\n"
	    "  --limit SECONDS      give up after (60)\n"
	    "scenarios:\n");
	for (size_t i = 0; i < ARRAY_LEN(scenarios); i++)
		fprintf(out, "  %-20s %s\n", scenarios[i]->name, scenarios[i]->help);
}

static void
parse_target(struct load *load, char *text)
{
	char *colon = strrchr(text, ':');
	uint64_t port = 0;

	if (colon == NULL || !str_to_u64(str_of(colon + 1), &port) || port == 0 || port > 65535) {
		fprintf(stderr, "parley_load: --target must be HOST:PORT\n");
		exit(64);
	}
	*colon = '\0';
	load->target.host = text;
	load->target.port = (uint16_t)port;
}

static uint64_t
number(const char *text)
{
	uint64_t n;

	if (!str_to_u64(str_of(text), &n) || n == 0 || n > UINT32_MAX) {
		fprintf(stderr, "parley_load: not a number from 1 up: %s\n", text);
		exit(64);
	}
	return n;
}

static const struct scenario *
parse_options(struct load *load, int argc, char **argv, uint32_t *limit_s)
{
	static const struct option options[] = {{"target", required_argument, NULL, 't'},
	    {"key", required_argument, NULL, 'k'}, {"users", required_argument, NULL, 'u'},
	    {"count", required_argument, NULL, 'c'}, {"tokens", required_argument, NULL, 'n'},
	    {"turns", required_argument, NULL, 'm'}, {"interval", required_argument, NULL, 'i'},
	    {"plain", no_argument, NULL, 'p'}, {"limit", required_argument, NULL, 'l'},
	    {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 't':
			parse_target(load, optarg);
			break;
		case 'k':
			load->target.key = optarg;
			break;
		case 'u':
			load->users = (uint32_t)number(optarg);
			break;
		case 'c':
			load->goal = number(optarg);
			break;
		case 'n':
			load->tokens = (uint32_t)number(optarg);
			break;
		case 'i':
			load->interval_ms = (uint32_t)number(optarg);
			break;
		case 'm':
			load->turns = (uint32_t)number(optarg);
			break;
		case 'p':
			load->is_streamed = false;
			break;
		case 'l':
			*limit_s = (uint32_t)number(optarg);
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(64);
		}
	}
	for (size_t i = 0; optind < argc && i < ARRAY_LEN(scenarios); i++) {
		if (strcmp(scenarios[i]->name, argv[optind]) == 0)
			return scenarios[i];
	}
	usage(stderr);
	exit(64);
}

static void
on_stop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	event_base_loopbreak(base);
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
	static struct load load = {
	    .users = 16, .goal = 1000, .tokens = 20, .turns = 10, .is_streamed = true};
	uint32_t limit_s = 60;

	load.target.host = "127.0.0.1";
	load.target.port = 8080;
	const struct scenario *scenario = parse_options(&load, argc, argv, &limit_s);
	holds = str_starts(str_of(scenario->name), STR("idle"));
	raise_file_limit();
	signal(SIGPIPE, SIG_IGN);
	base = load.target.base = event_base_new();
	check(base != NULL);
	struct timeval limit = {(time_t)limit_s, 0};
	struct event *timer = evtimer_new(base, on_stop, NULL);
	struct event *term = evsignal_new(base, SIGTERM, on_stop, NULL);
	event_add(timer, &limit);
	event_add(term, NULL);
	uint64_t began_us = clock_mono_us();
	scenario->start(&load);
	event_base_dispatch(base);
	print_result(&load, scenario->name, (double)(clock_mono_us() - began_us) / 1e6);
	return load.done == load.goal && load.failed == 0 ? 0 : 1;
}
