/*
 * redis_limiter - see redis_limiter.h.
 *
 * Each worker is a process with a loop and a connection of its own, half of them share the memory
 * of one host, half of the other. Each keeps DEPTH questions under way, as a worker with as many
 * requests does.
 */
#include "loadtest/parley_micro/redis_limiter.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"
#include "common/shm.h"
#include "worker/backplane/limits.h"
#include "worker/backplane/redis.h"
#include "worker/loop/loop.h"

enum { HOSTS = 2, WORKERS_MAX = 8, DEPTH = 256, LOOK_MS = 1, TIME_MS = 3000, KEYS = 1000 };

struct plan {
	const char *name; /* of the keys: a run has its own */
	uint32_t limit, window_ms;
	unsigned workers, keys;
	uint64_t each; /* decisions of a worker; 0: for TIME_MS */
};

struct seen { /* shared; of one worker */
	_Atomic uint64_t decided, allowed, local;
	_Atomic uint64_t took_us, cpu_us;
};

static struct shared {
	_Atomic unsigned ready;
	struct seen seen[WORKERS_MAX];
} * shared;

static struct shm *hosts[HOSTS];

struct asker {
	struct limit_ask ask;
	bool is_asking; /* from inside of limits_take() */
};

static struct worker {
	const struct plan *plan;
	struct loop *loop;
	struct redis *redis;
	struct limits *limits;
	struct loop_timer look;
	struct asker askers[DEPTH];
	struct limiter_key keys[KEYS];
	uint64_t asked, decided, allowed, local, began_us;
	unsigned waiting;
	bool is_begun;
} w;

/* ---- one worker ---- */

static bool
is_enough(void)
{
	if (w.plan->each > 0)
		return w.asked >= w.plan->each;
	return clock_mono_us() - w.began_us >= TIME_MS * 1000;
}

static void
count(const struct asker *a)
{
	w.decided++;
	w.allowed += a->ask.verdicts[0].is_allowed;
}

static void
ask(struct asker *a)
{
	while (!is_enough()) {
		a->ask.windows[0] = (struct limit_window){
		    w.keys[w.asked++ % w.plan->keys], {w.plan->limit, w.plan->window_ms}, 1};
		a->ask.count = 1;
		if (!limits_take(w.limits, &a->ask)) {
			w.waiting++;
			return;
		}
		w.local++; /* Redis was not asked */
		count(a);
	}
}

static void
on_decided(struct limit_ask *at)
{
	struct asker *a = container_of(at, struct asker, ask);

	w.waiting--;
	count(a);
	ask(a);
	if (w.waiting == 0)
		loop_stop(w.loop);
}

/* All begin together. */
static void
on_look(struct loop_timer *t)
{
	static bool is_told;

	loop_timer_set(w.loop, t, LOOK_MS);
	if (!is_told && redis_state(w.redis) == REDIS_UP) {
		is_told = true;
		atomic_fetch_add(&shared->ready, 1);
	}
	if (w.is_begun || atomic_load(&shared->ready) < w.plan->workers)
		return;
	w.is_begun = true;
	w.began_us = clock_mono_us();
	for (unsigned i = 0; i < DEPTH; i++) {
		w.askers[i].ask.on_decided = on_decided;
		ask(&w.askers[i]);
	}
}

static void
on_state(void *arg, enum redis_state was, enum redis_state is, const char *reason)
{
	(void)arg;
	if (is == REDIS_AWAY && was != REDIS_AWAY)
		fprintf(stderr, "Redis is away: %s\n", reason);
}

static void
on_message(void *arg, struct str payload)
{
	(void)arg;
	(void)payload;
}

static _Noreturn void
work(const struct plan *plan, unsigned number, const struct conf_backplane *conf)
{
	static const struct redis_handlers handlers = {on_state, on_message};
	struct shm *shm = hosts[number % HOSTS];
	struct seen *seen = &shared->seen[number];
	struct shm_who who;
	struct rusage u;
	char channel[32];

	check(shm_row_claim(shm, number / HOSTS, (int)getpid(), &who));
	metric_init(shm, who);
	snprintf(channel, sizeof(channel), "in:%u", number);
	w.plan = plan;
	for (unsigned i = 0; i < plan->keys; i++)
		w.keys[i] = limiter_key_of(plan->name, str_sub((char *)&i, sizeof(i)));
	w.loop = loop_new();
	w.redis = redis_new(w.loop, conf, channel, "all", &handlers, NULL);
	check(w.redis != NULL);
	w.limits = limits_new(shm, w.redis, conf->key_prefix);
	w.look.on_fire = on_look;
	loop_timer_set(w.loop, &w.look, 0);
	loop_run(w.loop);
	atomic_store(&seen->took_us, clock_mono_us() - w.began_us);
	check(getrusage(RUSAGE_SELF, &u) == 0);
	atomic_store(&seen->cpu_us, (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
					(uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec));
	atomic_store(&seen->decided, w.decided);
	atomic_store(&seen->allowed, w.allowed);
	atomic_store(&seen->local, w.local);
	_exit(0);
}

/* ---- all of them ---- */

static struct sum {
	double per_second, per_cpu_second;
	uint64_t decided, allowed, local;
} run(const struct plan *plan, const struct conf_backplane *conf)
{
	struct sum sum = {.decided = 0};
	uint64_t longest_us = 1, cpu_us = 1;
	int status;

	memset(shared, 0, sizeof(*shared));
	for (int h = 0; h < HOSTS; h++) {
		hosts[h] = shm_create(WORKERS_MAX / HOSTS);
		check(hosts[h] != NULL);
	}
	for (unsigned i = 0; i < plan->workers; i++) {
		pid_t pid = fork();

		check(pid >= 0);
		if (pid == 0)
			work(plan, i, conf);
	}
	for (unsigned i = 0; i < plan->workers; i++)
		check(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (unsigned i = 0; i < plan->workers; i++) {
		const struct seen *s = &shared->seen[i];

		sum.decided += s->decided;
		sum.allowed += s->allowed;
		sum.local += s->local;
		cpu_us += s->cpu_us;
		longest_us = s->took_us > longest_us ? s->took_us : longest_us;
	}
	for (int h = 0; h < HOSTS; h++)
		shm_free(&hosts[h]);
	sum.per_second = (double)sum.decided * 1e6 / (double)longest_us;
	sum.per_cpu_second = (double)sum.decided * 1e6 / (double)cpu_us;
	return sum;
}

static void
bench(const char *what, const struct plan *plan, const struct conf_backplane *conf)
{
	struct sum s = run(plan, conf);

	printf("%-58s %10.0f /s   %.0f per CPU-s of the workers, %llu not by Redis\n", what,
	    s.per_second, s.per_cpu_second, (unsigned long long)s.local);
	fflush(stdout);
}

int
redis_limiter(const char *url)
{
	const struct conf_backplane conf = {.url = url,
	    .key_prefix = "micro:",
	    .ca_file = "",
	    .connect_timeout_ms = 5000,
	    .command_timeout_ms = 5000,
	    .max_commands = 10000,
	    .max_queue_bytes = 4 << 20};
	struct plan plan = {"many", 1000000, 60000, 1, KEYS, 0};

	shared =
	    mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED);
	bench("1 worker, 1,000 keys, allowed", &plan, &conf);
	plan.workers = 2;
	bench("2 workers of 2 hosts, 1,000 keys, allowed", &plan, &conf);
	plan.workers = 8;
	bench("8 workers of 2 hosts, 1,000 keys, allowed", &plan, &conf);
	plan = (struct plan){"few", 60, 60000, 8, KEYS, 0};
	bench("8 workers of 2 hosts, 1,000 keys of 60, mostly refused", &plan, &conf);
	plan = (struct plan){"one", 20000, 600000, 8, 1, 5000};
	struct sum s = run(&plan, &conf);
	printf("%-58s %10lld    of %llu asked with a limit of %u (none is right)\n",
	    "error over 8 workers and 2 hosts, one key", (long long)s.allowed - plan.limit,
	    (unsigned long long)s.decided, plan.limit);
	munmap(shared, sizeof(*shared));
	return s.allowed == plan.limit && s.local == 0 ? 0 : 1;
}
