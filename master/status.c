/*
 * status - rows of the shared memory as text.
 */
#include "master/status.h"

#include <inttypes.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metric.h"

static const char *
phase_name(const struct supervise *s)
{
	static const char *const names[] = {
	    "running", "stopping", "stopping", "draining", "stopped"};

	return supervise_is_reloading(s) ? "reloading" : names[supervise_phase(s)];
}

static const char *
state_name(enum shm_state state)
{
	static const char *const names[] = {"free", "starting", "ready", "draining", "dead"};

	return names[state];
}

static int64_t
connections_of(const struct shm *shm, uint32_t row)
{
	int64_t sum = 0;

	for (unsigned kind = 0; kind < LABEL_KIND_SIZE; kind++)
		sum += metric_of_row(shm, row, METRIC_CONNECTIONS, kind, 0);
	return sum;
}

static void
write_worker(const struct shm *shm, const struct shm_row_info *row, struct buf *out)
{
	buf_printf(out, "%4u  %11u  %8d  %-9s %12" PRId64 " %10" PRId64 "\n", row->slot,
	    row->who.number, row->pid, state_name(row->state), connections_of(shm, row->who.row),
	    metric_of_row(shm, row->who.row, METRIC_TURNS_LIVE, 0, 0));
}

static void
write_uptime(int64_t ms, struct buf *out)
{
	int64_t s = ms / 1000;

	if (s >= 86400)
		buf_printf(out, "%" PRId64 "d ", s / 86400);
	buf_printf(
	    out, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600 % 24, s / 60 % 60, s % 60);
}

void
status_write_line(const struct shm *shm, const struct supervise *s, struct buf *out)
{
	buf_printf(out, "%s, %u of %u workers ready", phase_name(s), supervise_ready_count(s),
	    shm_workers(shm));
}

void
status_write(const struct shm *shm, const struct supervise *s, struct buf *out)
{
	struct shm_row_info row;

	buf_printf(out, "parleyd %s  pid %d  up ", PARLEY_VERSION, (int)getpid());
	write_uptime(clock_wall_ms() - shm_started_wall_ms(shm), out);
	buf_add_cstr(out, "  ");
	status_write_line(shm, s, out);
	buf_printf(out,
	    "\nrestarts %" PRIu64 "  turns live %" PRId64 "  completed %" PRId64 "  failed %" PRId64
	    "\n\n",
	    atomic_load(shm_word(shm, SHM_WORD_RESTARTS)),
	    metric_total(shm, METRIC_TURNS_LIVE, 0, 0),
	    metric_total(shm, METRIC_TURNS, TURN_OUTCOME_COMPLETED, 0),
	    metric_total(shm, METRIC_TURNS, TURN_OUTCOME_FAILED, 0));
	buf_add_cstr(out, "slot  incarnation       pid  state      connections turns live\n");
	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		if (shm_row_get(shm, i, &row))
			write_worker(shm, &row, out);
	}
}
