/*
 * call - the model's side of a turn: the messages that it is given, the deltas
 * that come back, the tools that it asks for.
 *
 * A call of a tool that does not exist, or whose arguments are not JSON, is told
 * to the model as a failed one; the client never hears of it. In the messages to
 * the provider its own call ids stand, in those of the record ours.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/session/history.h"
#include "worker/turn/turn_impl.h"

enum { HISTORY_BYTES_MAX = 32 << 20 };

/* ---- PREPARE: the history ---- */

/* Three quarters of the model's context: the rest is for tools and the answer. */
static uint64_t
history_budget(const struct turn *t)
{
	uint64_t budget = (uint64_t)t->turns->conf->sessions.history_tokens;
	uint64_t context = providers_context_tokens(t->turns->providers, t->model) / 4 * 3;

	if (budget == 0 || (context > 0 && context < budget))
		return context;
	return budget;
}

static void
add_message(struct turn *t, struct str json)
{
	if (t->history.len > 0)
		buf_add_char(&t->history, ',');
	buf_add_str(&t->history, json);
}

static void
add_system(struct turn *t)
{
	if (t->system == NULL && t->passages.len == 0)
		return;
	buf_add_cstr(&t->history, "{\"role\":\"system\",\"content\":\"");
	if (t->system != NULL)
		buf_add_json_escaped(&t->history, str_of(t->system));
	if (t->system != NULL && t->passages.len > 0)
		buf_add_cstr(&t->history, "\\n\\n");
	buf_add_json_escaped(&t->history, buf_str(&t->passages));
	buf_add_cstr(&t->history, "\"}");
}

/* Most messages go as the text that they are; only those of tools must be understood to be cut. */
static bool
look_at(struct history_message *h, const struct store_message *m)
{
	struct str text = str_of(m->body_json);

	*h = (struct history_message){.bytes = text.len};
	if (history_is_plain(text))
		return true;
	h->body = json_loadb(text.p, text.len, 0, NULL);
	if (h->body == NULL)
		log_error("message is no JSON message=%s", m->id);
	return h->body != NULL;
}

static void
add_history(struct turn *t, const struct store_message *m, size_t count)
{
	struct history_message *h = xcalloc(count + 1, sizeof(*h));
	const char **texts = xcalloc(count + 1, sizeof(*texts));
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (look_at(&h[n], &m[i]))
			texts[n++] = m[i].body_json;
	history_cut(
	    h, n, history_budget(t), (t->system != NULL ? strlen(t->system) : 0) + t->passages.len);
	for (size_t i = 0; i < n; i++) {
		if (h[i].is_kept)
			add_message(t, str_sub(texts[i], h[i].bytes));
		json_decref((json_t *)h[i].body);
	}
	free(texts);
	free(h);
}

static void
on_history(void *arg, int err, const struct store_message *m, size_t count, bool has_more)
{
	struct turn *t = turn_gap_turn(arg);

	(void)has_more;
	if (t == NULL || t->state != TURN_STATE_PREPARE)
		return;
	if (err != 0) {
		turn_fail(t, err, NULL);
		return;
	}
	t->messages = json_array();
	add_system(t);
	add_history(t, m, count);
	turn_enter(t, TURN_STATE_CALL);
	turn_run(t);
}

void
turn_ask_history(struct turn *t)
{
	uint64_t budget = history_budget(t), bytes_max = budget * 4;

	if (budget == 0 || bytes_max > HISTORY_BYTES_MAX)
		bytes_max = HISTORY_BYTES_MAX;
	store_message_history(t->turns->store, t->session_id.s, bytes_max, on_history,
	    turn_gap_open(t->turns, t->handle));
}

enum turn_next
turn_step_prepare(struct turn *t)
{
	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	if (!turn_ask_knowledge(t))
		turn_ask_history(t);
	return TURN_NEXT_WAIT;
}

/* ---- CALL and STREAM ---- */

static void
note_first_event(struct turn *t)
{
	if (t->has_first_event)
		return;
	t->has_first_event = true;
	metric_observe_us(METRIC_TURN_FIRST_EVENT_SECONDS, 0,
	    (loop_now_ms(t->turns->loop) - t->requested_ms) * 1000);
}

static void
note_delta(struct turn *t)
{
	uint64_t max = t->turns->conf->turns.max_answer_bytes;

	note_first_event(t);
	if (t->first_token_ms == 0) {
		t->first_token_ms = loop_now_ms(t->turns->loop) - t->call_began_ms;
		t->first_token_ms += t->first_token_ms == 0; /* 0 says that none came */
	}
	if (t->state == TURN_STATE_CALL)
		turn_enter(t, TURN_STATE_STREAM);
	if (max > 0 && t->feed.text.len > max) {
		turn_fail(t, E_PROVIDER, "The model's answer is too long.");
		return;
	}
	turn_save_progress_soon(t);
	follow_flush_soon(t);
}

/* The call is cancelled before the turn goes: the pointer is good as long as anything comes. */
static void
on_text(void *arg, struct str text)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_CALL || t->state == TURN_STATE_STREAM);
	feed_text(&t->feed, text);
	note_delta(t);
}

static void
on_reasoning(void *arg, struct str text)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_CALL || t->state == TURN_STATE_STREAM);
	feed_reasoning(&t->feed, text);
	note_delta(t);
}

/* Of this hop: what the hops before have said stands. */
static void
on_restarted(void *arg)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_CALL || t->state == TURN_STATE_STREAM);
	feed_restart(&t->feed, t->hop_text);
	note_delta(t);
}

static const char *
finish_text(enum provider_finish finish)
{
	switch (finish) {
	case PROVIDER_FINISH_LENGTH:
		return "length";
	case PROVIDER_FINISH_CONTENT_FILTER:
		return "content_filter";
	default:
		return "stop";
	}
}

static void ask_tools(struct turn *, const struct provider_result *);

static void
on_done(void *arg, const struct provider_result *r)
{
	struct turn *t = arg;
	int64_t hops_max = t->turns->conf->turns.max_tool_hops;

	check(t->state == TURN_STATE_CALL || t->state == TURN_STATE_STREAM);
	t->provider_call = 0;
	note_first_event(t);
	turn_charge_done(t, r);
	t->retry_after_ms = r->err != 0 ? r->retry_after_ms : 0;
	if (r->err != 0)
		turn_fail(t, r->err, r->message);
	else if (r->tool_call_count > 0 && hops_max > 0 && t->hop >= hops_max)
		turn_complete(t, "tool_limit_reached");
	else if (r->tool_call_count > 0)
		ask_tools(t, r);
	else if (r->finish == PROVIDER_FINISH_TOOL_CALLS)
		turn_fail(t, E_PROVIDER, "The model asked for tools and named none.");
	else
		turn_complete(t, finish_text(r->finish));
}

static uint32_t
time_left_ms(const struct turn *t)
{
	uint64_t now = loop_now_ms(t->turns->loop);

	if (!loop_timer_is_set(&t->total_timer))
		return UINT32_MAX;
	uint64_t left = t->total_timer.due_ms > now ? t->total_timer.due_ms - now : 1;
	return left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
}

void
turn_call(struct turn *t)
{
	static const struct provider_handlers handlers = {
	    on_text, on_reasoning, on_done, on_restarted};
	struct provider_request request = {
	    .model = t->model,
	    .history = buf_str(&t->history),
	    .messages = t->messages,
	    .tools = t->tools,
	    .timeout_ms = time_left_ms(t),
	    .request_id = t->http_request_id,
	    .traceparent = t->traceparent,
	};

	t->usage.calls++;
	t->provider_call = provider_call(t->turns->providers, &request, &handlers, t);
}

enum turn_next
turn_step_call(struct turn *t)
{
	if (t->has_asked)
		return TURN_NEXT_WAIT;
	t->has_asked = true;
	t->hop_text = t->feed.text.len;
	turn_read_menu(t);
	if (!turn_charge_asks(t))
		turn_call(t);
	return TURN_NEXT_WAIT;
}

/* The deltas and the end come by themselves. */
enum turn_next
turn_step_stream(struct turn *t)
{
	check(t->provider_call != 0);
	return TURN_NEXT_WAIT;
}

void
turn_cancel_call(struct turn *t)
{
	turn_stop_knowledge(t);
	turn_charge_give_back(t);
	if (t->provider_call == 0)
		return;
	provider_cancel(t->turns->providers, t->provider_call);
	t->provider_call = 0;
	turn_charge_cancelled(t);
}

/* ---- TOOLS ---- */

static bool
is_wire_id_taken(const struct turn *t, const char *wire_id)
{
	for (size_t i = t->tool_hop_first; i < t->tool_count; i++)
		if (strcmp(t->tools_called[i]->wire_id, wire_id) == 0)
			return true;
	return false;
}

static struct tool_call *
add_call(struct turn *t, const struct provider_tool_call *wanted)
{
	struct tool_call_asked asked = {
	    .session_id = &t->session_id,
	    .turn = t->handle,
	    .hop = t->hop,
	    .wire_id = is_wire_id_taken(t, wanted->id) ? "" : wanted->id,
	    .name = wanted->name,
	    .arguments = wanted->arguments,
	    .now_ms = loop_now_ms(t->turns->loop),
	};

	t->tools_called = xrealloc(t->tools_called, (t->tool_count + 1) * sizeof(void *));
	t->tools_called[t->tool_count] = tool_call_new(t->turns->calls, &asked);
	return t->tools_called[t->tool_count++];
}

/* NULL: it can be made. */
static const char *
reason_against(const struct turn *t, const struct tool_call *c)
{
	int64_t max = t->turns->conf->tools.max_calls;

	if (!tool_is_listed(t->tools, c->name))
		return "There is no tool of this name.";
	if (c->arguments == NULL)
		return "The arguments are not a JSON object.";
	if (max > 0 && t->tool_count - t->tool_hop_first > (size_t)max)
		return "Too many tool calls at once.";
	return NULL;
}

static void
count_call(const struct tool_call *c, unsigned outcome)
{
	metric_add(METRIC_TOOL_CALLS, c->run_by == TOOL_BY_CLIENT ? RUN_BY_CLIENT : RUN_BY_SERVER,
	    outcome, 1);
}

/* Who may answer is known everywhere before anybody hears of the call. */
static void
tell_client(struct turn *t, struct tool_call *c)
{
	if (c->run_by == TOOL_BY_CLIENT && !backplane_own(t->turns->backplane, &c->id))
		log_warn("turn owners full call=%s", c->id.s);
	c->is_told = true;
	turn_emit_tool_call(t, c);
}

static void
on_tools_late(struct loop_timer *timer)
{
	struct turn *t = container_of(timer, struct turn, tool_timer);

	check(t->state == TURN_STATE_TOOLS);
	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		struct tool_call *c = t->tools_called[i];

		if (c->state != TOOL_PENDING || c->run_by != TOOL_BY_CLIENT)
			continue;
		tool_call_fail(c, "The client did not answer in time.");
		count_call(c, TOOL_OUTCOME_TIMEOUT);
		turn_emit_tool_result(t, c, NULL, "The client did not answer in time.");
	}
	turn_run(t);
}

static void
ask_tools(struct turn *t, const struct provider_result *r)
{
	t->tool_hop_first = t->tool_count;
	for (uint32_t i = 0; i < r->tool_call_count; i++) {
		struct tool_call *c = add_call(t, &r->tool_calls[i]);
		const char *reason = reason_against(t, c);

		c->run_by = turn_is_served(t, c->name) ? TOOL_BY_SERVER : TOOL_BY_CLIENT;
		if (reason != NULL) {
			tool_call_fail(c, reason);
			count_call(c, TOOL_OUTCOME_ERROR);
		} else {
			tell_client(t, c);
		}
	}
	turn_save_hop(t);
	turn_enter(t, TURN_STATE_TOOLS);
	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		struct tool_call *c = t->tools_called[i];

		if (c->state == TOOL_PENDING && c->run_by == TOOL_BY_SERVER)
			turn_serve(t, c);
	}
	turn_run(t);
}

static size_t
count_pending(const struct turn *t, bool clients_only)
{
	size_t pending = 0;

	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		const struct tool_call *c = t->tools_called[i];

		pending +=
		    c->state == TOOL_PENDING && (!clients_only || c->run_by == TOOL_BY_CLIENT);
	}
	return pending;
}

size_t
turn_tools_pending(const struct turn *t)
{
	return count_pending(t, false);
}

size_t
turn_client_tools_pending(const struct turn *t)
{
	return count_pending(t, true);
}

static json_t *
format_assistant(const struct turn *t, bool is_for_wire)
{
	const char *text = t->feed.text.len > t->hop_text ? t->feed.text.data + t->hop_text : NULL;
	json_t *calls = json_array();

	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		const struct tool_call *c = t->tools_called[i];

		/* Some providers refuse arguments that are no JSON, though they are the model's. */
		json_array_append_new(calls,
		    json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", is_for_wire ? c->wire_id : c->id.s,
			"type", "function", "function", "name", c->name, "arguments",
			c->arguments != NULL ? c->text : "{}"));
	}
	return json_pack(
	    "{s:s, s:s?, s:o}", "role", "assistant", "content", text, "tool_calls", calls);
}

static json_t *
format_result(const struct tool_call *c, bool is_for_wire)
{
	return json_pack("{s:s, s:s, s:s}", "role", "tool", "tool_call_id",
	    is_for_wire ? c->wire_id : c->id.s, "content", c->content);
}

/* Not every dialect takes images in a tool's result: they follow as what a user shows. The record
 * keeps only that there were some. */
static void
add_images(struct turn *t)
{
	json_t *content = json_array();

	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		const struct tool_call *c = t->tools_called[i];

		if (c->images == NULL)
			continue;
		char *text = xasprintf("Images from the tool %s:", c->name);
		json_array_append_new(
		    content, json_pack("{s:s, s:s}", "type", "text", "text", text));
		free(text);
		json_array_extend(content, c->images);
	}
	if (json_array_size(content) > 0)
		json_array_append_new(
		    t->messages, json_pack("{s:s, s:O}", "role", "user", "content", content));
	json_decref(content);
}

static void
end_hop(struct turn *t)
{
	struct id id = id_new("msg");

	json_array_append_new(t->messages, format_assistant(t, true));
	turn_save_message(t, &id, "assistant", format_assistant(t, false), false);
	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		const struct tool_call *c = t->tools_called[i];

		id = id_new("msg");
		json_array_append_new(t->messages, format_result(c, true));
		turn_save_message(t, &id, "tool", format_result(c, false), false);
	}
	add_images(t);
	loop_timer_stop(t->turns->loop, &t->tool_timer);
	t->hop++;
	t->hop_text = t->feed.text.len;
	t->tool_hop_first = t->tool_count;
	feed_set_hop(&t->feed, t->hop);
	turn_save_hop(t);
}

enum turn_next
turn_step_tools(struct turn *t)
{
	if (turn_tools_pending(t) == 0) {
		end_hop(t);
		turn_enter(t, TURN_STATE_CALL);
		return TURN_NEXT_STEP;
	}
	if (!t->has_asked) {
		t->has_asked = true;
		t->tool_timer.on_fire = on_tools_late;
		if (turn_client_tools_pending(t) > 0)
			loop_timer_set(t->turns->loop, &t->tool_timer,
			    t->turns->conf->tools.client_timeout_ms);
		follow_flush_soon(t); /* who asks for the state may be waiting for this */
	}
	return TURN_NEXT_WAIT;
}

void
turn_tool_answered(struct turn *t, struct tool_call *c, const json_t *output, const char *error)
{
	check(t->state == TURN_STATE_TOOLS && c->state != TOOL_PENDING);
	count_call(c, c->is_late    ? TOOL_OUTCOME_TIMEOUT
		      : c->is_error ? TOOL_OUTCOME_ERROR
				    : TOOL_OUTCOME_OK);
	turn_emit_tool_result(t, c, output, error);
	turn_run(t);
}

void
turn_drop_calls(struct turn *t)
{
	for (size_t i = 0; i < t->tool_count; i++) {
		struct tool_call *c = t->tools_called[i];

		if (c->state == TOOL_PENDING)
			count_call(c, TOOL_OUTCOME_CANCELLED);
		if (c->is_told && c->run_by == TOOL_BY_CLIENT)
			backplane_disown(t->turns->backplane, &c->id);
		tool_call_free(t->turns->calls, &c);
	}
	free(t->tools_called);
	t->tools_called = NULL;
	t->tool_count = t->tool_hop_first = 0;
}
