/*
 * slow_readers - every other user asks for a long answer and hardly reads it;
 * the rest converse as in `chat` and are what is measured.
 *
 * A slow reader takes SLOW_BYTES_PER_S for --stall seconds, then reads what there
 * is: the whole answer, or one that the server has cut (`cut`). Neither is an
 * operation: what matters is that the others do not feel it and that the server
 * does not grow.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/user.h"

enum { SLOW_BYTES_PER_S = 256, LONG_ANSWER_TOKENS = 20000 };

struct reader {
	struct load *load;
	struct conn *conn;
	struct event_reader events;
	char session[USER_SESSION_MAX];
	uint64_t round; /* which of its answers this is */
	bool is_slow, saw_last;
};

struct wakening {
	struct reader *reader;
	uint64_t round;
};

static void
wake(void *arg)
{
	struct wakening *w = arg;

	if (w->round == w->reader->round && w->reader->is_slow) {
		w->reader->is_slow = false;
		conn_slow(w->reader->conn, 0);
	}
	free(w);
}

static void
ask(void *arg)
{
	struct reader *r = arg;
	struct wakening *w = xmalloc(sizeof(*w));
	struct buf body = BUF_INIT;
	char path[128];

	if (r->load->is_closing) {
		free(w);
		return;
	}
	*w = (struct wakening){r, ++r->round};
	r->is_slow = true;
	r->saw_last = false;
	r->events = (struct event_reader){0};
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", r->session);
	buf_printf(&body, "{\"input\":\"[[mock tokens=%d]]\",\"stream\":true}", LONG_ANSWER_TOKENS);
	conn_close(r->conn);
	conn_slow(r->conn, SLOW_BYTES_PER_S);
	conn_request(r->conn, "POST", path, buf_str(&body));
	load_after(r->load, 1000 * (uint64_t)r->load->options->stall_s, wake, w);
	buf_fini(&body);
}

static void
on_data(void *arg, struct str bytes)
{
	struct reader *r = arg;
	struct seen_event event;

	while (event_reader_next(&r->events, &bytes, &event))
		r->saw_last |= str_eq(event.name, STR("turn.completed"));
}

/* Anew in a second: the turn itself may still be on. */
static void
on_done(void *arg, int status)
{
	struct reader *r = arg;

	r->is_slow = false;
	r->load->tally->cut += (status == 0 || status == 200) && !r->saw_last;
	load_after(r->load, 1000 * (1 + conn_retry_after_s(r->conn)), ask, r);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
on_session(void *arg, struct str id)
{
	struct reader *r = arg;

	if (user_keep_session(r->load, id, r->session))
		ask(r);
}

static void
begin(struct load *load, uint32_t user)
{
	if (user % 2 == 0) {
		scenario_chat.begin(load, user);
		return;
	}
	struct reader *r = xcalloc(1, sizeof(*r));

	r->load = load;
	r->conn = conn_new(&load->target, &handlers, r);
	user_open_session(load, on_session, r);
}

const struct scenario scenario_slow_readers = {.name = "slow-readers",
    .help = "chat beside as many who hardly read their long answers",
    .begin = begin};
