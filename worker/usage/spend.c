/* spend - see spend.h. */
#include "worker/usage/spend.h"

#include <stdlib.h>
#include <string.h>

#include "common/budget.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"

enum { ROWS_MAX = 10000, MICROS = 1000000 };

struct app_spend {
	int64_t day; /* of today; 0: not looked yet */
	uint64_t calls, input_tokens, output_tokens;
	int64_t today_micros, fresh_micros; /* as told; as just read */
	uint64_t fresh_calls, fresh_input, fresh_output;
	int64_t first_day, period_micros; /* of the budget's period */
	bool has_period, is_stale;        /* the period is to be read again */
};

struct spend {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct events *events;
	struct app_spend *apps; /* as conf->apps */
	struct loop_timer timer;
	size_t reading; /* the app whose period is read */
	int64_t today;
};

int
spend_share_passed(int64_t amount, int64_t before, int64_t now)
{
	static const int shares[] = {100, 90, 75, 50};

	for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
		int64_t mark = amount / 100 * shares[i] + amount % 100 * shares[i] / 100;

		if (now >= mark && before < mark)
			return shares[i];
	}
	return 0;
}

/* ---- telling ---- */

static void
publish(struct spend *s, const char *name, const char *app_id, const struct buf *payload)
{
	const struct events_news news = {
	    .topic = "spend", .app_id = app_id, .name = name, .payload = buf_str(payload)};

	events_publish(s->events, &news);
}

static void
add_app(struct buf *b, const char *app_id)
{
	buf_add_cstr(b, "{\"app_id\":\"");
	buf_add_json_escaped(b, str_of(app_id));
	buf_add_char(b, '"');
}

static void
tell_day(struct spend *s, const char *name, size_t i)
{
	const struct app_spend *a = &s->apps[i];
	const char *app_id = s->conf->apps.v[i].id;
	char day[CLOCK_RFC3339_LEN + 1];
	struct buf b = BUF_INIT;

	clock_format(a->day * 86400000, day);
	add_app(&b, app_id);
	buf_printf(&b,
	    ",\"day\":\"%.10s\",\"cost\":%.6f,\"calls\":%llu,\"input_tokens\":%llu,"
	    "\"output_tokens\":%llu}",
	    day, (double)a->today_micros / MICROS, (unsigned long long)a->calls,
	    (unsigned long long)a->input_tokens, (unsigned long long)a->output_tokens);
	publish(s, name, app_id, &b);
	buf_fini(&b);
}

static void
tell_budget(struct spend *s, size_t i, int share, const struct budget_rule *rule, int64_t spent)
{
	const char *app_id = s->conf->apps.v[i].id;
	int64_t ends_at = budget_end_ms(rule->period, clock_wall_ms());
	char text[CLOCK_RFC3339_LEN + 1];
	struct buf b = BUF_INIT;

	add_app(&b, app_id);
	buf_printf(&b, ",\"threshold\":%d,\"spent\":%.6f,\"amount\":%.6f,\"period\":\"%s\"", share,
	    (double)spent / MICROS, (double)rule->amount_micros / MICROS,
	    budget_period_name(rule->period));
	if (ends_at > 0) {
		clock_format(ends_at, text);
		buf_printf(&b, ",\"ends_at\":\"%s\"", text);
	}
	buf_add_char(&b, '}');
	publish(s, "budget.alert", app_id, &b);
	buf_fini(&b);
}

/* ---- the period of a budget ---- */

static void read_next_period(struct spend *);

static struct budget_rule
rule_of(const struct spend *s, size_t i)
{
	const struct conf_app *app = &s->conf->apps.v[i];

	return budget_rule_of(app->budget.amount, app->budget.period);
}

static void
on_period(void *arg, int err, const struct store_usage_day *days, size_t count)
{
	struct spend *s = arg;
	struct app_spend *a = &s->apps[s->reading];
	struct budget_rule rule = rule_of(s, s->reading);
	int64_t first_day = budget_first_day(rule.period, clock_wall_ms()), sum = 0;

	for (size_t i = 0; err == 0 && i < count; i++)
		sum += days[i].sum.cost_micros;
	if (err == 0) {
		int64_t before = a->first_day == first_day ? a->period_micros : 0;
		int share = a->has_period ? spend_share_passed(rule.amount_micros, before, sum) : 0;

		if (share > 0)
			tell_budget(s, s->reading, share, &rule, sum);
		a->first_day = first_day;
		a->period_micros = sum;
		a->has_period = true;
		a->is_stale = false;
	}
	s->reading++;
	read_next_period(s);
}

static void
read_next_period(struct spend *s)
{
	while (s->reading < s->conf->apps.n &&
	       (!s->apps[s->reading].is_stale || rule_of(s, s->reading).amount_micros == 0))
		s->reading++;
	if (s->reading == s->conf->apps.n) {
		loop_timer_set(s->loop, &s->timer, s->conf->usage.spend_interval_ms);
		return;
	}
	const struct store_usage_filter f = {
	    .from_day = budget_first_day(rule_of(s, s->reading).period, clock_wall_ms()),
	    .to_day = budget_day(clock_wall_ms()),
	    .app_id = s->conf->apps.v[s->reading].id,
	    .limit = ROWS_MAX,
	};
	store_usage_days(s->store, &f, on_period, s);
}

/* ---- today ---- */

static void
take_today(struct spend *s, size_t i)
{
	struct app_spend *a = &s->apps[i];
	bool is_first = a->day == 0;
	bool is_news = a->fresh_calls != a->calls || a->fresh_micros != a->today_micros;

	if (!is_first && a->day != s->today && a->calls > 0)
		tell_day(s, "spend.summary", i);
	a->is_stale = a->is_stale || is_first || a->day != s->today || is_news;
	a->day = s->today;
	a->today_micros = a->fresh_micros;
	a->calls = a->fresh_calls;
	a->input_tokens = a->fresh_input;
	a->output_tokens = a->fresh_output;
	if (!is_first && is_news && a->calls > 0)
		tell_day(s, "spend.update", i);
}

static void
add_row(struct spend *s, const struct store_usage_day *d)
{
	for (size_t i = 0; i < s->conf->apps.n; i++) {
		struct app_spend *a = &s->apps[i];

		if (strcmp(s->conf->apps.v[i].id, d->app_id) != 0)
			continue;
		a->fresh_micros += d->sum.cost_micros;
		a->fresh_calls += d->sum.calls;
		a->fresh_input += d->sum.input_tokens;
		a->fresh_output += d->sum.output_tokens;
	}
}

static void
on_today(void *arg, int err, const struct store_usage_day *days, size_t count)
{
	struct spend *s = arg;

	if (err != 0) {
		loop_timer_set(s->loop, &s->timer, s->conf->usage.spend_interval_ms);
		return;
	}
	for (size_t i = 0; i < s->conf->apps.n; i++) {
		struct app_spend *a = &s->apps[i];

		a->fresh_micros = 0;
		a->fresh_calls = a->fresh_input = a->fresh_output = 0;
	}
	for (size_t i = 0; i < count; i++)
		add_row(s, &days[i]);
	for (size_t i = 0; i < s->conf->apps.n; i++)
		take_today(s, i);
	s->reading = 0;
	read_next_period(s);
}

static void
on_look(struct loop_timer *t)
{
	struct spend *s = container_of(t, struct spend, timer);

	if (!store_is_elected(s->store) || !store_is_available(s->store)) {
		loop_timer_set(s->loop, t, s->conf->usage.spend_interval_ms);
		return;
	}
	s->today = budget_day(clock_wall_ms());
	const struct store_usage_filter f = {
	    .from_day = s->today, .to_day = s->today, .limit = ROWS_MAX};
	store_usage_days(s->store, &f, on_today, s);
}

struct spend *
spend_new(struct loop *loop, const struct conf *conf, struct store *store, struct events *events)
{
	struct spend *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->conf = conf;
	s->store = store;
	s->events = events;
	s->apps = xcalloc(conf->apps.n > 0 ? conf->apps.n : 1, sizeof(s->apps[0]));
	s->timer.on_fire = on_look;
	loop_timer_set(loop, &s->timer, s->conf->usage.spend_interval_ms);
	return s;
}

void
spend_free(struct spend **ref)
{
	struct spend *s = *ref;

	if (s == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(s->loop, &s->timer);
	free(s->apps);
	free(s);
}
