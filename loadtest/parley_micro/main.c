/*
 * parley_micro - what the bones of one host can do, without a server around them.
 *
 * Prints medians of five runs: decisions of the limiter and of its worst cases, round trips over
 * the bus between two processes (per second of the CPU time of both) with their p99, lookups of
 * owners, counts. Time for the limiter is virtual. `parley_micro URL`: the limiter over that Redis.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bus.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/limiter.h"
#include "common/metric.h"
#include "common/owners.h"
#include "loadtest/parley_micro/redis_limiter.h"

enum { RUNS = 5, DECISIONS = 1000000, KEYS = 1000, LOOKUPS = 200000, TRIPS = 20000 };

static struct shm *shm;
static struct shm_who me;

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double
median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), by_value);
	return values[n / 2];
}

static double
cpu_seconds(int who)
{
	struct rusage u;

	check(getrusage(who, &u) == 0);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void
bench_limiter(const char *what, uint32_t limit, unsigned keys)
{
	static uint64_t now_ms = 1000000;
	struct limiter_rule rule = {limit, 60000};
	struct limiter_key key[KEYS];
	double per_second[RUNS];

	for (unsigned i = 0; i < keys; i++)
		key[i] = limiter_key_of(what, str_sub((char *)&i, sizeof(i)));
	for (int run = 0; run < RUNS; run++) {
		double start = cpu_seconds(RUSAGE_SELF);

		for (unsigned i = 0; i < DECISIONS; i++)
			limiter_take(shm, key[i % keys], rule, 1, now_ms + i / 1000);
		now_ms += 200000;
		per_second[run] = DECISIONS / (cpu_seconds(RUSAGE_SELF) - start);
	}
	printf("%-52s %10.2f M/s\n", what, median(per_second, RUNS) / 1e6);
}

static void
bench_owners(void)
{
	static struct id ids[1000];
	double per_second[RUNS];
	struct shm_who found;

	for (int i = 0; i < 1000; i++) {
		ids[i] = id_new("turn");
		check(owners_add(shm, me, &ids[i]));
	}
	for (int run = 0; run < RUNS; run++) {
		double start = cpu_seconds(RUSAGE_SELF);

		for (int i = 0; i < LOOKUPS; i++)
			check(owners_find(shm, &ids[i % 1000], &found));
		per_second[run] = LOOKUPS / (cpu_seconds(RUSAGE_SELF) - start);
	}
	printf("%-52s %10.2f M/s\n", "owners: found among 1,000", median(per_second, RUNS) / 1e6);
}

static void
bench_metric(void)
{
	double per_second[RUNS];

	for (int run = 0; run < RUNS; run++) {
		double start = cpu_seconds(RUSAGE_SELF);

		for (int i = 0; i < DECISIONS; i++)
			metric_observe_us(METRIC_TURN_FIRST_EVENT_SECONDS, 0, (uint64_t)i);
		per_second[run] = DECISIONS / (cpu_seconds(RUSAGE_SELF) - start);
	}
	printf("%-52s %10.2f M/s\n", "metric: observations", median(per_second, RUNS) / 1e6);
}

/* One end of the bus; the child answers everything. */
struct end {
	struct bus *bus;
	struct shm_who peer;
	unsigned sent, heard;
	double trip_us[TRIPS];
};

static struct end end;

static void
echo(void *arg, struct shm_who from, uint16_t type, struct str payload)
{
	(void)arg;
	(void)bus_send(end.bus, from, type, payload);
}

static void
send_one(void)
{
	char bytes[200] = {0};
	uint64_t now_us = clock_mono_us();

	memcpy(bytes, &now_us, sizeof(now_us));
	check(bus_send(end.bus, end.peer, 1, str_sub(bytes, sizeof(bytes))) == 0);
	end.sent++;
}

static void
on_answer(void *arg, struct shm_who from, uint16_t type, struct str payload)
{
	uint64_t at_us;

	(void)arg;
	(void)from;
	(void)type;
	memcpy(&at_us, payload.p, sizeof(at_us));
	end.trip_us[end.heard++] = (double)(clock_mono_us() - at_us);
	if (end.sent < TRIPS)
		send_one();
}

static void
step(void)
{
	struct pollfd p = {.fd = bus_fd(end.bus), .events = POLLIN};

	check(poll(&p, 1, 10000) > 0);
	bus_step(end.bus);
}

static _Noreturn void
serve(struct shm_who who)
{
	const struct bus_handlers handlers = {echo, NULL};

	end.bus = bus_new(shm, who, &handlers, NULL);
	check(end.bus != NULL);
	shm_row_set_state(shm, who, SHM_READY);
	for (;;)
		step();
}

static double
bus_run(unsigned depth, double *ret_p99_us)
{
	struct shm_row_info info;
	struct shm_who who;

	check(shm_row_claim(shm, 1, 0, &who));
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0)
		serve(who);
	do
		sched_yield();
	while (!shm_row_get(shm, who.row, &info) || info.state != SHM_READY);
	end.peer = who;
	end.sent = end.heard = 0;
	double start = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
	for (unsigned i = 0; i < depth; i++)
		send_one();
	while (end.heard < TRIPS)
		step();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	double cpu = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN) - start;
	shm_row_reap(shm, who);
	step(); /* its end */
	qsort(end.trip_us, TRIPS, sizeof(*end.trip_us), by_value);
	*ret_p99_us = end.trip_us[TRIPS * 99 / 100];
	return TRIPS / cpu;
}

static void
bench_bus(const char *what, unsigned depth)
{
	double per_second[RUNS], p99_us[RUNS];

	for (int run = 0; run < RUNS; run++)
		per_second[run] = bus_run(depth, &p99_us[run]);
	printf("%-52s %10.0f /CPU-s   p99 %.0f us\n", what, median(per_second, RUNS),
	    median(p99_us, RUNS));
}

int
main(int argc, char **argv)
{
	const struct bus_handlers handlers = {on_answer, NULL};

	if (argc > 1)
		return redis_limiter(argv[1]);
	shm = shm_create(2);
	check(shm != NULL && shm_row_claim(shm, 0, (int)getpid(), &me));
	metric_init(shm, me);
	bench_limiter("limiter: one key, limit 60, mostly refused", 60, 1);
	bench_limiter("limiter: 1,000 keys, limit 60, mostly refused", 60, KEYS);
	bench_limiter("limiter: 1,000 keys, limit 3,500, allowed", 3500, KEYS);
	bench_limiter("limiter: 1,000 keys, limit 1,000,000, allowed", 1000000, KEYS);
	bench_owners();
	bench_metric();
	end.bus = bus_new(shm, me, &handlers, NULL);
	check(end.bus != NULL);
	shm_row_set_state(shm, me, SHM_READY);
	bench_bus("bus: round trips of 200 bytes, one at a time", 1);
	bench_bus("bus: round trips of 200 bytes, 16 at a time", 16);
	bench_bus("bus: round trips of 200 bytes, 64 at a time", 64);
	bus_free(&end.bus);
	shm_free(&shm);
	return 0;
}
