/*
 * status - what the shared memory, the configuration and /proc say, as JSON.
 */
#include "master/status.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/breaker.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"
#include "master/core_time.h"

static const char *const kinds[LABEL_KIND_SIZE] = {"http", "sse", "websocket"};

static const char *
phase_name(const struct supervise *s)
{
	static const char *const names[] = {
	    [PHASE_RUNNING] = "running",
	    [PHASE_PAUSING] = "stopping",
	    [PHASE_SETTLING] = "stopping",
	    [PHASE_DRAINING] = "draining",
	    [PHASE_STOPPED] = "stopped",
	};

	return supervise_is_reloading(s) ? "reloading" : names[supervise_phase(s)];
}

static const char *
state_name(enum shm_state state)
{
	static const char *const names[] = {"free", "starting", "ready", "draining", "dead"};

	return names[state];
}

static void
put(json_t *map, const char *name, int64_t value)
{
	json_object_set_new(map, name, json_integer((json_int_t)value));
}

static int64_t
sum_over(const struct shm *shm, enum metric m, unsigned size)
{
	int64_t sum = 0;

	for (unsigned i = 0; i < size; i++)
		sum += metric_total(shm, m, i, 0);
	return sum;
}

/* ---- workers ---- */

/* Resident bytes, pages shared with others included; 0: the kernel does not say. */
static int64_t
resident_bytes(int pid)
{
	char path[64], line[128];
	uint64_t pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return 0;
	struct str rest = str_sub(line, fread(line, 1, sizeof(line), f));
	fclose(f);
	str_split(&rest, ' '); /* the size of its address space */
	return str_to_u64(str_split(&rest, ' '), &pages) ? (int64_t)pages * sysconf(_SC_PAGESIZE)
							 : 0;
}

static json_t *
describe_worker(const struct shm *shm, const struct shm_row_info *row)
{
	json_t *worker = json_object(), *connections = json_object();
	uint32_t at = row->who.row;
	struct core_time cpu = {0};

	put(worker, "slot", row->slot);
	put(worker, "incarnation", row->who.number);
	put(worker, "pid", row->pid);
	json_object_set_new(worker, "state", json_string(state_name(row->state)));
	for (unsigned kind = 0; kind < LABEL_KIND_SIZE; kind++)
		put(connections, kinds[kind], metric_of_row(shm, at, METRIC_CONNECTIONS, kind, 0));
	json_object_set_new(worker, "connections", connections);
	put(worker, "turns_live", metric_of_row(shm, at, METRIC_TURNS_LIVE, 0, 0));
	put(worker, "loop_delay_us", metric_of_row(shm, at, METRIC_LOOP_DELAY, 0, 0));
	put(worker, "work_max", metric_of_row(shm, at, METRIC_WORK_MAX, 0, 0));
	if (core_time_read(row->pid, &cpu))
		put(worker, "cpu_ms", (int64_t)cpu.used_ms);
	put(worker, "rss_bytes", resident_bytes(row->pid));
	return worker;
}

static json_t *
describe_workers(const struct shm *shm, const struct supervise *s)
{
	json_t *workers = json_object(), *list = json_array();
	struct shm_row_info row;

	put(workers, "configured", shm_workers(shm));
	put(workers, "ready", supervise_ready_count(s));
	put(workers, "restarts", (int64_t)atomic_load(shm_word(shm, SHM_WORD_RESTARTS)));
	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		if (shm_row_get(shm, i, &row))
			json_array_append_new(list, describe_worker(shm, &row));
	}
	json_object_set_new(workers, "list", list);
	return workers;
}

/* ---- what they do together ---- */

static json_t *
describe_connections(const struct shm *shm)
{
	json_t *connections = json_object();

	for (unsigned kind = 0; kind < LABEL_KIND_SIZE; kind++)
		put(connections, kinds[kind], metric_total(shm, METRIC_CONNECTIONS, kind, 0));
	put(connections, "max", metric_total(shm, METRIC_CONNECTIONS_MAX, 0, 0));
	put(connections, "refused", sum_over(shm, METRIC_CONNECTIONS_REJECTED, LABEL_REJECT_SIZE));
	return connections;
}

static json_t *
describe_turns(const struct shm *shm)
{
	static const char *const outcomes[LABEL_TURN_OUTCOME_SIZE] = {
	    "completed", "failed", "cancelled", "tool_limit", "worker_lost"};
	json_t *turns = json_object();

	put(turns, "live", metric_total(shm, METRIC_TURNS_LIVE, 0, 0));
	for (unsigned i = 0; i < LABEL_TURN_OUTCOME_SIZE; i++)
		put(turns, outcomes[i], metric_total(shm, METRIC_TURNS, i, 0));
	return turns;
}

static json_t *
describe_tokens(const struct shm *shm)
{
	json_t *tokens = json_object();
	int64_t input = 0, output = 0;

	for (unsigned model = 0; model < LABEL_MODEL_SIZE; model++) {
		input += metric_total(shm, METRIC_TOKENS, model, TOKENS_INPUT);
		output += metric_total(shm, METRIC_TOKENS, model, TOKENS_OUTPUT);
	}
	put(tokens, "input", input);
	put(tokens, "output", output);
	return tokens;
}

static json_t *
describe_store(const struct shm *shm, const struct conf *conf)
{
	json_t *store = json_object();
	bool is_file = str_starts(str_of(conf->store.url), STR("sqlite:"));

	json_object_set_new(store, "kind", json_string(is_file ? "sqlite" : "postgres"));
	if (!is_file) {
		put(store, "pool_in_use", metric_total(shm, METRIC_STORE_POOL_IN_USE, 0, 0));
		put(store, "pool_max",
		    (conf->store.pool_size + conf->store.max_overflow) * shm_workers(shm));
	}
	put(store, "refused", metric_total(shm, METRIC_STORE_REFUSED, 0, 0));
	return store;
}

static json_t *
describe_backplane(const struct shm *shm, const struct conf *conf)
{
	json_t *backplane = json_object();
	bool is_local = conf->backplane.url[0] == '\0';

	json_object_set_new(backplane, "kind", json_string(is_local ? "local" : "redis"));
	if (!is_local)
		json_object_set_new(backplane, "is_up",
		    json_boolean(metric_total(shm, METRIC_BACKPLANE_UP, 0, 0) > 0));
	put(backplane, "messages", sum_over(shm, METRIC_BACKPLANE_MESSAGES, LABEL_DIRECTION_SIZE));
	return backplane;
}

/* ---- providers ---- */

/* The breakers that are not closed, by model. */
static json_t *
describe_breakers(const struct shm *shm, const struct conf *conf, const char *provider)
{
	json_t *breakers = json_object();

	for (size_t i = 0; i < conf->models.n; i++) {
		const struct conf_model *model = &conf->models.v[i];

		for (size_t t = 0; t < model->targets.n; t++) {
			const char *name = model->targets.v[t].model;
			unsigned label =
			    metric_label_pair(LABEL_TARGET, str_of(provider), str_of(name));
			int64_t state = metric_total(shm, METRIC_PROVIDER_BREAKER_STATE, label, 0);

			if (!str_eq(str_of(model->targets.v[t].provider), str_of(provider)))
				continue;
			if (state == BREAKER_HALF_OPEN || state == BREAKER_OPEN)
				json_object_set_new(breakers, name,
				    json_string(breaker_state_name((enum breaker_state)state)));
		}
	}
	return breakers;
}

static json_t *
describe_providers(const struct shm *shm, const struct conf *conf)
{
	json_t *list = json_array();

	for (size_t i = 0; i < conf->providers.n; i++) {
		const char *name = conf->providers.v[i].name;
		unsigned label = metric_label(LABEL_PROVIDER, str_of(name));
		json_t *p = json_object();

		json_object_set_new(p, "name", json_string(name));
		put(p, "calls", metric_total(shm, METRIC_PROVIDER_CALLS, label, 0));
		put(p, "calls_max", metric_total(shm, METRIC_PROVIDER_CALLS_MAX, label, 0));
		put(p, "waiting", metric_total(shm, METRIC_PROVIDER_WAITING, label, 0));
		put(p, "pool_in_use", metric_total(shm, METRIC_PROVIDER_POOL_IN_USE, label, 0));
		put(p, "pool_max", metric_total(shm, METRIC_PROVIDER_POOL_MAX, label, 0));
		json_object_set_new(
		    p, "is_up", json_boolean(metric_total(shm, METRIC_PROVIDER_UP, label, 0) > 0));
		json_object_set_new(p, "breakers", describe_breakers(shm, conf, name));
		json_array_append_new(list, p);
	}
	return list;
}

/* ---- all of it ---- */

void
status_write_line(const struct shm *shm, const struct supervise *s, struct buf *out)
{
	buf_printf(out, "%s, %u of %u workers ready", phase_name(s), supervise_ready_count(s),
	    shm_workers(shm));
}

void
status_write(const struct shm *shm, const struct supervise *s, struct buf *out)
{
	const struct conf *conf = supervise_conf(s);
	json_t *all = json_object();

	json_object_set_new(all, "version", json_string(PARLEY_VERSION));
	put(all, "pid", getpid());
	put(all, "uptime_ms", clock_wall_ms() - shm_started_wall_ms(shm));
	json_object_set_new(all, "phase", json_string(phase_name(s)));
	json_object_set_new(all, "workers", describe_workers(shm, s));
	json_object_set_new(all, "connections", describe_connections(shm));
	put(all, "requests", sum_over(shm, METRIC_HTTP_REQUEST_SECONDS, LABEL_ROUTE_SIZE));
	json_object_set_new(all, "turns", describe_turns(shm));
	json_object_set_new(all, "tokens", describe_tokens(shm));
	json_object_set_new(all, "store", describe_store(shm, conf));
	json_object_set_new(all, "backplane", describe_backplane(shm, conf));
	json_object_set_new(all, "providers", describe_providers(shm, conf));
	char *text = json_dumps(all, JSON_COMPACT);
	check(text != NULL);
	buf_add_cstr(out, text);
	free(text);
	json_decref(all);
}
