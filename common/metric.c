/* metric - layout of the rows, names of labels, and adding. */
#include "common/metric.h"

#include "common/check.h"
#include "common/metric_layout.h"

enum { PAGE = 4096, NAME_MAX_BYTES = 127, BLOB_BYTES = 128 * 1024 };

/* The cells of one row, generated: one array per metric. */
#define CELLS(id, a, b) _Atomic uint64_t id##_cells[(a##_SIZE) * (b##_SIZE)];
#define SKIP(id, a, b)
#define HISTOGRAM_CELLS(id, a, b) _Atomic uint64_t id##_cells[(a##_SIZE) * METRIC_HISTOGRAM_CELLS];

#define IN_GAUGES_COUNTER       SKIP
#define IN_GAUGES_COUNTER_MICRO SKIP
#define IN_GAUGES_GAUGE         CELLS
#define IN_GAUGES_GAUGE_WORKER  CELLS
#define IN_GAUGES_GAUGE_MIN     CELLS
#define IN_GAUGES_GAUGE_MAX     CELLS
#define IN_GAUGES_HISTOGRAM     SKIP

#define IN_COUNTERS_COUNTER       CELLS
#define IN_COUNTERS_COUNTER_MICRO CELLS
#define IN_COUNTERS_GAUGE         SKIP
#define IN_COUNTERS_GAUGE_WORKER  SKIP
#define IN_COUNTERS_GAUGE_MIN     SKIP
#define IN_COUNTERS_GAUGE_MAX     SKIP
#define IN_COUNTERS_HISTOGRAM     HISTOGRAM_CELLS

struct gauges {
#define METRIC(id, name, type, a, b, help) IN_GAUGES_##type(id, a, b)
#include "common/metric.tbl"
#undef METRIC
};

struct counters {
#define METRIC(id, name, type, a, b, help) IN_COUNTERS_##type(id, a, b)
#include "common/metric.tbl"
#undef METRIC
};

struct metric_row {
	_Alignas(PAGE) struct gauges gauges;
	_Alignas(PAGE) struct counters counters;
};

#define OFFSET_COUNTER(id)       offsetof(struct metric_row, counters.id##_cells)
#define OFFSET_COUNTER_MICRO(id) offsetof(struct metric_row, counters.id##_cells)
#define OFFSET_HISTOGRAM(id)     offsetof(struct metric_row, counters.id##_cells)
#define OFFSET_GAUGE(id)         offsetof(struct metric_row, gauges.id##_cells)
#define OFFSET_GAUGE_WORKER(id)  offsetof(struct metric_row, gauges.id##_cells)
#define OFFSET_GAUGE_MIN(id)     offsetof(struct metric_row, gauges.id##_cells)
#define OFFSET_GAUGE_MAX(id)     offsetof(struct metric_row, gauges.id##_cells)

static const size_t cell_offsets[METRIC_COUNT] = {
#define METRIC(id, name, type, a, b, help) OFFSET_##type(id),
#include "common/metric.tbl"
#undef METRIC
};

const struct metric_info metric_infos[METRIC_COUNT] = {
#define METRIC(id, name, type, a, b, help) {name, help, TYPE_##type, a, b, a##_SIZE, b##_SIZE},
#include "common/metric.tbl"
#undef METRIC
};

#define V(id, text)                  text,
#define LABEL_LIST(id, name, values) static const char *const id##_values[] = {values};
#define LABEL_NAMES(id, ...)
#define LABEL_PAIRS(id, ...)
#include "common/metric_label.tbl"
#undef V
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS

const struct metric_label_info metric_label_infos[LABEL_COUNT] = {
    [LABEL_NONE] = {NULL, NULL, 1, NULL},
#define LABEL_LIST(id, name, values)        [id] = {name, NULL, id##_SIZE, id##_values},
#define LABEL_NAMES(id, name, max)          [id] = {name, NULL, max, NULL},
#define LABEL_PAIRS(id, first, second, max) [id] = {first, second, max, NULL},
#include "common/metric_label.tbl"
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS
};

const uint64_t metric_bucket_us[METRIC_BUCKETS] = {100, 250, 500, 1000, 2500, 5000, 10000, 25000,
    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000};

/*
 * Names of label values, for the scraper. A name is written into the blob first and then
 * published by one compare-and-swap of the next empty place in its label's table, where a
 * competitor's equal name is found: so no name is there twice, and who is killed in between
 * leaves nothing but some unused bytes.
 */
struct names {
#define LABEL_LIST(id, ...)
#define LABEL_NAMES(id, ...) _Atomic uint32_t id##_at[id##_SIZE]; /* blob offset + 1 */
#define LABEL_PAIRS(id, ...) _Atomic uint32_t id##_at[id##_SIZE];
#include "common/metric_label.tbl"
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS
	_Atomic uint32_t blob_used;
	char blob[BLOB_BYTES]; /* a length byte, then the name */
};

static const size_t name_offsets[LABEL_COUNT] = {
#define LABEL_LIST(id, ...)
#define LABEL_NAMES(id, ...) [id] = offsetof(struct names, id##_at),
#define LABEL_PAIRS(id, ...) [id] = offsetof(struct names, id##_at),
#include "common/metric_label.tbl"
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS
};

static struct {
	struct shm *shm; /* NULL: nothing is counted */
	uint32_t row;
	bool is_shared; /* the master's: an upgrade has two for a while */
} own;

static size_t
names_bytes(void)
{
	return (sizeof(struct names) + PAGE - 1) / PAGE * PAGE;
}

size_t
metric_shm_bytes(uint32_t rows)
{
	return names_bytes() + (rows + 1) * sizeof(struct metric_row);
}

static uint64_t
hash_text(uint64_t h, const char *s)
{
	for (; *s != '\0'; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
	return (h ^ 0xff) * 0x100000001b3ULL;
}

uint64_t
metric_layout_hash(void)
{
	uint64_t h = 0xcbf29ce484222325ULL; /* FNV-1a */

	for (unsigned m = 0; m < METRIC_COUNT; m++) {
		h = hash_text(h, metric_infos[m].name);
		h = (h ^ cell_offsets[m] ^ metric_infos[m].type) * 0x100000001b3ULL;
	}
	for (unsigned l = 1; l < LABEL_COUNT; l++) {
		h = hash_text(h, metric_label_infos[l].name);
		h = (h ^ metric_label_infos[l].size) * 0x100000001b3ULL;
		for (unsigned i = 0; metric_label_infos[l].values && i < metric_label_infos[l].size;
		     i++)
			h = hash_text(h, metric_label_infos[l].values[i]);
	}
	return h;
}

static struct metric_row *
row_at(const struct shm *shm, uint32_t row)
{
	check(row <= shm_rows(shm));
	return (struct metric_row *)((char *)shm_metrics(shm, NULL) + names_bytes()) + row;
}

_Atomic uint64_t *
metric_cell(const struct shm *shm, uint32_t row, enum metric m, unsigned a, unsigned b, unsigned i)
{
	const struct metric_info *info = &metric_infos[m];
	bool is_histogram = info->type == TYPE_HISTOGRAM;

	check(a < info->size_a && b < info->size_b);
	return (_Atomic uint64_t *)((char *)row_at(shm, row) + cell_offsets[m]) +
	       (is_histogram ? a * METRIC_HISTOGRAM_CELLS + i : a * info->size_b + b);
}

void
metric_row_clear_gauges(struct shm *shm, uint32_t row)
{
	shm_punch(shm, &row_at(shm, row)->gauges, offsetof(struct metric_row, counters));
}

void
metric_init(struct shm *shm, struct shm_who me)
{
	own.shm = shm;
	own.is_shared = me.number == 0;
	own.row = shm == NULL ? 0 : own.is_shared ? shm_rows(shm) : me.row;
}

static _Atomic uint32_t *
names_of(const struct shm *shm, enum metric_label label)
{
	return (_Atomic uint32_t *)((char *)shm_metrics(shm, NULL) + name_offsets[label]);
}

static struct str
name_at(const struct shm *shm, uint32_t at)
{
	const struct names *names = shm_metrics(shm, NULL);

	return str_sub(names->blob + at, (unsigned char)names->blob[at - 1]);
}

struct str
metric_label_value(const struct shm *shm, enum metric_label label, unsigned i)
{
	const struct metric_label_info *info = &metric_label_infos[label];

	check(label != LABEL_NONE && i < info->size);
	if (info->values != NULL)
		return str_of(info->values[i]);
	if (i == info->size - 1)
		return info->second != NULL ? STR("other\x1fother") : STR("other");
	uint32_t at = atomic_load_explicit(&names_of(shm, label)[i], memory_order_acquire);
	return at != 0 ? name_at(shm, at) : STR_NONE;
}

/* Offset + 1, or 0 when there is no room. */
static uint32_t
blob_put(struct shm *shm, struct str name)
{
	struct names *names = shm_metrics(shm, NULL);
	uint32_t need = (uint32_t)name.len + 1;

	if (atomic_load(&names->blob_used) + need > BLOB_BYTES)
		return 0;
	uint32_t at = atomic_fetch_add(&names->blob_used, need);
	if (at + need > BLOB_BYTES)
		return 0;
	names->blob[at] = (char)name.len;
	memcpy(names->blob + at + 1, name.p, name.len);
	return at + 1;
}

static unsigned
register_name(enum metric_label label, struct str name)
{
	_Atomic uint32_t *table = names_of(own.shm, label);
	unsigned other = metric_label_infos[label].size - 1;
	uint32_t mine = 0;

	for (unsigned i = 0; i < other; i++) {
		uint32_t at = atomic_load_explicit(&table[i], memory_order_acquire);

		if (at == 0) {
			if (mine == 0 && (mine = blob_put(own.shm, name)) == 0)
				return other;
			if (atomic_compare_exchange_strong(&table[i], &at, mine))
				return i;
		}
		if (str_eq(name_at(own.shm, at), name))
			return i;
	}
	return other;
}

unsigned
metric_label(enum metric_label label, struct str value)
{
	const struct metric_label_info *info = &metric_label_infos[label];

	check(label > LABEL_NONE && label < LABEL_COUNT);
	if (info->values != NULL) {
		for (unsigned i = 0; i < info->size; i++) {
			if (str_eq(value, str_of(info->values[i])))
				return i;
		}
		return info->size - 1;
	}
	if (own.shm == NULL || value.len > NAME_MAX_BYTES)
		return info->size - 1;
	return register_name(label, value);
}

unsigned
metric_label_pair(enum metric_label label, struct str first, struct str second)
{
	char both[NAME_MAX_BYTES + 1];

	check(metric_label_infos[label].second != NULL);
	if (first.len + second.len + 1 > NAME_MAX_BYTES ||
	    (first.len > 0 && memchr(first.p, METRIC_PAIR_SEPARATOR, first.len) != NULL))
		return metric_label_infos[label].size - 1;
	size_t n = 0;
	for (size_t i = 0; i < first.len; i++)
		both[n++] = first.p[i];
	both[n++] = METRIC_PAIR_SEPARATOR;
	for (size_t i = 0; i < second.len; i++)
		both[n++] = second.p[i];
	return metric_label(label, str_sub(both, n));
}

unsigned
metric_status(int http_status)
{
	static uint8_t index_of[600]; /* + 1; 0: not looked up yet */
	char text[4];

	if (http_status < 100 || http_status > 599)
		return STATUS_OTHER;
	if (index_of[http_status] == 0) {
		for (int i = 3, n = http_status; i-- > 0; n /= 10)
			text[i] = (char)('0' + n % 10);
		index_of[http_status] = (uint8_t)(metric_label(LABEL_STATUS, str_sub(text, 3)) + 1);
	}
	return index_of[http_status] - 1u;
}

static void
cell_add(_Atomic uint64_t *cell, uint64_t n)
{
	if (own.is_shared)
		atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
	else
		atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n,
		    memory_order_relaxed);
}

void
metric_add(enum metric m, unsigned a, unsigned b, uint64_t n)
{
	check(metric_infos[m].type <= TYPE_COUNTER_MICRO);
	if (own.shm != NULL)
		cell_add(metric_cell(own.shm, own.row, m, a, b, 0), n);
}

static bool
is_gauge(enum metric m)
{
	return metric_infos[m].type >= TYPE_GAUGE && metric_infos[m].type <= TYPE_GAUGE_MAX;
}

void
metric_gauge(enum metric m, unsigned a, unsigned b, int64_t delta)
{
	check(is_gauge(m));
	if (own.shm != NULL)
		cell_add(metric_cell(own.shm, own.row, m, a, b, 0), (uint64_t)delta);
}

void
metric_gauge_set(enum metric m, unsigned a, unsigned b, int64_t value)
{
	check(is_gauge(m));
	if (own.shm != NULL)
		atomic_store_explicit(metric_cell(own.shm, own.row, m, a, b, 0), (uint64_t)value,
		    memory_order_relaxed);
}

void
metric_observe_us(enum metric m, unsigned a, uint64_t us)
{
	unsigned i = 0;

	check(metric_infos[m].type == TYPE_HISTOGRAM);
	if (own.shm == NULL)
		return;
	while (i < METRIC_BUCKETS && us > metric_bucket_us[i])
		i++;
	cell_add(metric_cell(own.shm, own.row, m, a, 0, i), 1);
	cell_add(metric_cell(own.shm, own.row, m, a, 0, METRIC_BUCKETS + 1), us);
}
