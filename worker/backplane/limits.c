/*
 * limits - see limits.h.
 *
 * A window is a list: first what it holds in sum, then "time:units" from the oldest to the latest,
 * time being Redis's in milliseconds. Each decision drops what is too old at one end and adds at
 * the other, so it costs the same however much the window holds. Units of one grain
 * (1 ms; above LIMITER_EXACT_MAX one 4094th of the window) share an entry and expire with the last
 * of them. A clock that lags behind the latest entry counts as that entry's; one that lags by more
 * than the window is another machine's, and the window begins anew.
 */
#include "worker/backplane/limits.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"

enum { KEY_MAX = 128, NUMBER_MAX = 24, ARGS_EACH = 4, UNITS_ARG = 2, REPLY_EACH = 4 };

/*
 * KEYS: windows. ARGV: limit, window in ms, units (below 0: given back; "+": all that fit of them),
 * grain in ms, for each.
 * Answers {allowed, remaining, retry_after_ms, reset_ms} for each up to the first that refuses.
 */
static const char take_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local function split(e)\n"
    "  local at, units = string.match(e, '^(%d+):(%d+)$')\n"
    "  return tonumber(at), tonumber(units)\n"
    "end\n"
    "local out = {}\n"
    "for i, key in ipairs(KEYS) do\n"
    "  local a = i * 4 - 4\n"
    "  local limit, window = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])\n"
    "  local units, grain = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])\n"
    "  local fills = string.sub(ARGV[a + 3], 1, 1) == '+'\n"
    "  local total = tonumber(redis.call('LPOP', key) or '0')\n"
    "  local last = redis.call('LINDEX', key, -1)\n"
    "  local clock, last_at, last_units = now, nil, nil\n"
    "  if last then\n"
    "    last_at, last_units = split(last)\n"
    "    if last_at > now + window then\n"
    "      redis.call('DEL', key)\n"
    "      total, last = 0, nil\n"
    "    elseif last_at > now then clock = last_at end\n"
    "  end\n"
    "  while last do\n"
    "    local e = redis.call('LINDEX', key, 0)\n"
    "    if not e then total, last = 0, nil break end\n"
    "    local at, n = split(e)\n"
    "    if clock - at < window then break end\n"
    "    redis.call('LPOP', key)\n"
    "    total = total - n\n"
    "  end\n"
    "  if fills and total + units > limit then units = math.max(limit - total, 0) end\n"
    "  local allowed, retry = 1, 0\n"
    "  if units < 0 then\n"
    "    local left = -units\n"
    "    while left > 0 and last do\n"
    "      local e = redis.call('LINDEX', key, 0)\n"
    "      if not e then last = nil break end\n"
    "      local at, n = split(e)\n"
    "      if n > left then\n"
    "        redis.call('LSET', key, 0, at .. ':' .. (n - left))\n"
    "        total, left = total - left, 0\n"
    "      else\n"
    "        redis.call('LPOP', key)\n"
    "        total, left = total - n, left - n\n"
    "      end\n"
    "    end\n"
    "  elseif total + units <= limit then\n"
    "    if units > 0 then\n"
    "      if last and math.floor(last_at / grain) == math.floor(clock / grain) then\n"
    "        redis.call('LSET', key, -1, string.format('%.0f:%.0f', clock, last_units + units))\n"
    "      else\n"
    "        redis.call('RPUSH', key, string.format('%.0f:%.0f', clock, units))\n"
    "      end\n"
    "      total, last, last_at = total + units, true, clock\n"
    "    end\n"
    "  else\n"
    "    allowed, retry = 0, window\n"
    "    local need, from = total + units - limit, 0\n"
    "    while units <= limit and need > 0 do\n"
    "      local some = redis.call('LRANGE', key, from, from + 255)\n"
    "      if #some == 0 then break end\n"
    "      for _, e in ipairs(some) do\n"
    "        local at, n = split(e)\n"
    "        need = need - n\n"
    "        if need <= 0 then retry = at + window - clock break end\n"
    "      end\n"
    "      from = from + 256\n"
    "    end\n"
    "  end\n"
    "  local reset = 0\n"
    "  if last and total > 0 then\n"
    "    reset = last_at + window - clock\n"
    "    redis.call('LPUSH', key, string.format('%.0f', total))\n"
    "    redis.call('PEXPIRE', key, window + 1000)\n"
    "  end\n"
    "  local remaining = limit - total\n"
    "  if remaining < 0 then remaining = 0 end\n"
    "  out[#out + 1] = {allowed, remaining, retry, reset}\n"
    "  if allowed == 0 then break end\n"
    "end\n"
    "return out\n";

struct limits {
	struct shm *shm;
	struct redis *redis;
	const char *key_prefix;
	char sha[2 * SHA1_LEN + 1];
	uint64_t alone_ms; /* clock_mono_ms() when this host last decided alone; 0: never */
};

/* ---- this host alone ---- */

static void
take_here(struct limits *l, struct limit_ask *ask)
{
	bool is_refused = false;

	if (l->redis != NULL)
		l->alone_ms = clock_mono_ms();
	for (ask->decided = 0; ask->decided < ask->count && !is_refused; ask->decided++) {
		const struct limit_window *w = &ask->windows[ask->decided];
		struct limiter_verdict *v = &ask->verdicts[ask->decided];

		*v = (struct limiter_verdict){.is_allowed = true, .remaining = UINT32_MAX};
		if (w->rule.limit != 0)
			*v = limiter_take(l->shm, w->key, w->rule, w->cost, clock_mono_ms());
		is_refused = !v->is_allowed;
	}
}

/* ---- the command ---- */

struct words {
	char text[LIMIT_WINDOWS_MAX][KEY_MAX];
	char numbers[LIMIT_WINDOWS_MAX][ARGS_EACH][NUMBER_MAX];
	char count[NUMBER_MAX];
	struct str argv[3 + LIMIT_WINDOWS_MAX * (1 + ARGS_EACH)];
	size_t argc;
};

static unsigned
grain_ms(struct limiter_rule rule)
{
	return rule.limit <= LIMITER_EXACT_MAX ? 1 : rule.window_ms / (LIMITER_EXACT_MAX - 1) + 1;
}

static void
put_window(
    struct limits *l, struct words *words, size_t i, const struct limit_window *w, const char *sign)
{
	char hex[2 * sizeof(w->key.bytes) + 1];
	const uint32_t numbers[ARGS_EACH] = {
	    w->rule.limit, w->rule.window_ms, w->cost, grain_ms(w->rule)};

	crypto_hex(w->key.bytes, sizeof(w->key.bytes), hex);
	snprintf(words->text[i], KEY_MAX, "%.*slim:%s", KEY_MAX - 40, l->key_prefix, hex);
	for (int n = 0; n < ARGS_EACH; n++)
		snprintf(words->numbers[i][n], NUMBER_MAX, "%s%u", n == UNITS_ARG ? sign : "",
		    numbers[n]);
}

/* verb EVALSHA or EVAL. */
static void
put_command(struct words *words, struct str verb, struct str script, size_t count)
{
	words->argc = 0;
	words->argv[words->argc++] = verb;
	words->argv[words->argc++] = script;
	snprintf(words->count, sizeof(words->count), "%zu", count);
	words->argv[words->argc++] = str_of(words->count);
	for (size_t i = 0; i < count; i++)
		words->argv[words->argc++] = str_of(words->text[i]);
	for (size_t i = 0; i < count; i++)
		for (int n = 0; n < ARGS_EACH; n++)
			words->argv[words->argc++] = str_of(words->numbers[i][n]);
}

static bool
send_ask(struct limits *l, struct limit_ask *ask, bool is_known_script, command_on_reply *on_reply)
{
	struct words words;
	size_t count = 0;

	for (size_t i = 0; i < ask->count; i++)
		if (ask->windows[i].rule.limit != 0)
			put_window(l, &words, count++, &ask->windows[i], "");
	if (count == 0)
		return false;
	put_command(&words, is_known_script ? STR("EVALSHA") : STR("EVAL"),
	    is_known_script ? str_of(l->sha) : str_of(take_script), count);
	return redis_command(l->redis, words.argc, words.argv, on_reply, ask);
}

/* ---- the answer ---- */

static bool
read_verdict(const redisReply *r, uint32_t limit, struct limiter_verdict *ret)
{
	if (r->type != REDIS_REPLY_ARRAY || r->elements != REPLY_EACH)
		return false;
	for (size_t i = 0; i < REPLY_EACH; i++)
		if (r->element[i]->type != REDIS_REPLY_INTEGER || r->element[i]->integer < 0 ||
		    r->element[i]->integer > UINT32_MAX)
			return false;
	*ret = (struct limiter_verdict){.is_allowed = r->element[0]->integer != 0,
	    .limit = limit,
	    .remaining = (uint32_t)r->element[1]->integer,
	    .retry_after_ms = (uint32_t)r->element[2]->integer,
	    .reset_ms = (uint32_t)r->element[3]->integer};
	return true;
}

static bool
read_verdicts(struct limit_ask *ask, const redisReply *reply)
{
	bool is_refused = false;
	size_t at = 0;

	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
		return false;
	for (ask->decided = 0; ask->decided < ask->count && !is_refused; ask->decided++) {
		const struct limit_window *w = &ask->windows[ask->decided];
		struct limiter_verdict *v = &ask->verdicts[ask->decided];

		*v = (struct limiter_verdict){.is_allowed = true, .remaining = UINT32_MAX};
		if (w->rule.limit == 0)
			continue;
		if (at >= reply->elements || !read_verdict(reply->element[at++], w->rule.limit, v))
			return false;
		is_refused = !v->is_allowed;
	}
	return true;
}

static void correct(struct limits *, const struct limit_window *, const char *sign);

/* Redis does not know what this host has given out alone, until that has left the window. */
static bool
was_alone_within(const struct limits *l, const struct limit_window *w, uint64_t now_ms)
{
	return l->alone_ms != 0 && now_ms - l->alone_ms < w->rule.window_ms;
}

/* Redis has allowed it, and is told that it was not used from window `from` on. */
static void
refuse_here(struct limits *l, struct limit_ask *ask, size_t from, struct limiter_verdict verdict)
{
	for (size_t i = from; i < ask->decided; i++)
		if (ask->windows[i].rule.limit != 0 && ask->verdicts[i].is_allowed)
			correct(l, &ask->windows[i], "-");
	ask->verdicts[from] = verdict;
	ask->decided = from + 1;
}

/* This host's share, for when Redis goes away; and what it gave out while Redis was away. */
static void
count_here(struct limits *l, struct limit_ask *ask)
{
	uint64_t now_ms = clock_mono_ms();

	for (size_t i = 0; i < ask->decided; i++) {
		const struct limit_window *w = &ask->windows[i];
		struct limiter_verdict v;

		if (w->rule.limit == 0 || !ask->verdicts[i].is_allowed || w->cost == 0)
			continue;
		v = limiter_take(l->shm, w->key, w->rule, w->cost, now_ms);
		if (!v.is_allowed && was_alone_within(l, w, now_ms)) {
			refuse_here(l, ask, i, v);
			return;
		}
	}
}

static void
decide(struct limit_ask *ask, const redisReply *reply)
{
	if (read_verdicts(ask, reply))
		count_here(ask->limits, ask);
	else
		take_here(ask->limits, ask);
	ask->is_waiting = false;
	ask->on_decided(ask);
}

static void
on_reply(void *arg, const redisReply *reply)
{
	decide(arg, reply);
}

/* Redis does not know the script: it was restarted, or has never been told. */
static void
on_reply_to_sha(void *arg, const redisReply *reply)
{
	struct limit_ask *ask = arg;

	if (reply != NULL && reply->type == REDIS_REPLY_ERROR &&
	    str_starts(str_of(reply->str), STR("NOSCRIPT")) &&
	    send_ask(ask->limits, ask, false, on_reply))
		return;
	decide(ask, reply);
}

/* ---- verbs ---- */

void
limits_resumed(void *limits)
{
	((struct limits *)limits)->alone_ms = clock_mono_ms();
}

bool
limits_take(struct limits *l, struct limit_ask *ask)
{
	check(ask->count <= LIMIT_WINDOWS_MAX && !ask->is_waiting);
	ask->limits = l;
	if (l->redis != NULL && redis_state(l->redis) == REDIS_UP &&
	    send_ask(l, ask, true, on_reply_to_sha)) {
		check(ask->on_decided != NULL);
		ask->is_waiting = true;
		return false;
	}
	take_here(l, ask);
	return true;
}

void
limits_cancel(struct limit_ask *ask)
{
	if (!ask->is_waiting)
		return;
	redis_forget(ask->limits->redis, ask);
	ask->is_waiting = false;
}

/* Nobody waits for it. A window was taken from before, so the script is known, most likely; what is
 * not carried out expires. */
static void
correct(struct limits *l, const struct limit_window *w, const char *sign)
{
	struct words words;

	if (l->redis == NULL || redis_state(l->redis) != REDIS_UP)
		return;
	put_window(l, &words, 0, w, sign);
	put_command(&words, STR("EVALSHA"), str_of(l->sha), 1);
	redis_command(l->redis, words.argc, words.argv, NULL, NULL);
}

static void
fill_here(struct limits *l, const struct limit_window *w)
{
	uint64_t now_ms = clock_mono_ms();
	uint32_t left = limiter_take(l->shm, w->key, w->rule, 0, now_ms).remaining;

	if (left > 0)
		limiter_take(l->shm, w->key, w->rule, w->cost < left ? w->cost : left, now_ms);
}

void
limits_fill(struct limits *l, const struct limit_window *w)
{
	if (w->rule.limit == 0 || w->cost == 0)
		return;
	fill_here(l, w);
	correct(l, w, "+");
}

void
limits_give(struct limits *l, const struct limit_window *w)
{
	if (w->rule.limit == 0 || w->cost == 0)
		return;
	limiter_give(l->shm, w->key, w->rule, w->cost, clock_mono_ms());
	correct(l, w, "-");
}

struct limits *
limits_new(struct shm *shm, struct redis *redis, const char *key_prefix)
{
	struct limits *l = xcalloc(1, sizeof(*l));
	uint8_t hash[SHA1_LEN];

	l->shm = shm;
	l->redis = redis;
	l->key_prefix = key_prefix;
	crypto_sha1(str_of(take_script), hash);
	crypto_hex(hash, sizeof(hash), l->sha);
	return l;
}

void
limits_free(struct limits **ref)
{
	free(*ref);
	*ref = NULL;
}
