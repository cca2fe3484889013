/*
 * status_view - three parts: the host in a few lines, its workers, its providers.
 */
#include "master/status_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"

enum {
	BAR_CELLS = 20,
	NUMBER_MAX = 32,
	LINES_AROUND_WORKERS = 14, /* of the other parts, without the providers themselves */
	WORKERS_MIN = 3,
	PERCENT_DEGRADED = 70, /* as /health judges */
	PERCENT_CRITICAL = 90,
};

enum color { PLAIN, DIM, BOLD, GREEN, YELLOW, RED };

/* ---- values ---- */

/* A number by the names on the way to it, separated by dots. */
static int64_t
number(const json_t *at, const char *path)
{
	struct str rest = str_of(path);

	while (rest.p != NULL && at != NULL) {
		struct str name = str_split(&rest, '.');

		at = json_object_getn(at, name.p, name.len);
	}
	return json_is_integer(at) ? (int64_t)json_integer_value(at) : 0;
}

static const char *
text(const json_t *map, const char *name)
{
	const char *value = json_string_value(json_object_get(map, name));

	return value != NULL ? value : "?";
}

/* 1234567 as "1,234,567". */
static const char *
grouped(int64_t n, char out[NUMBER_MAX])
{
	char digits[NUMBER_MAX];
	int len = snprintf(digits, sizeof(digits), "%" PRId64, n), used = 0;

	for (int i = 0; i < len; i++) {
		if (i > 0 && digits[i - 1] != '-' && (len - i) % 3 == 0)
			out[used++] = ',';
		out[used++] = digits[i];
	}
	out[used] = '\0';
	return out;
}

/* Of a counter, per second; -1: nothing to compare with. */
static double
rate(const struct status_view *v, const json_t *now, const char *path)
{
	int64_t more = v->before != NULL ? number(now, path) - number(v->before, path) : -1;

	return more < 0 || v->since_ms == 0 ? -1 : (double)more * 1000 / (double)v->since_ms;
}

static int64_t
percent(int64_t part, int64_t whole)
{
	return whole > 0 ? part * 100 / whole : 0;
}

/* ---- pieces of a line ---- */

static void
paint(const struct status_view *v, enum color color, struct buf *out)
{
	static const char *const codes[] = {
	    "\033[0m", "\033[2m", "\033[1m", "\033[32m", "\033[33m", "\033[31m"};

	if (v->has_color)
		buf_add_cstr(out, codes[color]);
}

static void
painted(const struct status_view *v, enum color color, struct buf *out, const char *words)
{
	paint(v, color, out);
	buf_add_cstr(out, words);
	paint(v, PLAIN, out);
}

static enum color
color_of_use(int64_t of_100)
{
	if (of_100 < PERCENT_DEGRADED)
		return GREEN;
	return of_100 < PERCENT_CRITICAL ? YELLOW : RED;
}

/* [######..............]  31 % */
static void
write_bar(const struct status_view *v, int64_t part, int64_t whole, struct buf *out)
{
	int64_t of_100 = percent(part, whole);
	int64_t cells = of_100 * BAR_CELLS / 100;

	if (part > 0 && cells == 0)
		cells = 1;
	buf_add_char(out, '[');
	paint(v, color_of_use(of_100), out);
	for (int i = 0; i < BAR_CELLS; i++) {
		if (i == cells)
			paint(v, DIM, out);
		buf_add_char(out, i < cells ? '#' : '.');
	}
	paint(v, PLAIN, out);
	buf_printf(out, "] %3" PRId64 " %%", of_100);
}

/* "  12.3/s", if it can be told. */
static void
write_rate(double per_s, struct buf *out)
{
	if (per_s >= 0)
		buf_printf(out, per_s < 100 ? "  %.1f/s" : "  %.0f/s", per_s);
}

static void
write_count(
    const struct status_view *v, int64_t n, const char *what, enum color when_any, struct buf *out)
{
	char digits[NUMBER_MAX];

	buf_add_cstr(out, "  ");
	paint(v, n > 0 ? when_any : PLAIN, out);
	buf_printf(out, "%s %s", grouped(n, digits), what);
	paint(v, PLAIN, out);
}

/* ---- the host ---- */

static void
write_uptime(int64_t ms, struct buf *out)
{
	int64_t s = ms / 1000;

	if (s >= 86400)
		buf_printf(out, "%" PRId64 "d ", s / 86400);
	buf_printf(
	    out, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600 % 24, s / 60 % 60, s % 60);
}

static void
write_head(const struct status_view *v, const json_t *now, struct buf *out)
{
	int64_t ready = number(now, "workers.ready"), all = number(now, "workers.configured");
	const char *phase = text(now, "phase");
	bool is_well = ready == all && strcmp(phase, "running") == 0;

	painted(v, BOLD, out, "parley ");
	painted(v, BOLD, out, text(now, "version"));
	buf_add_cstr(out, "   ");
	paint(v, is_well ? GREEN : YELLOW, out);
	buf_printf(out, "%s, %" PRId64 " of %" PRId64 " workers ready", phase, ready, all);
	paint(v, PLAIN, out);
	buf_add_cstr(out, "   up ");
	write_uptime(number(now, "uptime_ms"), out);
	buf_printf(out, "   pid %" PRId64 "\n\n", number(now, "pid"));
}

static int64_t
sum_connections(const json_t *of)
{
	return number(of, "connections.http") + number(of, "connections.sse") +
	       number(of, "connections.websocket");
}

static void
write_connections(const struct status_view *v, const json_t *now, struct buf *out)
{
	int64_t active = sum_connections(now), max = number(now, "connections.max");
	char a[NUMBER_MAX], b[NUMBER_MAX], c[NUMBER_MAX];

	buf_add_cstr(out, "connections  ");
	write_bar(v, active, max, out);
	buf_printf(out, "  %s of %s\n", grouped(active, a), grouped(max, b));
	buf_printf(out, "             http %s  sse %s  websocket %s",
	    grouped(number(now, "connections.http"), a), grouped(number(now, "connections.sse"), b),
	    grouped(number(now, "connections.websocket"), c));
	write_count(v, number(now, "connections.refused"), "refused", YELLOW, out);
	buf_add_cstr(out, "\n");
}

static void
write_turns(const struct status_view *v, const json_t *now, struct buf *out)
{
	char digits[NUMBER_MAX];

	buf_printf(out, "turns        %s live", grouped(number(now, "turns.live"), digits));
	write_rate(rate(v, now, "turns.completed"), out);
	write_count(v, number(now, "turns.completed"), "completed", PLAIN, out);
	write_count(
	    v, number(now, "turns.failed") + number(now, "turns.worker_lost"), "failed", RED, out);
	write_count(v, number(now, "turns.cancelled"), "cancelled", PLAIN, out);
	buf_printf(out, "\nrequests     %s", grouped(number(now, "requests"), digits));
	write_rate(rate(v, now, "requests"), out);
	buf_printf(out, "\ntokens       %s in", grouped(number(now, "tokens.input"), digits));
	write_rate(rate(v, now, "tokens.input"), out);
	buf_printf(out, "  %s out", grouped(number(now, "tokens.output"), digits));
	write_rate(rate(v, now, "tokens.output"), out);
	buf_add_cstr(out, "\n");
}

static void
write_dependencies(const struct status_view *v, const json_t *now, struct buf *out)
{
	const json_t *store = json_object_get(now, "store");
	const json_t *backplane = json_object_get(now, "backplane");
	int64_t pool_max = number(store, "pool_max");
	bool is_local = strcmp(text(backplane, "kind"), "local") == 0;
	bool is_up = json_is_true(json_object_get(backplane, "is_up"));

	buf_printf(out, "store        %s", text(store, "kind"));
	if (pool_max > 0)
		buf_printf(out, "  %" PRId64 " of %" PRId64 " connections in use",
		    number(store, "pool_in_use"), pool_max);
	if (number(store, "refused") > 0)
		write_count(v, number(store, "refused"), "operations refused", RED, out);
	buf_printf(out, "\nbackplane    %s", text(backplane, "kind"));
	if (is_local)
		buf_add_cstr(out, "  this host alone");
	buf_add_cstr(out, is_local ? "" : "  ");
	if (!is_local)
		painted(v, is_up ? GREEN : RED, out, is_up ? "up" : "away");
	write_rate(rate(v, now, "backplane.messages"), out);
	buf_add_cstr(out, "\n");
}

/* ---- workers ---- */

static const json_t *
worker_before(const struct status_view *v, int64_t incarnation)
{
	const json_t *list = json_object_get(json_object_get(v->before, "workers"), "list");
	const json_t *worker;
	size_t i;

	json_array_foreach(list, i, worker)
	{
		if (number(worker, "incarnation") == incarnation)
			return worker;
	}
	return NULL;
}

static void
write_cpu(const struct status_view *v, const json_t *worker, struct buf *out)
{
	const json_t *before = worker_before(v, number(worker, "incarnation"));

	if (before == NULL || v->since_ms == 0) {
		buf_add_cstr(out, "     -");
		return;
	}
	int64_t ms = number(worker, "cpu_ms") - number(before, "cpu_ms");
	int64_t of_100 = percent(ms > 0 ? ms : 0, (int64_t)v->since_ms);

	paint(v, of_100 < PERCENT_DEGRADED ? PLAIN : color_of_use(of_100), out);
	buf_printf(out, " %3" PRId64 " %%", of_100 > 100 ? 100 : of_100);
	paint(v, PLAIN, out);
}

static void
write_worker(const struct status_view *v, const json_t *worker, struct buf *out)
{
	const char *state = text(worker, "state");
	bool is_ready = strcmp(state, "ready") == 0;
	bool is_full = is_ready && number(worker, "work_max") > 0; /* its core is used up */
	char digits[NUMBER_MAX];

	buf_printf(
	    out, "%6" PRId64 "  %8" PRId64 "  ", number(worker, "slot"), number(worker, "pid"));
	paint(v, is_full ? RED : is_ready ? GREEN : YELLOW, out);
	buf_printf(out, "%-9s", is_full ? "full" : state);
	paint(v, PLAIN, out);
	write_cpu(v, worker, out);
	buf_printf(out, "  %5" PRId64 " MiB", number(worker, "rss_bytes") / (1 << 20));
	buf_printf(out, "  %11s", grouped(sum_connections(worker), digits));
	buf_printf(out, "  %7s", grouped(number(worker, "turns_live"), digits));
	buf_printf(out, "  %7.1f ms\n", (double)number(worker, "loop_delay_us") / 1000);
}

/* A line for each, and for each breaker that is not closed. */
static size_t
lines_of_providers(const json_t *list)
{
	size_t lines = json_array_size(list), i;
	const json_t *p;

	json_array_foreach(list, i, p) lines += json_object_size(json_object_get(p, "breakers"));
	return lines;
}

/* As many as there is room for; the draining ones are after the others of their slot. */
static void
write_workers(const struct status_view *v, const json_t *now, struct buf *out)
{
	const json_t *list = json_object_get(json_object_get(now, "workers"), "list"), *worker;
	size_t around =
	    LINES_AROUND_WORKERS + lines_of_providers(json_object_get(now, "providers"));
	size_t room = v->rows > around + WORKERS_MIN ? v->rows - around : WORKERS_MIN, i;

	painted(v, DIM, out,
	    "\nworker       pid  state       cpu     memory  connections    turns  loop delay\n");
	json_array_foreach(list, i, worker)
	{
		if (v->rows > 0 && i >= room) {
			buf_printf(out, "   .. and %zu more\n", json_array_size(list) - i);
			return;
		}
		write_worker(v, worker, out);
	}
}

/* ---- providers ---- */

static void
write_provider(const struct status_view *v, const json_t *p, struct buf *out)
{
	int64_t calls = number(p, "calls"), max = number(p, "calls_max");
	const json_t *breakers = json_object_get(p, "breakers"), *state;
	bool is_up = json_is_true(json_object_get(p, "is_up"));
	const char *model;
	char cell[2 * NUMBER_MAX];

	buf_printf(out, "%-12.12s ", text(p, "name"));
	write_bar(v, calls, max, out);
	snprintf(cell, sizeof(cell), "%" PRId64 "/%" PRId64, calls, max);
	buf_printf(out, " %9s", cell);
	buf_printf(out, "  %7" PRId64, number(p, "waiting"));
	snprintf(cell, sizeof(cell), "%" PRId64 "/%" PRId64, number(p, "pool_in_use"),
	    number(p, "pool_max"));
	buf_printf(out, "  %10s  ", cell);
	painted(v, is_up ? GREEN : RED, out, is_up ? "up" : "down");
	buf_add_cstr(out, "\n");
	json_object_foreach((json_t *)breakers, model, state)
	{
		buf_add_cstr(out, "  ");
		paint(v, YELLOW, out);
		buf_printf(out, "breaker %s: %.50s", json_string_value(state), model);
		paint(v, PLAIN, out);
		buf_add_cstr(out, "\n");
	}
}

void
status_view_write(const struct status_view *v, const json_t *now, struct buf *out)
{
	const json_t *providers = json_object_get(now, "providers"), *p;
	size_t i;

	write_head(v, now, out);
	write_connections(v, now, out);
	write_turns(v, now, out);
	write_dependencies(v, now, out);
	write_workers(v, now, out);
	if (json_array_size(providers) > 0)
		painted(v, DIM, out,
		    "\nprovider                                      calls  waiting"
		    "        pool  state\n");
	json_array_foreach(providers, i, p) write_provider(v, p, out);
}
