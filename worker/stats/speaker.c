/* speaker - one worker of a host speaks for it: the host's heartbeat among the instances of the
 * fleet. */
#include <inttypes.h>
#include <stdio.h>

#include "common/check.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/stats/stats_impl.h"

enum {
	FIRST_MS = 50,   /* until this worker is ready it looks so often .. */
	AGAIN_MS = 1000, /* .. and when something went wrong, unless the interval is shorter */
};

/*
 * KEYS: the registry, the lock of who adds up, the reports, the stored sums. ARGV: the host, how
 * long a report counts, how long the lock holds (ms), the longest text, then the reports from
 * " interval=" on. Answers {now, 1: add up, the stored sums ..}.
 */
static const char beat_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local kind = redis.call('TYPE', KEYS[1]).ok\n"
    "if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end\n"
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))\n"
    "redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])\n"
    "local n = #ARGV - 4\n"
    "for i = 1, n do\n"
    "  local text = string.format('v=1 at=%.0f', now) .. ARGV[4 + i]\n"
    "  redis.call('SET', KEYS[2 + i], text, 'PX', ARGV[2])\n"
    "end\n"
    "local is_mine = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[3])\n"
    "local out = {string.format('%.0f', now), is_mine and 1 or 0}\n"
    "for i = 1, n do\n"
    "  local text = redis.pcall('GETRANGE', KEYS[2 + n + i], 0, ARGV[4])\n"
    "  out[2 + i] = type(text) == 'string' and text or false\n"
    "end\n"
    "return out\n";

enum { BEAT_HEAD = 2 };

static bool
is_ready(const struct stats *s)
{
	struct shm_row_info info;

	return shm_row_get(s->shm, s->me.row, &info) && info.state == SHM_READY;
}

static bool
is_speaker(const struct stats *s)
{
	return !s->is_draining && atomic_load(shm_word(s->shm, SHM_WORD_IS_DRAINING)) == 0 &&
	       is_ready(s) && shm_is_first(s->shm, s->me);
}

static uint64_t
again_ms(const struct stats *s)
{
	return s->conf->stats.interval_ms < AGAIN_MS ? s->conf->stats.interval_ms : AGAIN_MS;
}

static void
failed(struct stats *s, const char *reason)
{
	metric_add(METRIC_STATS_REPORTS, STATS_OUTCOME_FAILED, 0, 1);
	if (!s->is_draining)
		loop_timer_set(s->loop, &s->beat, again_ms(s));
	/* That Redis is away the backplane has said. */
	if (reason != NULL && sums_may_warn(s, &s->failure_warned_ms))
		log_warn("stats not reported reason=%s", log_quote(str_of(reason)).s);
}

static void
read_stored(struct stats *s, const redisReply *reply)
{
	struct aggregate sums[REGION_COUNT];

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		struct stored stored;

		stored_take(&stored, reply->element[BEAT_HEAD + region]);
		if (stored.state != STORED_OK)
			return;
		sums[region] = stored.sums;
	}
	/* Sums that nobody has renewed are no news. */
	if (sums[0].at_ms + 2 * stats_keep_ms(s) > s->said[0].at_ms)
		sums_saw(s, sums);
}

static void
on_beaten(void *arg, const redisReply *reply)
{
	struct stats *s = arg;
	uint64_t now_ms;

	s->is_beating = false;
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
		failed(s, reply != NULL ? reply->str : NULL);
		return;
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != BEAT_HEAD + REGION_COUNT ||
	    reply->element[0]->type != REDIS_REPLY_STRING ||
	    !str_to_u64(str_of(reply->element[0]->str), &now_ms)) {
		failed(s, "not understood");
		return;
	}
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		s->said[region] = s->saying[region];
		s->said[region].at_ms = now_ms;
	}
	s->has_spoken = true;
	s->failure_warned_ms = 0;
	metric_add(METRIC_STATS_REPORTS, STATS_OUTCOME_OK, 0, 1);
	read_stored(s, reply);
	/* Also when somebody reads already. */
	if (reply->element[1]->type == REDIS_REPLY_INTEGER && reply->element[1]->integer == 1)
		s->is_adding_up = stats_collect(s);
}

enum { WORDS_MAX = 9 + 3 * REGION_COUNT };

struct words { /* of a command, with what they are made of */
	struct buf text;
	size_t at[WORDS_MAX + 1];
	struct str argv[WORDS_MAX];
	size_t argc;
};

static void
word_end(struct words *w)
{
	check(w->argc < WORDS_MAX);
	w->at[++w->argc] = w->text.len;
}

static void
put_word(struct words *w, const char *text)
{
	buf_add_cstr(&w->text, text);
	word_end(w);
}

static void
put_number(struct words *w, uint64_t n)
{
	buf_printf(&w->text, "%" PRIu64, n);
	word_end(w);
}

static void
put_keys(struct words *w, const struct stats *s, const char *of)
{
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		buf_printf(&w->text, "%sstats:%s:%s", s->conf->backplane.key_prefix, of,
		    region_name(region));
		word_end(w);
	}
}

static bool
send_words(struct stats *s, struct words *w, command_on_reply *on_reply)
{
	for (size_t i = 0; i < w->argc; i++)
		w->argv[i] = str_sub(w->text.data + w->at[i], w->at[i + 1] - w->at[i]);
	bool is_sent = redis_command(s->redis, w->argc, w->argv, on_reply, s);
	buf_fini(&w->text);
	return is_sent;
}

static void
speak(struct stats *s)
{
	struct words w = {.argc = 0};

	if (s->is_beating)
		return;
	stats_look_at_host(s, s->saying);
	put_word(&w, "EVAL");
	put_word(&w, beat_script);
	put_number(&w, 2 + 2 * REGION_COUNT);
	buf_printf(&w.text, "%sinstances", s->conf->backplane.key_prefix);
	word_end(&w);
	buf_printf(&w.text, "%sstats:aggregator", s->conf->backplane.key_prefix);
	word_end(&w);
	put_keys(&w, s, s->name);
	put_keys(&w, s, "aggregated");
	put_word(&w, s->name);
	put_number(&w, stats_keep_ms(s));
	/* A little less than the interval: who added up is not too early for the next time. */
	put_number(&w, s->conf->stats.interval_ms * 9 / 10);
	put_number(&w, REPORT_BYTES_MAX);
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		s->saying[region].was = s->said[region].counts;
		s->saying[region].was_at_ms = s->said[region].at_ms;
		report_format_rest(&s->saying[region], &w.text);
		word_end(&w);
	}
	s->is_beating = send_words(s, &w, on_beaten);
}

/* Another worker speaks now, or nobody can be spoken to. */
static void
retire(struct stats *s)
{
	if (s->has_spoken)
		sums_clear(s);
	s->has_spoken = false;
	memset(s->said, 0, sizeof(s->said));
}

/* Also when something has happened: a worker is gone, Redis is back. */
static void
look(struct stats *s)
{
	uint64_t delay_ms = s->conf->stats.interval_ms;

	if (s->is_draining)
		return;
	if (!is_ready(s)) {
		delay_ms = FIRST_MS;
	} else if (!is_speaker(s)) {
		retire(s);
	} else if (redis_state(s->redis) != REDIS_UP) {
		retire(s);
		delay_ms = again_ms(s);
	} else {
		speak(s);
	}
	loop_timer_set(s->loop, &s->beat, delay_ms);
}

static void
on_beat(struct loop_timer *timer)
{
	look(container_of(timer, struct stats, beat));
}

static void
on_gone(void *arg, struct backplane_addr addr)
{
	struct stats *s = arg;

	if (addr.host == shm_host_id(s->shm) && !s->has_spoken)
		look(s);
}

static void
on_resumed(void *arg)
{
	look(arg);
}

/* ---- life ---- */

/* Who looks now need not wait until it has expired. */
static void
sign_off(struct stats *s)
{
	struct words rem = {.argc = 0}, del = {.argc = 0};

	put_word(&rem, "ZREM");
	buf_printf(&rem.text, "%sinstances", s->conf->backplane.key_prefix);
	word_end(&rem);
	put_word(&rem, s->name);
	send_words(s, &rem, NULL);
	put_word(&del, "DEL");
	put_keys(&del, s, s->name);
	send_words(s, &del, NULL);
}

void
speaker_drain(struct stats *s)
{
	if (s->redis == NULL || s->is_draining)
		return;
	/* Another worker speaks within the interval: until then what is said now counts. */
	if (is_speaker(s) && redis_state(s->redis) == REDIS_UP)
		speak(s);
	s->is_draining = true;
	loop_timer_stop(s->loop, &s->beat);
	if (atomic_load(shm_word(s->shm, SHM_WORD_IS_DRAINING)) != 0)
		sign_off(s);
}

void
speaker_init(struct stats *s, struct backplane *backplane)
{
	s->beat.on_fire = on_beat;
	if (s->redis == NULL)
		return;
	backplane_on_peer_gone(backplane, on_gone, s);
	backplane_on_resumed(backplane, on_resumed, s);
	loop_timer_set(s->loop, &s->beat, FIRST_MS);
}

void
speaker_fini(struct stats *s)
{
	s->is_draining = true;
	loop_timer_stop(s->loop, &s->beat);
}
