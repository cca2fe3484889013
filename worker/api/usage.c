/*
 * usage - GET /admin/v1/usage: what model calls used, by day, app, key and model.
 *
 *   ?from=2026-11-01&to=2026-11-30   days in UTC, both inclusive; today where absent
 *   ?app=, ?key= (the id), ?model=   only these
 *   ?limit=                          rows, 1000 at most
 */
#include <stdio.h>

#include "common/budget.h"
#include "common/clock.h"
#include "common/money.h"
#include "worker/api/call.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"

enum { ROWS_MAX = 1000 };

/* False: it was answered. */
static bool
read_day(struct api_call *call, const struct http_req *req, const char *name, int64_t *ret_day)
{
	const char *text = http_query(req, name);
	char time[CLOCK_RFC3339_LEN + 1];
	int64_t ms;

	if (text == NULL)
		return true;
	if (strlen(text) == 10) {
		snprintf(time, sizeof(time), "%sT00:00:00Z", text);
		if (clock_parse(str_of(time), &ms)) {
			*ret_day = budget_day(ms);
			return true;
		}
	}
	call_reply_error(call, E_INVALID_VALUE, name, "A day is written as 2026-01-31.");
	return false;
}

static json_t *
format_row(const struct store_usage_day *d)
{
	char day[CLOCK_RFC3339_LEN + 1], cost[MONEY_TEXT_MAX];

	clock_format(d->day * 86400000, day);
	day[10] = '\0';
	return json_pack("{s:s,s:s,s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:o}", "day", day, "app_id",
	    d->app_id, "key_id", *d->key_id != '\0' ? json_string(d->key_id) : json_null(), "model",
	    d->sum.model, "calls", (json_int_t)d->sum.calls, "failed_calls",
	    (json_int_t)d->failed_calls, "input_tokens", (json_int_t)d->sum.input_tokens,
	    "output_tokens", (json_int_t)d->sum.output_tokens, "cached_tokens",
	    (json_int_t)d->sum.cached_tokens, "cost",
	    json_loads(money_format(d->sum.cost_micros, cost), JSON_DECODE_ANY, NULL));
}

static void
on_days(void *arg, int err, const struct store_usage_day *days, size_t count)
{
	struct api_call *call = arg;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	json_t *data = json_array();
	size_t shown = count < call->limit ? count : call->limit;

	for (size_t i = 0; i < shown; i++)
		json_array_append_new(data, format_row(&days[i]));
	call_reply_json(call, 200, json_pack("{s:o,s:b}", "data", data, "has_more", count > shown));
}

static void
get_usage(struct api_call *call, struct http_req *req)
{
	int64_t today = budget_day(clock_wall_ms());
	struct store_usage_filter f = {.from_day = today, .to_day = today};
	uint64_t limit = ROWS_MAX;

	if (!read_day(call, req, "from", &f.from_day) || !read_day(call, req, "to", &f.to_day) ||
	    !query_count(call, req, "limit", 1, ROWS_MAX, &limit))
		return;
	f.app_id = http_query(req, "app");
	f.key_id = http_query(req, "key");
	f.model = http_query(req, "model");
	call->limit = (uint32_t)limit;
	f.limit = call->limit + 1;
	store_usage_days(call->api->store, &f, on_days, call);
}

const struct api_endpoint usage_endpoints[] = {
    {"GET", "/admin/v1/usage", 0, API_ADMIN, get_usage},
    {NULL, NULL, 0, 0, NULL},
};
