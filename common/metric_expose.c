/* metric - reading: sums over the rows, and the Prometheus text format 0.0.4. */
#include "common/metric.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/metric_layout.h"

/* The rows as they were when the scrape began. */
struct row_view {
	uint32_t row, slot;
	enum shm_state state; /* SHM_FREE: only its counters are of interest */
};

struct rows {
	const struct shm *shm;
	uint32_t n;
	struct row_view *v;
};

static struct rows
rows_look(const struct shm *shm)
{
	uint32_t used = shm_rows_used(shm);
	struct rows rows = {shm, 0, xcalloc(used + 1, sizeof(struct row_view))};
	struct shm_row_info info;

	for (uint32_t i = 0; i < used; i++) {
		if (!shm_row_was_used(shm, i))
			continue;
		bool is_alive = shm_row_get(shm, i, &info) && info.state != SHM_DEAD;
		rows.v[rows.n++] = (struct row_view){
		    i, is_alive ? info.slot : 0, is_alive ? info.state : SHM_FREE};
	}
	rows.v[rows.n++] = (struct row_view){shm_rows(shm), 0, SHM_FREE}; /* the master's */
	return rows;
}

static void
rows_done(struct rows *rows)
{
	free(rows->v);
}

static uint64_t
load(const struct rows *rows, uint32_t i, enum metric m, unsigned a, unsigned b, unsigned cell)
{
	return atomic_load_explicit(
	    metric_cell(rows->shm, rows->v[i].row, m, a, b, cell), memory_order_relaxed);
}

static uint64_t
sum_counter(const struct rows *rows, enum metric m, unsigned a, unsigned b, unsigned cell)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < rows->n; i++)
		sum += load(rows, i, m, a, b, cell);
	return sum;
}

static int64_t
sum_gauge(const struct rows *rows, enum metric m, unsigned a, unsigned b, int64_t slot)
{
	int64_t sum = 0;

	for (uint32_t i = 0; i < rows->n; i++) {
		if (rows->v[i].state != SHM_FREE && (slot < 0 || rows->v[i].slot == slot))
			sum += (int64_t)load(rows, i, m, a, b, 0);
	}
	return sum;
}

/* Over those that work: a starting one has not said anything yet. */
static int64_t
extreme_gauge(const struct rows *rows, enum metric m, unsigned a, unsigned b, bool is_min)
{
	int64_t best = 0;
	bool is_any = false;

	for (uint32_t i = 0; i < rows->n; i++) {
		if (rows->v[i].state != SHM_READY && rows->v[i].state != SHM_DRAINING)
			continue;
		int64_t value = (int64_t)load(rows, i, m, a, b, 0);
		if (!is_any || (is_min ? value < best : value > best))
			best = value;
		is_any = true;
	}
	return best;
}

static int64_t
value_of(const struct rows *rows, enum metric m, unsigned a, unsigned b)
{
	uint64_t count = 0;

	switch (metric_infos[m].type) {
	case TYPE_COUNTER:
	case TYPE_COUNTER_MICRO:
		return (int64_t)sum_counter(rows, m, a, b, 0);
	case TYPE_GAUGE:
	case TYPE_GAUGE_WORKER:
		return sum_gauge(rows, m, a, b, -1);
	case TYPE_GAUGE_MIN:
		return extreme_gauge(rows, m, a, b, true);
	case TYPE_GAUGE_MAX:
		return extreme_gauge(rows, m, a, b, false);
	case TYPE_HISTOGRAM:
		for (unsigned i = 0; i <= METRIC_BUCKETS; i++)
			count += sum_counter(rows, m, a, b, i);
		return (int64_t)count;
	}
	check(!"a type of metric");
	return 0;
}

int64_t
metric_total(const struct shm *shm, enum metric m, unsigned a, unsigned b)
{
	struct rows rows = rows_look(shm);
	int64_t value = value_of(&rows, m, a, b);

	rows_done(&rows);
	return value;
}

int64_t
metric_of_row(const struct shm *shm, uint32_t row, enum metric m, unsigned a, unsigned b)
{
	struct row_view view = {row, 0, SHM_READY};
	struct rows rows = {shm, 1, &view};

	return value_of(&rows, m, a, b);
}

void
metric_read_histogram(
    const struct shm *shm, enum metric m, unsigned a, uint64_t ret[METRIC_HISTOGRAM_CELLS])
{
	struct rows rows = rows_look(shm);

	check(metric_infos[m].type == TYPE_HISTOGRAM);
	for (unsigned i = 0; i < METRIC_HISTOGRAM_CELLS; i++)
		ret[i] = sum_counter(&rows, m, a, 0, i);
	rows_done(&rows);
}

/* The labels of one series, with a comma between, without braces. */
static void
add_label(struct buf *out, const char *name, struct str value)
{
	if (out->len > 0)
		buf_add_char(out, ',');
	buf_printf(out, "%s=\"", name);
	for (size_t i = 0; i < value.len; i++) {
		if (value.p[i] == '\n')
			buf_add_cstr(out, "\\n");
		else if (value.p[i] == '"' || value.p[i] == '\\')
			buf_printf(out, "\\%c", value.p[i]);
		else
			buf_add_char(out, value.p[i]);
	}
	buf_add_char(out, '"');
}

/* False: the label has no such value yet. */
static bool
add_value_of(struct buf *out, const struct shm *shm, enum metric_label label, unsigned i)
{
	const struct metric_label_info *info = &metric_label_infos[label];

	if (label == LABEL_NONE)
		return true;
	struct str value = metric_label_value(shm, label, i);
	if (value.p == NULL)
		return false;
	if (info->second == NULL) {
		add_label(out, info->name, value);
		return true;
	}
	add_label(out, info->name, str_split(&value, METRIC_PAIR_SEPARATOR));
	add_label(out, info->second, value);
	return true;
}

static void
add_sample(struct buf *out, const char *name, const char *suffix, const struct buf *labels)
{
	buf_printf(out, "%s%s", name, suffix);
	if (labels->len > 0) {
		buf_add_char(out, '{');
		buf_add_str(out, buf_str(labels));
		buf_add_char(out, '}');
	}
	buf_add_char(out, ' ');
}

static void
add_micro(struct buf *out, uint64_t n)
{
	buf_printf(out, "%" PRIu64 ".%06" PRIu64 "\n", n / 1000000, n % 1000000);
}

static void
expose_histogram(
    struct buf *out, const struct rows *rows, enum metric m, unsigned a, const struct buf *labels)
{
	const char *name = metric_infos[m].name;
	struct buf with_le = BUF_INIT;
	char le[32];
	uint64_t count = 0;

	for (unsigned i = 0; i <= METRIC_BUCKETS; i++) {
		count += sum_counter(rows, m, a, 0, i);
		buf_clear(&with_le);
		buf_add_str(&with_le, buf_str(labels));
		if (i < METRIC_BUCKETS)
			snprintf(le, sizeof(le), "%g", (double)metric_bucket_us[i] / 1e6);
		add_label(&with_le, "le", i < METRIC_BUCKETS ? str_of(le) : STR("+Inf"));
		add_sample(out, name, "_bucket", &with_le);
		buf_printf(out, "%" PRIu64 "\n", count);
	}
	add_sample(out, name, "_sum", labels);
	add_micro(out, sum_counter(rows, m, a, 0, METRIC_BUCKETS + 1));
	add_sample(out, name, "_count", labels);
	buf_printf(out, "%" PRIu64 "\n", count);
	buf_fini(&with_le);
}

/* Two incarnations of a slot (one drains) are one line. */
static void
expose_workers(struct buf *out, const struct rows *rows, enum metric m, unsigned a, unsigned b,
    const struct buf *labels)
{
	struct buf with_worker = BUF_INIT;
	char slot[16];

	for (uint32_t s = 0; s < shm_slots(rows->shm); s++) {
		bool is_any = false;

		for (uint32_t i = 0; i < rows->n && !is_any; i++)
			is_any = rows->v[i].state != SHM_FREE && rows->v[i].slot == s;
		if (!is_any)
			continue;
		buf_clear(&with_worker);
		snprintf(slot, sizeof(slot), "%u", s);
		add_label(&with_worker, "worker", str_of(slot));
		if (labels->len > 0)
			buf_add_char(&with_worker, ',');
		buf_add_str(&with_worker, buf_str(labels));
		add_sample(out, metric_infos[m].name, "", &with_worker);
		buf_printf(out, "%" PRId64 "\n", sum_gauge(rows, m, a, b, s));
	}
	buf_fini(&with_worker);
}

/* Series of two labels, and the "other" of a list of names, appear once they count something. */
static bool
is_shown(const struct rows *rows, enum metric m, unsigned a, unsigned b)
{
	const struct metric_info *info = &metric_infos[m];
	bool is_other = info->label_a != LABEL_NONE && !metric_label_infos[info->label_a].values &&
			a == info->size_a - 1;

	return (info->label_b == LABEL_NONE && !is_other) || value_of(rows, m, a, b) != 0;
}

static void
expose_series(struct buf *out, const struct rows *rows, enum metric m, unsigned a, unsigned b)
{
	const struct metric_info *info = &metric_infos[m];
	struct buf labels = BUF_INIT;

	if (add_value_of(&labels, rows->shm, info->label_a, a) &&
	    add_value_of(&labels, rows->shm, info->label_b, b) && is_shown(rows, m, a, b)) {
		if (info->type == TYPE_HISTOGRAM) {
			expose_histogram(out, rows, m, a, &labels);
		} else if (info->type == TYPE_GAUGE_WORKER) {
			expose_workers(out, rows, m, a, b, &labels);
		} else {
			add_sample(out, info->name, "", &labels);
			if (info->type == TYPE_COUNTER_MICRO)
				add_micro(out, sum_counter(rows, m, a, b, 0));
			else
				buf_printf(out, "%" PRId64 "\n", value_of(rows, m, a, b));
		}
	}
	buf_fini(&labels);
}

static void
add_head(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static const char *
type_name(enum metric_type type)
{
	return type <= TYPE_COUNTER_MICRO ? "counter"
	       : type == TYPE_HISTOGRAM   ? "histogram"
					  : "gauge";
}

/* What is known without being counted. */
static void
expose_host(struct buf *out, const struct rows *rows)
{
	static const struct {
		enum shm_state state;
		const char *name;
	} states[] = {{SHM_STARTING, "starting"}, {SHM_READY, "ready"}, {SHM_DRAINING, "draining"}};

	add_head(out, "parley_build_info", "gauge", "The program that runs.");
	buf_add_cstr(
	    out, "parley_build_info{version=\"" PARLEY_VERSION "\",kind=\"" PARLEY_KIND "\"} 1\n");
	add_head(
	    out, "parley_start_time_seconds", "gauge", "When the host was started, Unix time.");
	buf_printf(
	    out, "parley_start_time_seconds %.3f\n", (double)shm_started_wall_ms(rows->shm) / 1000);
	add_head(out, "parley_workers", "gauge", "Worker processes by state.");
	for (size_t s = 0; s < ARRAY_LEN(states); s++) {
		unsigned n = 0;

		for (uint32_t i = 0; i < rows->n; i++)
			n += rows->v[i].state == states[s].state;
		buf_printf(out, "parley_workers{state=\"%s\"} %u\n", states[s].name, n);
	}
}

void
metric_expose(const struct shm *shm, struct buf *out)
{
	struct rows rows = rows_look(shm);

	expose_host(out, &rows);
	for (unsigned m = 0; m < METRIC_COUNT; m++) {
		const struct metric_info *info = &metric_infos[m];

		add_head(out, info->name, type_name(info->type), info->help);
		for (unsigned a = 0; a < info->size_a; a++) {
			for (unsigned b = 0; b < info->size_b; b++)
				expose_series(out, &rows, m, a, b);
		}
	}
	rows_done(&rows);
}
