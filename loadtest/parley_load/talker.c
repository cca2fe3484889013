/* talker - the answer is searched for its first token and its last event, not parsed. */
#include "loadtest/parley_load/talker.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/user.h"

void
talker_ask(struct talker *t, uint64_t began_us)
{
	struct buf body = BUF_INIT;
	const struct options *o = t->load->options;
	const char *is_streamed = o->is_plain ? "false" : "true";

	if (!t->is_direct)
		buf_printf(&body, "{\"input\":\"[[mock tokens=%u interval=%u]]\",\"stream\":%s}",
		    o->tokens, o->interval_ms, is_streamed);
	else
		buf_printf(&body,
		    "{\"model\":\"mock\",\"stream\":%s,\"messages\":[{\"role\":\"user\","
		    "\"content\":"
		    "\"[[mock tokens=%u interval=%u]]\"}]}",
		    is_streamed, o->tokens, o->interval_ms);
	t->began_us = began_us;
	t->first_us = 0;
	t->saw_last = o->is_plain;
	t->tail_len = 0;
	conn_request(t->conn, "POST", t->path, buf_str(&body));
	buf_fini(&body);
}

/* Looks for the last event also where it is cut between two pieces. */
static void
look_for_last(struct talker *t, struct str bytes)
{
	char joined[sizeof(t->tail) * 2];
	size_t n = bytes.len < sizeof(t->tail) ? bytes.len : sizeof(t->tail);
	const char *last = t->is_direct ? "[DONE]" : "turn.completed";

	memcpy(joined, t->tail, t->tail_len);
	memcpy(joined + t->tail_len, bytes.p, n);
	if (memmem(joined, t->tail_len + n, last, strlen(last)) != NULL ||
	    memmem(bytes.p, bytes.len, last, strlen(last)) != NULL)
		t->saw_last = true;
	t->tail_len = n < 32 ? n : 32;
	memcpy(t->tail, bytes.p + bytes.len - t->tail_len, t->tail_len);
}

/* The server sends an event in one piece: hardly one is cut. */
static void
count_deltas(struct talker *t, struct str bytes)
{
	static const char mark[] = "event: text.delta";
	const char *at = bytes.p, *end = bytes.p + bytes.len;

	while ((at = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1)) != NULL) {
		t->load->tally->deltas++;
		at += sizeof(mark) - 1;
	}
}

static void
on_data(void *arg, struct str bytes)
{
	struct talker *t = arg;
	bool is_plain = t->load->options->is_plain;

	/* The first token, not turn.started: that comes before the provider was asked. */
	if (t->first_us == 0 && (is_plain || memmem(bytes.p, bytes.len, "tok0", 4) != NULL))
		t->first_us = clock_mono_us();
	if (!is_plain)
		count_deltas(t, bytes);
	if (!t->saw_last && bytes.len > 0)
		look_for_last(t, bytes);
}

static void
on_session(void *arg, struct str id)
{
	struct talker *t = arg;

	if (id.len == 0) {
		load_gone(t->load);
		return;
	}
	t->turns = 0;
	snprintf(t->path, sizeof(t->path), "/v1/sessions/%.*s/turns", (int)id.len, id.p);
	t->on_ready(t, 0);
}

static void
on_done(void *arg, int status)
{
	struct talker *t = arg;
	struct load *load = t->load;
	enum outcome outcome = load_outcome(status);
	uint64_t retry_after_s = conn_retry_after_s(t->conn);

	if (outcome == LOAD_WHOLE && !t->saw_last)
		outcome = LOAD_FAILED;
	load->tally->unexplained += outcome == LOAD_REFUSED && retry_after_s == 0;
	t->turns += outcome != LOAD_REFUSED;
	load_done(load, outcome, t->began_us, t->first_us);
	if (!t->is_direct && t->turns >= load->options->turns && !load->is_closing)
		user_open_session(load, on_session, t);
	else
		t->on_ready(t, outcome == LOAD_REFUSED ? retry_after_s : 0);
}

static const struct conn_handlers handlers = {on_data, on_done};

static struct talker *
talker_new(struct load *load, void (*on_ready)(struct talker *, uint64_t))
{
	struct talker *t = xcalloc(1, sizeof(*t));

	t->load = load;
	t->on_ready = on_ready;
	t->conn = conn_new(&load->target, &handlers, t);
	return t;
}

void
talker_begin(struct load *load, void (*on_ready)(struct talker *, uint64_t), void *arg)
{
	struct talker *t = talker_new(load, on_ready);

	t->arg = arg;
	user_open_session(load, on_session, t);
}

void
talker_begin_direct(struct load *load, void (*on_ready)(struct talker *, uint64_t))
{
	struct talker *t = talker_new(load, on_ready);

	load->target.key = NULL;
	t->is_direct = true;
	snprintf(t->path, sizeof(t->path), "/v1/chat/completions");
	on_ready(t, 0);
}
