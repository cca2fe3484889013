/* ws_turn - frames in, a state of three flags and a sequence number. */
#include "loadtest/parley_load/ws_turn.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/chat_frame.h"

enum { COMPLAINTS_MAX = 3 };

static const char tool[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\"}}],";

static void
begin(struct ws_turn *t)
{
	char session[WS_TURN_ID_MAX];

	check(!t->is_live);
	memcpy(session, t->session, sizeof(session));
	*t = (struct ws_turn){.is_live = true, .began_us = clock_mono_us()};
	memcpy(t->session, session, sizeof(session));
}

static void
say(struct wsock *w, const struct buf *text)
{
	wsock_say(w, buf_str(text));
}

static void
ask(struct ws_turn *t, struct wsock *w, const char *key)
{
	const struct options *o = w->load->options;
	bool has_tool = (double)random() < o->tools * RAND_MAX;
	struct buf text = BUF_INIT;

	begin(t);
	buf_printf(&text,
	    "{\"action\":\"chat\",\"request_id\":\"r\",\"payload\":{%s\"streaming\":%s,"
	    "\"text\":\"[[mock %stokens=%u interval=%u]]\"",
	    has_tool ? tool : "", o->is_plain ? "false" : "true", has_tool ? "tool=a args={} " : "",
	    o->tokens, o->interval_ms);
	if (key != NULL)
		buf_printf(
		    &text, ",\"idempotency_key\":\"%s\",\"session_id\":\"%s\"", key, t->session);
	buf_add_cstr(&text, "}}");
	say(w, &text);
	buf_fini(&text);
}

void
ws_turn_ask(struct ws_turn *t, struct wsock *w)
{
	ask(t, w, NULL);
}

void
ws_turn_ask_as(struct ws_turn *t, struct wsock *w, const char *key)
{
	ask(t, w, key);
}

void
ws_turn_ask_long(struct ws_turn *t, struct wsock *w, uint32_t tokens)
{
	struct buf text = BUF_INIT;

	begin(t);
	buf_printf(&text,
	    "{\"action\":\"chat\",\"request_id\":\"r\",\"payload\":{\"text\":\"[[mock "
	    "tokens=%u]]\"}}",
	    tokens);
	say(w, &text);
	buf_fini(&text);
}

bool
ws_turn_resume(struct ws_turn *t, struct wsock *w)
{
	struct buf text = BUF_INIT;

	if (t->session[0] == '\0' || t->turn[0] == '\0')
		return false;
	buf_printf(&text,
	    "{\"action\":\"resume\",\"request_id\":\"r\",\"payload\":{\"session_id\":\"%s\","
	    "\"turn_id\":\"%s\",\"after\":%llu}}",
	    t->session, t->turn, (unsigned long long)t->seq);
	say(w, &text);
	buf_fini(&text);
	return true;
}

static void
answer_tool(struct ws_turn *t, struct wsock *w, struct str frame)
{
	struct str call = chat_frame_text(frame, "tool_call_id");
	struct buf text = BUF_INIT;

	buf_printf(&text,
	    "{\"action\":\"tool_result\",\"request_id\":\"t\",\"payload\":{\"tool_call_id\":"
	    "\"%.*s\",\"output\":\"done\"}}",
	    (int)call.len, call.p);
	say(w, &text);
	buf_fini(&text);
	t->result_us = clock_mono_us();
}

static void
keep(char to[WS_TURN_ID_MAX], struct str id)
{
	if (id.len == 0 || id.len >= WS_TURN_ID_MAX)
		return;
	memcpy(to, id.p, id.len);
	to[id.len] = '\0';
}

/* Usage has a number and no frame; it stands before the last event. Who is not streamed to has no
 * deltas, and a snapshot stands for all before it. */
static bool
may_skip(const struct wsock *w, struct str frame, uint64_t skipped, bool is_last)
{
	return (is_last && skipped == 1) || w->load->options->is_plain ||
	       str_eq(chat_frame_text(frame, "type"), STR("snapshot"));
}

/* What stands for the pause that a reader sees. */
static void
note_time(struct ws_turn *t, struct wsock *w)
{
	uint64_t now_us = clock_mono_us();

	if (t->last_us != 0)
		latency_add(&w->load->tally->gap, now_us - t->last_us);
	t->last_us = now_us;
}

static void
check_order(struct ws_turn *t, struct wsock *w, struct str frame, bool is_last)
{
	uint64_t seq = chat_frame_number(frame, "seq");

	if (seq == 0 || seq == t->seq + 1) {
		t->seq += seq != 0;
		return;
	}
	if (seq <= t->seq) {
		w->load->tally->doubled++;
		t->is_broken = true;
		return;
	}
	uint64_t skipped = seq - t->seq - 1;
	if (!may_skip(w, frame, skipped, is_last)) {
		w->load->tally->lost += skipped;
		t->is_broken = true;
	}
	t->seq = seq;
}

static bool
is_refusal(struct str code)
{
	return str_eq(code, STR("server_at_capacity")) || str_eq(code, STR("draining")) ||
	       str_eq(code, STR("busy"));
}

bool
ws_turn_may_resume(struct str message)
{
	struct str code = chat_frame_text(message, "code");

	return is_refusal(code) || str_eq(code, STR("rate_limited")) ||
	       str_eq(code, STR("owner_unavailable")) || str_eq(code, STR("store_unavailable"));
}

/* The first few: who looks wants to know why. */
static void
complain(struct str frame)
{
	static int told;
	struct str code = chat_frame_text(frame, "code"), text = chat_frame_text(frame, "error");

	if (told++ < COMPLAINTS_MAX)
		fprintf(stderr, "parley_load: a turn failed, %.*s: %.*s\n", (int)code.len, code.p,
		    (int)text.len, text.p);
}

static enum ws_turn_said
end(struct ws_turn *t, enum ws_turn_said said)
{
	t->is_live = false;
	return said;
}

static void
on_chunk(struct ws_turn *t, struct wsock *w, struct str frame)
{
	uint64_t now_us = clock_mono_us();
	bool is_text = str_eq(chat_frame_text(frame, "type"), STR("text"));

	w->load->tally->deltas += is_text;
	if (is_text && t->first_us == 0)
		t->first_us = now_us;
	if (t->result_us != 0)
		latency_add(&w->load->tally->tool, now_us - t->result_us);
	t->result_us = 0;
}

enum ws_turn_said
ws_turn_take(struct ws_turn *t, struct wsock *w, struct str frame)
{
	enum chat_status status = chat_frame_status(frame);

	if (!t->is_live)
		return WS_TURN_GOES_ON;
	check_order(t, w, frame, status == CHAT_COMPLETE || status == CHAT_ERROR);
	note_time(t, w);
	switch (status) {
	case CHAT_PROCESSING:
		keep(t->session, chat_frame_text(frame, "session_id"));
		keep(t->turn, chat_frame_text(frame, "turn_id"));
		return WS_TURN_GOES_ON;
	case CHAT_CHUNK:
		on_chunk(t, w, frame);
		return WS_TURN_GOES_ON;
	case CHAT_TOOL_CALL:
		answer_tool(t, w, frame);
		return WS_TURN_GOES_ON;
	case CHAT_COMPLETE:
		return end(t, t->is_broken ? WS_TURN_FAILED : WS_TURN_WHOLE);
	case CHAT_ERROR:
		t->retry_after_s = chat_frame_number(frame, "retry_after");
		if (is_refusal(chat_frame_text(frame, "code")))
			return end(t, WS_TURN_REFUSED);
		complain(frame);
		return end(t, WS_TURN_FAILED);
	case CHAT_RESTARTED:
	case CHAT_JOINED:
	case CHAT_PONG:
	case CHAT_OTHER:
		break;
	}
	return WS_TURN_GOES_ON;
}

enum outcome
ws_turn_outcome(enum ws_turn_said said)
{
	return said == WS_TURN_WHOLE     ? LOAD_WHOLE
	       : said == WS_TURN_REFUSED ? LOAD_REFUSED
					 : LOAD_FAILED;
}
