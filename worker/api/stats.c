/*
 * stats - GET /admin/v1/stats: what the named caches of the fleet have counted.
 *
 *   ?limit=   instances shown, 1000 at most; the sums are always over all
 *   ?after=   an instance's name: those behind it
 *
 * The reports are read anew for each request, or for several at once. The answer's rows are
 * written as text while they come: a thousand instances are little work at its end.
 */
#include <inttypes.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/clock.h"
#include "worker/api/call.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"

enum { ROWS_MAX = 1000 };

struct stats_call {
	struct stats_reader reader;
	struct api_call *call;
	char after[STATS_NAME_LEN + 1];
	uint64_t limit, shown;
	bool has_more;
	struct buf rows;
};

static double
share(uint64_t part, uint64_t rest)
{
	return part + rest > 0 ? (double)part / (double)(part + rest) : 0;
}

static void
put_counts(struct buf *out, const struct region_counts *c)
{
	uint64_t lookups = c->hits + c->misses;

	buf_printf(out,
	    "\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"entries\":%" PRIu64
	    ",\"hit_rate\":%.4f,\"mean_us\":%.1f",
	    c->hits, c->misses, c->entries, share(c->hits, c->misses),
	    lookups > 0 ? (double)c->us / (double)lookups : 0.0);
}

/* ---- instances ---- */

static uint64_t
age_ms(uint64_t at_ms, uint64_t now_ms)
{
	return now_ms > at_ms ? now_ms - at_ms : 0;
}

static void
put_instance(struct stats_call *sc, const struct collect_instance *i, uint64_t now_ms)
{
	struct buf *out = &sc->rows;
	uint64_t at_ms = 0;
	const char *comma = "";

	for (unsigned region = 0; region < REGION_COUNT; region++)
		if ((i->known & 1U << region) && i->reports[region].at_ms > at_ms)
			at_ms = i->reports[region].at_ms;
	buf_printf(out,
	    "%s{\"instance\":\"%s\",\"is_self\":%s,\"age_ms\":%" PRIu64 ",\"regions\":{",
	    sc->shown > 0 ? "," : "", i->name,
	    strcmp(i->name, stats_self(sc->call->api->stats)) == 0 ? "true" : "false",
	    age_ms(at_ms, now_ms));
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		if ((i->known & 1U << region) == 0)
			continue;
		buf_printf(out, "%s\"%s\":{", comma, region_name(region));
		put_counts(out, &i->reports[region].counts);
		buf_add_char(out, '}');
		comma = ",";
	}
	buf_add_cstr(out, "}}");
}

static void
on_again(struct stats_reader *reader)
{
	struct stats_call *sc = container_of(reader, struct stats_call, reader);

	buf_clear(&sc->rows);
	sc->shown = 0;
	sc->has_more = false;
}

static void
on_instance(struct stats_reader *reader, const struct collect_result *so_far,
    const struct collect_instance *i)
{
	struct stats_call *sc = container_of(reader, struct stats_call, reader);

	if (strcmp(i->name, sc->after) <= 0)
		return;
	if (sc->shown >= sc->limit) {
		sc->has_more = true;
		return;
	}
	put_instance(sc, i, so_far->now_ms);
	sc->shown++;
}

/* ---- sums ---- */

static void
put_time(struct buf *out, const char *name, const struct region_counts *c, double of)
{
	uint64_t us = counts_time_us(c, of);

	if (us == 0 || us == UINT64_MAX)
		buf_printf(out, ",\"%s\":null", name);
	else
		buf_printf(out, ",\"%s\":%" PRIu64, name, us);
}

static void
put_stored(struct buf *out, const struct stored *stored, const struct aggregate *now)
{
	const struct aggregate *a = &stored->sums;
	char at[CLOCK_RFC3339_LEN + 1];

	if (stored->state != STORED_OK) {
		buf_printf(out, ",\"stored\":null");
		return;
	}
	clock_format((int64_t)(a->at_ms % 253402300800000ULL), at); /* to the year 9999 */
	buf_printf(out,
	    ",\"stored\":{\"at\":\"%s\",\"age_ms\":%" PRIu64 ",\"aggregation_ms\":%.3f,"
	    "\"instances\":%" PRIu64 ",\"hits\":%" PRIu64 ",\"misses\":%" PRIu64
	    ",\"entries\":%" PRIu64 ",\"drift\":",
	    at, age_ms(a->at_ms, now->at_ms), (double)a->took_us / 1000, a->instances,
	    a->counts.hits, a->counts.misses, a->counts.entries);
	if (now->is_compared)
		buf_printf(out, "%.6f}", (double)now->drift_ppm / DRIFT_WHOLE_PPM);
	else
		buf_add_cstr(out, "null}");
}

static void
put_regions(struct buf *out, enum stats_mode mode, const struct collect_result *result,
    const struct fleet *fleet)
{
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		struct aggregate a = fleet_aggregate(fleet, result, region);

		buf_printf(out, "%s\"%s\":{\"instances\":%" PRIu64 ",", region > 0 ? "," : "",
		    region_name(region), a.instances);
		put_counts(out, &a.counts);
		put_time(out, "p50_us", &a.counts, 0.5);
		put_time(out, "p99_us", &a.counts, 0.99);
		if (mode == STATS_FLEET)
			put_stored(out, &result->stored[region], &a);
		buf_add_char(out, '}');
	}
}

static void
on_fleet(struct stats_reader *reader, enum stats_mode mode, const struct collect_result *result,
    const struct fleet *fleet)
{
	struct stats_call *sc = container_of(reader, struct stats_call, reader);
	struct api_call *call = sc->call;
	struct http_req *req = call_req(call);
	struct buf out = BUF_INIT;
	char now[CLOCK_RFC3339_LEN + 1];

	clock_format((int64_t)(result->now_ms % 253402300800000ULL), now);
	buf_printf(&out,
	    "{\"mode\":\"%s\",\"degraded\":%s,\"now\":\"%s\",\"aggregation_ms\":%.3f,"
	    "\"instances\":%" PRIu64 ",\"stale\":%" PRIu64 ",\"rejected\":%" PRIu64
	    ",\"is_cut\":%s,\"regions\":{",
	    stats_mode_name(mode), mode == STATS_ALONE ? "true" : "false", now,
	    (double)result->took_us / 1000, result->instances, result->stale, result->rejected,
	    result->is_cut ? "true" : "false");
	put_regions(&out, mode, result, fleet);
	buf_add_cstr(&out, "},\"data\":[");
	buf_add_str(&out, buf_str(&sc->rows));
	buf_printf(&out, "],\"has_more\":%s}", sc->has_more ? "true" : "false");
	buf_fini(&sc->rows);
	if (req != NULL)
		http_reply(req, 200, "application/json", buf_str(&out));
	buf_fini(&out);
	call_end(call);
}

static void
get_stats(struct api_call *call, struct http_req *req)
{
	const char *after = http_query(req, "after");
	struct stats_call *sc;
	uint64_t limit = ROWS_MAX;

	if (!query_count(call, req, "limit", 1, ROWS_MAX, &limit))
		return;
	if (after != NULL && strlen(after) > STATS_NAME_LEN) {
		call_reply_error(call, E_INVALID_VALUE, "after", "An instance has 16 digits.");
		return;
	}
	sc = arena_alloc(&call->arena, sizeof(*sc));
	*sc = (struct stats_call){.call = call, .limit = limit};
	sc->reader.on_again = on_again;
	sc->reader.on_instance = on_instance;
	sc->reader.on_fleet = on_fleet;
	if (after != NULL)
		memcpy(sc->after, after, strlen(after));
	stats_read(call->api->stats, &sc->reader);
}

const struct api_endpoint stats_endpoints[] = {
    {"GET", "/admin/v1/stats", 0, API_ADMIN, get_stats},
    {NULL, NULL, 0, 0, NULL},
};
