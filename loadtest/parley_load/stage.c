/* stage - a session, a turn with one client tool, and the tool's result. */
#include "loadtest/parley_load/stage.h"

#include "common/check.h"

static void
on_stream_data(void *arg, struct str bytes)
{
	struct stage *s = arg;

	if (s->is_up)
		return;
	buf_add_str(&s->seen, bytes);
	struct str call = user_find(buf_str(&s->seen), "tool_call_id");
	char *turn = memmem(s->seen.data, s->seen.len, "turn_", 5);
	if (call.len == 0 || call.len >= sizeof(s->call))
		return;
	check(turn != NULL);
	snprintf(s->turn, sizeof(s->turn), "%.31s", turn);
	snprintf(s->path, sizeof(s->path), "/v1/sessions/%s/turns/%s/events", s->session, s->turn);
	snprintf(s->call, sizeof(s->call), "%.*s", (int)call.len, call.p);
	buf_fini(&s->seen);
	s->is_up = true;
	s->handlers->on_up(s->arg);
}

static void
on_stream_done(void *arg, int status)
{
	struct stage *s = arg;

	if (!s->is_up) {
		fprintf(
		    stderr, "parley_load: the turn to follow ended too early, status %d\n", status);
		s->load->tally->failed++;
	}
	s->is_up = false;
	if (s->handlers->on_over != NULL)
		s->handlers->on_over(s->arg, status);
}

static const struct conn_handlers stream_handlers = {on_stream_data, on_stream_done};

static void
on_posted(void *arg, int status)
{
	struct stage *s = arg;

	if (status == 202)
		return;
	fprintf(stderr, "parley_load: the tool's result was answered %d\n", status);
	s->load->tally->failed++;
}

static const struct conn_handlers post_handlers = {NULL, on_posted};

static void
on_session(void *arg, struct str id)
{
	struct stage *s = arg;
	const struct options *o = s->load->options;
	struct buf body = BUF_INIT;
	char path[128];

	if (id.len == 0) {
		fprintf(stderr, "parley_load: no session for the turn to follow\n");
		s->load->tally->failed++;
		return;
	}
	memcpy(s->session, id.p, id.len);
	s->session[id.len] = '\0';
	snprintf(path, sizeof(path), "/v1/sessions/%s/turns", s->session);
	buf_printf(&body,
	    "{\"input\":\"[[mock tool=a args={} tokens=%u "
	    "interval=%u]]\",\"stream\":true,\"tools\":["
	    "{\"type\":\"function\",\"function\":{\"name\":\"a\"}}]}",
	    o->tokens, o->interval_ms);
	conn_request(s->stream, "POST", path, buf_str(&body));
	buf_fini(&body);
}

void
stage_open(struct stage *s, struct load *load, const struct stage_handlers *handlers, void *arg)
{
	check(!s->is_up);
	s->load = load;
	s->handlers = handlers;
	s->arg = arg;
	if (s->stream == NULL) {
		s->stream = conn_new(&load->target, &stream_handlers, s);
		s->post = conn_new(&load->target, &post_handlers, s);
	}
	user_open_session(load, on_session, s);
}

/* The mock's answer repeats the result, a word to a token. */
void
stage_let_go(struct stage *s)
{
	struct buf body = BUF_INIT;
	char path[128];

	check(s->is_up);
	snprintf(path, sizeof(path), "/v1/sessions/%s/tool-results", s->session);
	buf_printf(&body, "{\"tool_call_id\":\"%s\",\"output\":\"", s->call);
	for (uint32_t i = 0; i < s->load->options->tokens; i++)
		buf_printf(&body, "tok%u ", i);
	buf_add_cstr(&body, "\"}");
	conn_request(s->post, "POST", path, buf_str(&body));
	buf_fini(&body);
}
