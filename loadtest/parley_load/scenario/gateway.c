/*
 * gateway - chat completions, one after the other on kept connections, by way of whatever speaks
 * OpenAI's dialect: Parley, another gateway, the mock itself.
 *
 * The answers are stamped by the mock (answer.h), so that what the way through the gateway took is
 * known for each of them and for each event, whatever the pace of the answer is.
 */
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/load.h"

enum { STAMP_BYTES = 48, TAIL_BYTES = 16 }; /* @ASKED:GIVEN; and more than [DONE] with its end */

struct asker {
	struct load *load;
	struct conn *conn;
	uint64_t began_us, first_us;
	bool is_stamped; /* the first stamp was seen */
	struct event_reader reader;
	uint64_t events;
	char tail[TAIL_BYTES]; /* of the stream */
	size_t tail_len;
};

static uint32_t
first_ms(const struct options *o)
{
	return (uint32_t)(o->first_ms * (0.5 + (double)random() / RAND_MAX));
}

static void
ask(struct asker *a)
{
	const struct options *o = a->load->options;
	struct buf body = BUF_INIT;

	if (!load_next(a->load))
		return;
	buf_printf(&body,
	    "{\"model\":\"%s\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":"
	    "\"[[mock stamped tokens=%u interval=%u burst=%u first=%u]]\"}]}",
	    o->model, o->is_plain ? "false" : "true", o->tokens, o->is_plain ? 0 : o->interval_ms,
	    o->burst, first_ms(o));
	a->first_us = 0;
	a->is_stamped = false;
	a->reader = (struct event_reader){0};
	a->events = 0;
	a->tail_len = 0;
	a->began_us = clock_mono_us();
	conn_request(a->conn, "POST", "/v1/chat/completions", buf_str(&body));
	buf_fini(&body);
}

/* One that is cut between two pieces is left out. */
static bool
parse_stamp(struct str text, uint64_t *ret_asked_us, uint64_t *ret_given_us)
{
	const char *end = memchr(text.p, ';', text.len < STAMP_BYTES ? text.len : STAMP_BYTES);

	if (end == NULL)
		return false;
	struct str given = str_sub(text.p, (size_t)(end - text.p)), asked = str_split(&given, ':');
	return str_to_u64(asked, ret_asked_us) && str_to_u64(given, ret_given_us);
}

static void
take_stamps(struct asker *a, struct str bytes, uint64_t now_us)
{
	const char *at = bytes.p, *end = bytes.p + bytes.len;
	uint64_t asked_us, given_us;

	while ((at = memchr(at, '@', (size_t)(end - at))) != NULL) {
		at++;
		if (!parse_stamp(str_sub(at, (size_t)(end - at)), &asked_us, &given_us))
			continue;
		if (!a->is_stamped)
			latency_add(
			    &a->load->tally->added, now_us - a->began_us - (given_us - asked_us));
		if (!a->load->options->is_plain)
			latency_add(&a->load->tally->chunk, now_us - given_us);
		a->is_stamped = true;
	}
}

static void
keep_tail(struct asker *a, struct str bytes)
{
	size_t n = bytes.len < TAIL_BYTES ? bytes.len : TAIL_BYTES, keep = TAIL_BYTES - n;

	if (keep > a->tail_len)
		keep = a->tail_len;
	memmove(a->tail, a->tail + a->tail_len - keep, keep);
	memcpy(a->tail + keep, bytes.p + bytes.len - n, n);
	a->tail_len = keep + n;
}

static void
on_data(void *arg, struct str bytes)
{
	struct asker *a = arg;
	struct seen_event event;
	uint64_t now_us = clock_mono_us();

	if (bytes.len == 0)
		return;
	if (a->first_us == 0)
		a->first_us = now_us;
	take_stamps(a, bytes, now_us);
	if (a->load->options->is_plain)
		return;
	keep_tail(a, bytes);
	while (event_reader_next(&a->reader, &bytes, &event))
		a->events++;
}

/* Every token had its event, and the last one came. */
static bool
is_whole(const struct asker *a)
{
	return a->load->options->is_plain || (a->events > a->load->options->tokens &&
						 memmem(a->tail, a->tail_len, "[DONE]", 6) != NULL);
}

static void
ask_again(void *arg)
{
	ask(arg);
}

static void
on_done(void *arg, int status)
{
	struct asker *a = arg;
	struct load *load = a->load;
	enum outcome outcome = load_outcome(status);
	uint64_t retry_after_s = conn_retry_after_s(a->conn);

	if (outcome == LOAD_WHOLE && !is_whole(a))
		outcome = LOAD_FAILED;
	load->tally->chunks += a->events;
	load->tally->unexplained += outcome == LOAD_REFUSED && retry_after_s == 0;
	load_done(load, outcome, a->began_us, a->first_us);
	if (outcome == LOAD_REFUSED)
		load_after(load, (retry_after_s > 0 ? retry_after_s : 1) * 1000, ask_again, a);
	else
		ask(a);
}

static const struct conn_handlers handlers = {on_data, on_done};

static void
begin(struct load *load, uint32_t user)
{
	struct asker *a = xcalloc(1, sizeof(*a));

	(void)user;
	a->load = load;
	a->conn = conn_new(&load->target, &handlers, a);
	ask(a);
}

const struct scenario scenario_gateway = {
    .name = "gateway", .help = "chat completions by way of a gateway", .begin = begin};
