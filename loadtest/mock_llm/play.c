/* play - the pace of an answer, and its faults. */
#include "loadtest/mock_llm/play.h"

#include <event2/event_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/mock_llm/messages.h"

enum {
	PENDING_BYTES_MAX = 256 << 10,
	SLOW_FIRST_MS = 2000,
	COMMENT_MS = 100,
	CUT_DELAY_MS = 30, /* so that what was sent has been read: a reset throws away the rest */
};

enum phase { PHASE_WAIT, PHASE_DELTAS, PHASE_COMMENTS, PHASE_DRIP, PHASE_CUT, PHASE_STALL };

struct play {
	struct control *control;
	struct conn *conn;
	struct plan plan;
	struct answer answer;
	struct event timer;
	enum phase phase;
	bool is_streamed;
	bool includes_usage;
	bool is_messages;
	struct messages messages;
	const char *nl;
	uint64_t due_us, comments_until_us;
	uint32_t deltas; /* given so far */
	bool had_fault;
	struct buf open, out, delta; /* an event up to its delta; scratch */
	struct buf drip;
	size_t drip_at;
};

static void on_timer(evutil_socket_t, short, void *);

/* ---- life ---- */

static void
play_free(struct play *p, bool is_aborted)
{
	event_del(&p->timer);
	control_end(p->control, p->is_streamed, is_aborted);
	answer_fini(&p->answer);
	plan_fini(&p->plan);
	buf_fini(&p->open);
	buf_fini(&p->out);
	buf_fini(&p->delta);
	buf_fini(&p->drip);
	free(p);
}

static void
play_end(struct play *p)
{
	struct conn *conn = p->conn;

	play_free(p, false);
	conn_finish(conn);
}

static void
on_gone(void *arg)
{
	play_free(arg, true);
}

static void
play_wait_us(struct play *p, uint64_t us)
{
	struct timeval tv = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (long)(us % 1000000)};

	evtimer_add(&p->timer, &tv);
}

/* ---- events ---- */

static void
play_send(struct play *p, struct str bytes)
{
	if (p->plan.fault == FAULT_DRIP)
		buf_add_str(&p->drip, bytes);
	else
		conn_chunk(p->conn, bytes);
}

/* finish is a JSON value: null or "stop". */
static void
play_event(struct play *p, struct str delta, const char *finish)
{
	buf_clear(&p->out);
	if (p->is_messages) {
		if (strcmp(finish, "null") == 0)
			messages_delta(&p->messages, delta, &p->out);
		else
			messages_finish(&p->messages, &p->out);
		play_send(p, buf_str(&p->out));
		return;
	}
	if (p->plan.fault == FAULT_CRLF)
		buf_add_cstr(&p->out, ": comment\r\n\r\n");
	buf_add_str(&p->out, buf_str(&p->open));
	buf_add_str(&p->out, delta);
	buf_printf(&p->out, ",\"finish_reason\":%s}]%s}%s%s", finish,
	    p->includes_usage ? ",\"usage\":null" : "", p->nl, p->nl);
	play_send(p, buf_str(&p->out));
}

static void
play_data(struct play *p, const char *data)
{
	buf_clear(&p->out);
	if (p->is_messages && strcmp(data, "[DONE]") == 0)
		messages_stop(&p->out);
	else if (p->is_messages && strncmp(data, "{\"error\"", 8) == 0)
		messages_error("mock fault error_event", &p->out);
	else
		buf_printf(&p->out, "data: %s%s%s", data, p->nl, p->nl);
	play_send(p, buf_str(&p->out));
}

static void
make_open(struct play *p, const json_t *request, const char *object)
{
	static uint64_t serial;
	struct str model = str_of(json_string_value(json_object_get(request, "model")));

	buf_printf(&p->open,
	    "{\"id\":\"chatcmpl-mock-%ju\",\"object\":\"%s\",\"created\":%jd,\"model\":\"",
	    (uintmax_t)++serial, object, (intmax_t)time(NULL));
	buf_add_json_escaped(&p->open, model);
	buf_add_cstr(&p->open, "\",");
}

static void
play_finish_event(struct play *p)
{
	char finish[64];

	snprintf(finish, sizeof(finish), "\"%.40s\"", answer_finish(&p->answer));
	play_event(p, STR("{}"), finish);
}

static void
play_usage_event(struct play *p)
{
	buf_clear(&p->out);
	buf_add_cstr(&p->out, "data: ");
	/* The open part without "data: " and without the choice that it begins. */
	const char *choices = strstr(p->open.data, "\"choices\":");
	buf_add(&p->out, p->open.data + 6, (size_t)(choices - p->open.data) - 6);
	buf_add_cstr(&p->out, "\"choices\":[],\"usage\":");
	answer_usage(&p->answer, &p->out);
	buf_printf(&p->out, "}%s%s", p->nl, p->nl);
	play_send(p, buf_str(&p->out));
}

static void
play_cut(struct play *p, enum phase phase)
{
	p->phase = phase;
	if (phase == PHASE_CUT)
		play_wait_us(p, CUT_DELAY_MS * 1000);
}

static void
play_tail(struct play *p)
{
	if (p->plan.fault != FAULT_NO_FINISH)
		play_finish_event(p);
	if (p->plan.fault == FAULT_DUPLICATE_FINISH)
		play_finish_event(p);
	if (p->plan.fault == FAULT_FINISH_CUT) {
		play_cut(p, PHASE_CUT);
		return;
	}
	if (p->includes_usage && !p->plan.hides_usage)
		play_usage_event(p);
	if (p->plan.fault != FAULT_NO_DONE)
		play_data(p, "[DONE]");
	if (p->plan.fault == FAULT_DRIP) {
		p->phase = PHASE_DRIP;
		play_wait_us(p, 0);
		return;
	}
	if (p->plan.fault == FAULT_LINGER)
		p->phase = PHASE_STALL;
	else
		play_end(p);
}

/* ---- faults in the stream ---- */

static void
play_huge_event(struct play *p)
{
	struct buf delta = BUF_INIT;

	buf_add_cstr(&delta, "{\"content\":\"");
	memset(buf_reserve(&delta, p->plan.fault_size), 'x', p->plan.fault_size);
	delta.len += p->plan.fault_size;
	buf_add_cstr(&delta, "\"}");
	play_event(p, buf_str(&delta), "null");
	buf_fini(&delta);
}

static void
play_close(struct play *p)
{
	struct conn *conn = p->conn;

	play_free(p, false);
	conn_close(conn);
}

/* The fault whose place is here. True: the stream does not go on from here. */
static bool
play_fault(struct play *p)
{
	p->had_fault = true;
	switch (p->plan.fault) {
	case FAULT_CUT_MID:
		play_cut(p, PHASE_CUT);
		return true;
	case FAULT_STALL:
		play_cut(p, PHASE_STALL);
		return true;
	case FAULT_CUT_FIN:
		play_close(p);
		return true;
	case FAULT_CUT_CLEAN:
		play_end(p);
		return true;
	case FAULT_COMMENTS:
		p->phase = PHASE_COMMENTS;
		p->comments_until_us = clock_mono_us() + p->plan.first_ms * UINT64_C(1000);
		play_wait_us(p, 0);
		return true;
	case FAULT_ERROR_EVENT:
		play_data(p,
		    "{\"error\":{\"message\":\"mock fault error_event\",\"type\":\"server_error\","
		    "\"code\":\"mock_error\",\"param\":null}}");
		play_end(p);
		return true;
	case FAULT_MALFORMED:
		play_data(p, "{\"id\":\"chatcmpl-mock\",\"choices\":[{\"index\":0,\"del");
		return false;
	case FAULT_BAD_UTF8:
		play_event(p, STR("{\"content\":\"\xff\"}"), "null");
		return false;
	case FAULT_HUGE_LINE:
		play_huge_event(p);
		return false;
	default:
		return false;
	}
}

/* ---- steps ---- */

static void
step_begin(struct play *p)
{
	p->phase = PHASE_DELTAS;
	conn_begin(p->conn, 200, "text/event-stream; charset=utf-8");
	if (p->plan.fault == FAULT_EMPTY) {
		play_end(p);
		return;
	}
	if (p->plan.fault == FAULT_SLOW_FIRST) {
		p->due_us +=
		    (p->plan.has_first ? p->plan.first_ms : SLOW_FIRST_MS) * UINT64_C(1000);
		play_wait_us(p, p->due_us - clock_mono_us());
		return;
	}
	on_timer(-1, 0, p);
}

/* False: the play has ended or waits for something else. */
static bool
step_delta(struct play *p)
{
	if (p->deltas == 0 && !p->had_fault && p->answer.reasoning_at == 0)
		play_event(p, STR("{\"role\":\"assistant\",\"content\":\"\"}"), "null");
	if (!p->had_fault && p->deltas >= p->plan.fault_after && play_fault(p))
		return false;
	buf_clear(&p->delta);
	p->answer.now_us = p->plan.is_stamped ? clock_mono_us() : 0;
	if (!answer_next(&p->answer, &p->delta)) {
		if (!p->had_fault && play_fault(p))
			return false;
		play_tail(p);
		return false;
	}
	play_event(p, buf_str(&p->delta), "null");
	if (p->plan.fault == FAULT_DUPLICATE && p->deltas == p->plan.fault_after)
		play_event(p, buf_str(&p->delta), "null");
	p->deltas++;
	return true;
}

static void
step_deltas(struct play *p)
{
	uint64_t now = clock_mono_us(), interval = p->plan.interval_ms * UINT64_C(1000);
	bool is_drip = p->plan.fault == FAULT_DRIP;

	while (is_drip || (p->due_us <= now && conn_pending_bytes(p->conn) < PENDING_BYTES_MAX)) {
		if (!step_delta(p))
			return;
		p->due_us = p->deltas < p->plan.burst ? now : p->due_us + interval;
	}
	if (p->due_us > now)
		play_wait_us(p, p->due_us - now);
	/* Else on_drained goes on. */
}

/* It thinks; then it goes on. */
static void
step_comments(struct play *p)
{
	uint64_t now_us = clock_mono_us();
	uint32_t interval_ms = p->plan.interval_ms > 0 ? p->plan.interval_ms : COMMENT_MS;

	if (now_us >= p->comments_until_us) {
		p->phase = PHASE_DELTAS;
		p->due_us = now_us;
		step_deltas(p);
		return;
	}
	conn_chunk(p->conn, STR(": thinking\n\n"));
	play_wait_us(p, interval_ms * UINT64_C(1000));
}

static void
step_drip(struct play *p)
{
	if (p->drip_at == p->drip.len) {
		play_end(p);
		return;
	}
	conn_chunk(p->conn, str_sub(p->drip.data + p->drip_at++, 1));
	play_wait_us(p, p->plan.interval_ms * UINT64_C(1000)); /* 0: in the next round */
}

/* ---- whole answers ---- */

static void
make_whole(struct play *p, struct buf *body)
{
	p->answer.now_us = clock_mono_us();
	if (p->is_messages) {
		struct buf message = BUF_INIT;

		answer_message(&p->answer, &message);
		messages_whole(&p->messages, buf_str(&message), body);
		buf_fini(&message);
		return;
	}
	buf_add_str(body, buf_str(&p->open));
	buf_add_cstr(body, "\"choices\":[{\"index\":0,\"message\":");
	answer_message(&p->answer, body);
	buf_printf(
	    body, ",\"logprobs\":null,\"finish_reason\":\"%s\"}]", answer_finish(&p->answer));
	if (!p->plan.hides_usage) {
		buf_add_cstr(body, ",\"usage\":");
		answer_usage(&p->answer, body);
	}
	buf_add_char(body, '}');
}

/* The head says more than what follows. */
static void
whole_cut(struct play *p, struct str body)
{
	char head[160];
	int n = snprintf(head, sizeof(head),
	    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
	    body.len);

	conn_raw(p->conn, str_sub(head, (size_t)n));
	conn_raw(p->conn, str_sub(body.p, body.len / 2));
	if (p->plan.fault == FAULT_STALL || p->plan.fault == FAULT_CUT_MID)
		play_cut(p, p->plan.fault == FAULT_STALL ? PHASE_STALL : PHASE_CUT);
	else
		play_close(p);
}

static void
whole_reply(struct play *p, struct str body)
{
	struct conn *conn = p->conn;

	play_free(p, false);
	conn_reply(conn, 200, "application/json", "", body);
}

static void
step_whole(struct play *p)
{
	struct buf body = BUF_INIT;

	make_whole(p, &body);
	switch (p->plan.fault) {
	case FAULT_CUT_MID:
	case FAULT_CUT_FIN:
	case FAULT_CUT_CLEAN:
	case FAULT_STALL:
		whole_cut(p, buf_str(&body));
		break;
	case FAULT_MALFORMED:
		whole_reply(p, str_sub(body.data, body.len / 2));
		break;
	case FAULT_EMPTY:
		whole_reply(p, STR(""));
		break;
	case FAULT_DRIP:
		p->drip = body;
		body = BUF_INIT;
		p->phase = PHASE_DRIP;
		conn_begin(p->conn, 200, "application/json");
		step_drip(p);
		break;
	case FAULT_BAD_UTF8:
		body.data[body.len / 2] = '\xff';
		/* fall through */
	default:
		whole_reply(p, buf_str(&body));
	}
	buf_fini(&body);
}

static void
step_cut(struct play *p)
{
	struct conn *conn = p->conn;

	play_free(p, false);
	conn_reset(conn);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct play *p = arg;

	(void)fd, (void)what;
	switch (p->phase) {
	case PHASE_WAIT:
		if (p->is_streamed)
			step_begin(p);
		else
			step_whole(p);
		break;
	case PHASE_DELTAS:
		step_deltas(p);
		break;
	case PHASE_COMMENTS:
		step_comments(p);
		break;
	case PHASE_DRIP:
		step_drip(p);
		break;
	case PHASE_CUT:
		step_cut(p);
		break;
	case PHASE_STALL:
		break;
	}
}

static void
on_drained(void *arg)
{
	struct play *p = arg;

	if (p->phase == PHASE_DELTAS && !evtimer_pending(&p->timer, NULL))
		step_deltas(p);
}

/* ---- the door ---- */

void
play_error(struct conn *conn, int status, const char *type, const char *code, const char *message,
    const char *retry_after)
{
	char extra[128] = "";
	json_t *body = json_pack("{s:{s:s, s:s, s:s, s:n}}", "error", "message", message, "type",
	    type, "code", code, "param");
	char *text = json_dumps(body, JSON_COMPACT);

	if (retry_after != NULL)
		snprintf(extra, sizeof(extra), "retry-after: %.64s\r\n", retry_after);
	conn_reply(conn, status, "application/json", extra, str_of(text));
	free(text);
	json_decref(body);
}

/* "date+S" is the time in so many seconds. */
static const char *
retry_after_text(const struct plan *plan, char *date, size_t size)
{
	static const char prefix[] = "date+";
	uint64_t seconds;
	struct tm tm;

	if (plan->retry_after == NULL || !str_starts(str_of(plan->retry_after), STR("date+")) ||
	    !str_to_u64(str_of(plan->retry_after + sizeof(prefix) - 1), &seconds))
		return plan->retry_after;
	time_t at = time(NULL) + (time_t)seconds;
	strftime(date, size, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &tm));
	return date;
}

static void
play_status_fault(struct conn *conn, const struct plan *plan)
{
	char message[64], date[64];
	int status = (int)plan->fault_status;
	const char *type = status >= 500 ? "server_error" : "invalid_request_error";
	const char *code = status == 401   ? "invalid_api_key"
			   : status == 429 ? "rate_limit_exceeded"
					   : "mock_fault";

	snprintf(message, sizeof(message), "mock fault status %d", status);
	play_error(conn, status, type, code,
	    plan->fault_message != NULL ? plan->fault_message : message,
	    retry_after_text(plan, date, sizeof(date)));
}

bool
play_early_fault(struct conn *conn, const struct plan *plan)
{
	switch (plan->fault) {
	case FAULT_STATUS:
		play_status_fault(conn, plan);
		return true;
	case FAULT_CONTEXT:
		play_error(conn, 400, "invalid_request_error", "context_length_exceeded",
		    "This model's maximum context length is exceeded.", NULL);
		return true;
	case FAULT_POLICY:
		play_error(conn, 400, "invalid_request_error", "content_policy_violation",
		    "The content policy forbids this.", NULL);
		return true;
	case FAULT_RESET:
		conn_reset(conn);
		return true;
	case FAULT_CLOSE:
		conn_close(conn);
		return true;
	case FAULT_WRONG_TYPE:
		conn_reply(conn, 200, "text/html", "",
		    STR("<!doctype html><title>mock</title><p>This is not an answer.</p>\n"));
		return true;
	default:
		return false;
	}
}

static uint64_t
first_delay_ms(const struct play *p)
{
	bool is_later = p->plan.fault == FAULT_SLOW_FIRST || p->plan.fault == FAULT_COMMENTS;
	uint64_t ms = is_later ? 0 : p->plan.first_ms;

	if (!p->is_streamed && p->plan.has_tokens)
		ms += (uint64_t)p->plan.interval_ms * p->plan.tokens;
	if (!p->is_streamed && p->plan.fault == FAULT_SLOW_FIRST)
		ms += p->plan.has_first ? p->plan.first_ms : SLOW_FIRST_MS;
	return ms;
}

/* A fault in place of an answer. */
static bool
play_ends_early(struct play *p)
{
	if (!play_early_fault(p->conn, &p->plan))
		return false;
	play_free(p, false);
	return true;
}

static void
play_prepare(struct play *p, const json_t *request)
{
	p->nl = p->plan.fault == FAULT_CRLF ? "\r\n" : "\n";
	if (!p->is_streamed) {
		make_open(p, request, "chat.completion");
		return;
	}
	buf_add_cstr(&p->open, "data: ");
	make_open(p, request, "chat.completion.chunk");
	buf_add_cstr(&p->open, "\"choices\":[{\"index\":0,\"delta\":");
}

static void
play_start(struct play *p)
{
	uint64_t delay_ms = first_delay_ms(p);

	conn_own(p->conn, &(struct conn_owner){on_gone, on_drained, p});
	p->due_us = clock_mono_us() + delay_ms * 1000;
	if (p->plan.fault == FAULT_SILENCE)
		p->phase = PHASE_STALL;
	else if (delay_ms > 0)
		play_wait_us(p, delay_ms * 1000);
	else
		on_timer(-1, 0, p);
}

void
play_chat(struct event_base *base, struct control *control, struct conn *conn,
    const json_t *request, bool is_messages, struct plan *plan)
{
	struct play *p = xcalloc(1, sizeof(*p));
	const json_t *options = json_object_get(request, "stream_options");
	const char *error;

	p->conn = conn;
	p->control = control;
	p->plan = *plan; /* moved */
	p->is_messages = is_messages;
	p->messages.answer = &p->answer;
	snprintf(p->messages.model, sizeof(p->messages.model), "%s",
	    json_string_value(json_object_get(request, "model")));
	p->is_streamed = json_is_true(json_object_get(request, "stream"));
	p->includes_usage = json_is_true(json_object_get(options, "include_usage"));
	evtimer_assign(&p->timer, base, on_timer, p);
	control_begin(control, p->is_streamed);
	if (!answer_init(&p->answer, request, &p->plan, &error)) {
		play_free(p, false);
		play_error(conn, 400, "invalid_request_error", "invalid_request", error, NULL);
		return;
	}
	p->answer.asked_us = clock_mono_us();
	if ((p->plan.has_fault_hop && p->plan.fault_hop != p->answer.hop) ||
	    !control_spend(control, &p->plan))
		p->plan.fault = FAULT_NONE;
	if (play_ends_early(p))
		return;
	play_prepare(p, request);
	play_start(p);
}
