/*
 * followers - many streams of one turn. All gather while it waits for a tool,
 * then it is let go. An operation is a follower who has every event in order to
 * the last; `spread` is how much later each delta came than to the one who had
 * it first. When all are through, they gather for the next turn.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/stage.h"

struct follower {
	struct load *load;
	struct conn *conn;
	struct event_reader reader;
	uint64_t seq, began_us, first_us;
	bool is_here, is_in_order, saw_last;
};

enum { SEEN_MAX = 16384 };

static struct stage stage;
static struct follower **followers;
static uint32_t begun;
static uint32_t here, through;           /* of this round: attached or given up, and ended */
static uint64_t first_seen_us[SEEN_MAX]; /* by sequence number */

static void gather(struct load *);

static void
come(struct follower *f)
{
	if (f->is_here)
		return;
	f->is_here = true;
	if (++here == f->load->users)
		stage_let_go(&stage);
}

/* For this round, or for good: then nobody goes on. */
static void
leave(struct follower *f)
{
	if (++through == f->load->users && !f->load->is_closing && !stage.is_up)
		gather(f->load);
}

static void
on_over(void *arg, int status)
{
	struct load *load = arg;

	(void)status;
	if (through == load->users && !load->is_closing)
		gather(load);
}

static void
take_event(struct follower *f, const struct seen_event *event)
{
	uint64_t now_us = clock_mono_us();

	f->is_in_order &= event->seq == f->seq + 1;
	f->seq = event->seq;
	f->saw_last |= str_eq(event->name, STR("turn.completed"));
	if (!str_eq(event->name, STR("text.delta")))
		return;
	f->load->tally->deltas++;
	if (f->first_us == 0)
		f->first_us = now_us;
	if (event->seq >= SEEN_MAX)
		return;
	if (first_seen_us[event->seq] == 0)
		first_seen_us[event->seq] = now_us;
	else
		latency_add(&f->load->tally->spread, now_us - first_seen_us[event->seq]);
}

static void
on_data(void *arg, struct str bytes)
{
	struct follower *f = arg;
	struct seen_event event;

	if (conn_status(f->conn) != 200)
		return;
	while (event_reader_next(&f->reader, &bytes, &event))
		take_event(f, &event);
	come(f);
}

static void
on_done(void *arg, int status)
{
	struct follower *f = arg;
	enum outcome outcome = load_outcome(status);

	if (outcome == LOAD_WHOLE && (!f->saw_last || !f->is_in_order))
		outcome = LOAD_FAILED;
	load_done(f->load, outcome, f->began_us, 0);
	come(f);
	leave(f);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
attach(struct follower *f)
{
	f->reader = (struct event_reader){0};
	f->seq = f->first_us = 0;
	f->is_here = f->saw_last = false;
	f->is_in_order = true;
	if (!load_next(f->load)) {
		come(f);
		leave(f);
		return;
	}
	f->began_us = clock_mono_us();
	conn_follow(f->conn, stage.path, NULL);
}

static void
on_up(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; i < begun; i++)
		attach(followers[i]);
}

static const struct stage_handlers stage_handlers = {on_up, on_over};

static void
gather(struct load *load)
{
	here = through = 0;
	memset(first_seen_us, 0, sizeof(first_seen_us));
	stage_open(&stage, load, &stage_handlers, load);
}

static void
start(struct load *load)
{
	followers = xcalloc(load->users, sizeof(struct follower *));
	gather(load);
}

static void
begin(struct load *load, uint32_t user)
{
	struct follower *f = xcalloc(1, sizeof(*f));

	f->load = load;
	f->conn = conn_new(&load->target, &handlers, f);
	check(user == begun);
	followers[begun++] = f;
	if (stage.is_up)
		attach(f);
}

const struct scenario scenario_followers = {.name = "followers",
    .help = "many event streams of one turn, which all begin together",
    .begin = begin,
    .start = start};
