/* redis - see redis.h. */
#include "worker/backplane/redis.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "common/log.h"
#include "worker/backplane/reconnect.h"
#include "worker/backplane/redis_io.h"

/* FAREWELL_MS: what a Redis that hangs may cost the end of a worker. */
enum { PROBE_MS = 1000, FAREWELL_MS = 100 };

struct redis {
	struct loop *loop;
	const struct conf_backplane *conf;
	struct redis_url url;
	struct ssl_ctx_st *tls;
	const struct redis_handlers *handlers;
	void *arg;
	struct redis_link *commands, *inbox;
	enum redis_state state;
	bool is_ending; /* one of the two is, and takes the other with it */
	struct reconnect reconnect;
	struct loop_timer again, probe;
	char reason[200];
};

static void
enter(struct redis *r, enum redis_state state)
{
	enum redis_state was = r->state;

	if (was == state && state != REDIS_AWAY)
		return;
	r->state = state;
	if (state == REDIS_UP)
		r->reason[0] = '\0';
	r->handlers->on_state(r->arg, was, state, r->reason);
}

/* ---- the two links ---- */

static void
on_up(void *arg)
{
	struct redis *r = arg;

	if (!redis_link_is_up(r->commands) || !redis_link_is_up(r->inbox))
		return;
	reconnect_up(&r->reconnect, loop_now_ms(r->loop));
	enter(r, REDIS_UP);
}

static void
on_down(void *arg, const char *reason)
{
	struct redis *r = arg;
	uint64_t random;

	if (r->is_ending)
		return;
	r->is_ending = true;
	snprintf(r->reason, sizeof(r->reason), "%s", reason);
	redis_link_fail(r->commands, r->reason);
	redis_link_fail(r->inbox, r->reason);
	r->is_ending = false;
	loop_timer_stop(r->loop, &r->probe);
	crypto_random(&random, sizeof(random));
	loop_timer_set(
	    r->loop, &r->again, reconnect_delay_ms(&r->reconnect, loop_now_ms(r->loop), random));
	enter(r, REDIS_AWAY);
}

static void
on_again(struct loop_timer *timer)
{
	struct redis *r = container_of(timer, struct redis, again);

	redis_link_start(r->inbox);
	/* Connecting to a Unix socket may have failed already. */
	if (!loop_timer_is_set(timer))
		redis_link_start(r->commands);
}

/* ---- refusals ---- */

static void
on_probed(void *arg, const redisReply *reply)
{
	struct redis *r = arg;

	if (reply != NULL && reply->type != REDIS_REPLY_ERROR && r->state == REDIS_FULL) {
		loop_timer_stop(r->loop, &r->probe);
		enter(r, REDIS_UP);
	}
}

static void
on_probe(struct loop_timer *timer)
{
	struct redis *r = container_of(timer, struct redis, probe);
	struct buf key = BUF_INIT;

	buf_printf(&key, "%sprobe", r->conf->key_prefix);
	const struct str argv[] = {STR("SET"), buf_str(&key), STR("1"), STR("PX"), STR("1000")};
	redis_command(r, ARRAY_LEN(argv), argv, on_probed, r);
	buf_fini(&key);
	loop_timer_set(r->loop, timer, PROBE_MS);
}

static bool
begins(const char *text, const char *code)
{
	return str_starts(str_of(text), str_of(code));
}

static void
on_error(void *arg, const char *text)
{
	struct redis *r = arg;

	if (r->is_ending)
		return;
	if (begins(text, "READONLY") || begins(text, "LOADING") || begins(text, "MASTERDOWN") ||
	    begins(text, "NOAUTH")) {
		redis_link_fail(r->commands, text); /* another one is behind the name by now */
	} else if (r->state == REDIS_UP &&
		   (begins(text, "OOM") || begins(text, "MISCONF") || begins(text, "NOPERM") ||
		       begins(text, "NOREPLICAS"))) {
		snprintf(r->reason, sizeof(r->reason), "%s", text);
		loop_timer_set(r->loop, &r->probe, PROBE_MS);
		enter(r, REDIS_FULL);
	}
}

static void
on_inbox_message(void *arg, struct str payload)
{
	struct redis *r = arg;

	if (r->state != REDIS_AWAY)
		r->handlers->on_message(r->arg, payload);
}

/* ---- verbs ---- */

enum redis_state
redis_state(const struct redis *r)
{
	return r->state;
}

const char *
redis_reason(const struct redis *r)
{
	return r->reason;
}

bool
redis_command(
    struct redis *r, size_t argc, const struct str *argv, command_on_reply *on_reply, void *arg)
{
	return r->state != REDIS_AWAY && redis_link_command(r->commands, argc, argv, on_reply, arg);
}

void
redis_forget(struct redis *r, const void *arg)
{
	redis_link_forget(r->commands, arg);
}

/* ---- life ---- */

static bool
read_conf(struct redis *r)
{
	const char *wrong = redis_url_parse(str_of(r->conf->url), &r->url);

	if (wrong == NULL && r->url.is_tls)
		r->tls = redis_io_tls_new(r->conf->ca_file, &wrong);
	if (wrong != NULL)
		log_error("backplane not usable reason=%s", log_quote(str_of(wrong)).s);
	return wrong == NULL;
}

struct redis *
redis_new(struct loop *loop, const struct conf_backplane *conf, const char *own_channel,
    const char *channel_of_all, const struct redis_handlers *handlers, void *arg)
{
	static const struct redis_link_handlers link_handlers = {
	    on_up, on_down, on_inbox_message, on_error};
	struct redis *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->conf = conf;
	r->handlers = handlers;
	r->arg = arg;
	if (!read_conf(r)) {
		free(r);
		return NULL;
	}
	struct redis_link_conf link = {.url = &r->url,
	    .tls = r->tls,
	    .connect_timeout_ms = conf->connect_timeout_ms,
	    .command_timeout_ms = conf->command_timeout_ms,
	    .max_commands = (size_t)conf->max_commands,
	    .max_bytes = conf->max_queue_bytes};
	r->commands = redis_link_new(loop, &link, &link_handlers, r);
	link.channels[0] = own_channel;
	link.channels[1] = channel_of_all;
	r->inbox = redis_link_new(loop, &link, &link_handlers, r);
	r->again.on_fire = on_again;
	r->probe.on_fire = on_probe;
	loop_timer_set(loop, &r->again, 0);
	return r;
}

void
redis_say_last(struct redis *r)
{
	r->is_ending = true;
	redis_link_settle(r->commands, FAREWELL_MS);
}

void
redis_free(struct redis **ref)
{
	struct redis *r = *ref;

	if (r == NULL)
		return;
	*ref = NULL;
	redis_say_last(r);
	redis_link_free(&r->commands);
	redis_link_free(&r->inbox);
	redis_io_tls_free(&r->tls);
	loop_timer_stop(r->loop, &r->again);
	loop_timer_stop(r->loop, &r->probe);
	free(r);
}
