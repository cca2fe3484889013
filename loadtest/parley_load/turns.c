/*
 * turns - conversations, one turn after the other; and the same questions asked
 * of the provider directly, for comparison.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/user.h"

struct talker {
	struct load *load;
	struct conn *conn;
	char path[128];
	uint32_t turns; /* asked in this session */
	uint64_t began_us, first_us;
	char tail[64]; /* the end of what came, to find the last event */
	size_t tail_len;
	const char *last; /* what a whole stream holds near its end */
	bool saw_last;
};

static void
ask(struct talker *t)
{
	struct buf body = BUF_INIT;
	struct load *load = t->load;
	const char *is_streamed = load->is_streamed ? "true" : "false";

	if (!load_next(load))
		return;
	t->turns++;
	if (t->load->target.key != NULL)
		buf_printf(&body, "{\"input\":\"[[mock tokens=%u interval=%u]]\",\"stream\":%s}",
		    load->tokens, load->interval_ms, is_streamed);
	else
		buf_printf(&body,
		    "{\"model\":\"mock\",\"stream\":%s,\"messages\":[{\"role\":\"user\","
		    "\"content\":"
		    "\"[[mock tokens=%u interval=%u]]\"}]}",
		    is_streamed, load->tokens, load->interval_ms);
	t->began_us = clock_mono_us();
	t->first_us = 0;
	t->saw_last = !load->is_streamed;
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

	memcpy(joined, t->tail, t->tail_len);
	memcpy(joined + t->tail_len, bytes.p, n);
	if (memmem(joined, t->tail_len + n, t->last, strlen(t->last)) != NULL ||
	    memmem(bytes.p, bytes.len, t->last, strlen(t->last)) != NULL)
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
		t->load->deltas++;
		at += sizeof(mark) - 1;
	}
}

static void
on_data(void *arg, struct str bytes)
{
	struct talker *t = arg;

	/* The first token, not turn.started: that comes before the provider was asked. */
	if (t->first_us == 0 &&
	    (!t->load->is_streamed || memmem(bytes.p, bytes.len, "tok0", 4) != NULL))
		t->first_us = clock_mono_us();
	if (t->load->is_streamed)
		count_deltas(t, bytes);
	if (!t->saw_last && bytes.len > 0)
		look_for_last(t, bytes);
}

static void on_session(void *arg, struct str id);

/* A conversation ends after so many turns, and another one begins. */
static void
on_done(void *arg, int status)
{
	struct talker *t = arg;
	struct load *load = t->load;

	load_done(load, status == 200 && t->saw_last, t->began_us, t->first_us);
	if (load->target.key != NULL && t->turns >= load->turns && load->started < load->goal)
		user_open_session(load, on_session, t);
	else
		ask(t);
}

static const struct conn_handlers handlers = {on_data, on_done};

static struct talker *
talker_new(struct load *load, const char *last)
{
	struct talker *t = xcalloc(1, sizeof(*t));

	t->load = load;
	t->last = last;
	t->conn = conn_new(&load->target, &handlers, t);
	return t;
}

static void
on_session(void *arg, struct str id)
{
	struct talker *t = arg;

	check(id.len > 0);
	t->turns = 0;
	snprintf(t->path, sizeof(t->path), "/v1/sessions/%.*s/turns", (int)id.len, id.p);
	ask(t);
}

static void
start_turns(struct load *load)
{
	for (uint32_t i = 0; i < load->users; i++)
		user_open_session(load, on_session, talker_new(load, "turn.completed"));
}

static void
start_direct(struct load *load)
{
	load->target.key = NULL;
	for (uint32_t i = 0; i < load->users; i++) {
		struct talker *t = talker_new(load, "[DONE]");

		snprintf(t->path, sizeof(t->path), "/v1/chat/completions");
		ask(t);
	}
}

const struct scenario scenario_turns = {"turns", "conversations, turn after turn", start_turns};
const struct scenario scenario_direct = {
    "direct", "the same questions to the mock itself", start_direct};
