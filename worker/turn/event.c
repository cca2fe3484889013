/*
 * event - the JSON of a turn's events and of its state: what clients see.
 * Formats only; who calls decides what happens.
 *
 *   turn.started     {"turn_id","session_id","model","request_id"?}
 *   text.delta       {"text","offset","hop"}     reasoning.delta {"text","hop"}
 *   knowledge        {"sources":[{"number","source","title","url","score"}]} or {"error"}
 *   tool.call        {"tool_call_id","name","arguments","run_by","claimed_by"|"server","hop"}
 *   tool.result      {"tool_call_id","name","run_by","server"?,"output"|"error","hop"}
 *   usage            {"input_tokens","output_tokens","cached_tokens","cost","is_estimated"}
 *   turn.snapshot    {"seq","text","tool_calls"}
 *   turn.completed   {"message","finish_reason","usage","sources","tool_calls"}
 *   turn.failed      {"error":{"message","type","code","retry_after"?},"usage","tool_calls",
 *                     "budget"|"limit"? what was exceeded and when it ends}
 *   turn.cancelled   {"usage","tool_calls"}
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/json_real.h"
#include "worker/turn/turn_impl.h"

static const struct {
	const char *text;
	size_t len;
} names[TURN_EVENT_COUNT] = {
#define X(name, text) {text, sizeof(text) - 1},
#include "worker/turn/turn_events.tbl"
#undef X
};

struct str
turn_event_name(enum turn_event_type type)
{
	check(type < TURN_EVENT_COUNT);
	return str_sub(names[type].text, names[type].len);
}

bool
turn_event_is_last(enum turn_event_type type)
{
	return type == TURN_COMPLETED || type == TURN_FAILED || type == TURN_CANCELLED;
}

/* ---- events of a live turn ---- */

void
turn_emit(struct turn *t, enum turn_event_type type, json_t *data)
{
	char *text = json_dumps(data, JSON_COMPACT);

	check(text != NULL && !turn_event_is_last(type));
	json_shorten_reals(text);
	feed_add(&t->feed, type, str_of(text));
	free(text);
	json_decref(data);
	turn_save_progress_soon(t);
	follow_flush_soon(t);
}

void
turn_emit_started(struct turn *t)
{
	json_t *data = json_pack("{s:s, s:s, s:s}", "turn_id", t->id.s, "session_id",
	    t->session_id.s, "model", t->model);

	if (t->request_id != NULL)
		json_object_set_new(data, "request_id", json_string(t->request_id));
	turn_emit(t, TURN_STARTED, data);
}

static json_t *
claimed_by(const struct turn *t)
{
	char text[17];

	if (!follow_has_originator(t))
		return json_null();
	snprintf(text, sizeof(text), "%016" PRIx64, t->originator);
	return json_string(text);
}

/* Which of the tool servers runs it. */
static void
add_server(const struct turn *t, const struct tool_call *c, json_t *data)
{
	const char *server = t->turns->runner->server_of(t->menu, c->name);

	json_object_set_new(data, "server", json_string(server));
}

void
turn_emit_tool_call(struct turn *t, const struct tool_call *c)
{
	json_t *data = tool_call_describe(c);

	if (c->run_by == TOOL_BY_CLIENT)
		json_object_set_new(data, "claimed_by", claimed_by(t));
	else
		add_server(t, c, data);
	json_object_set_new(data, "hop", json_integer(c->hop));
	turn_emit(t, TURN_TOOL_CALL, data);
}

void
turn_emit_tool_result(
    struct turn *t, const struct tool_call *c, const json_t *output, const char *error)
{
	json_t *data = tool_call_describe(c);

	json_object_del(data, "arguments");
	if (c->run_by == TOOL_BY_SERVER)
		add_server(t, c, data);
	if (error != NULL)
		json_object_set_new(data, "error", json_string(error));
	else
		json_object_set(data, "output", (json_t *)output);
	json_object_set_new(data, "hop", json_integer(c->hop));
	turn_emit(t, TURN_TOOL_RESULT, data);
}

json_t *
turn_format_usage(const struct turn_usage *u)
{
	json_t *v = json_pack("{s:I, s:I, s:I}", "input_tokens", (json_int_t)u->input_tokens,
	    "output_tokens", (json_int_t)u->output_tokens, "cached_tokens",
	    (json_int_t)u->cached_tokens);

	json_object_set_new(
	    v, "cost", u->cost_micros >= 0 ? json_real((double)u->cost_micros / 1e6) : json_null());
	if (u->is_estimated)
		json_object_set_new(v, "is_estimated", json_true());
	return v;
}

/* Once, with the whole turn's numbers; not when no call of the model has told any. */
void
turn_emit_usage(struct turn *t)
{
	if (t->usage.input_tokens + t->usage.output_tokens > 0)
		turn_emit(t, TURN_USAGE, turn_format_usage(&t->usage));
}

/* ---- the last event ---- */

/* Those that clients have heard of. */
json_t *
turn_format_calls(const struct turn *t)
{
	json_t *calls = json_array();

	for (size_t i = 0; i < t->tool_count; i++)
		if (t->tools_called[i]->is_told)
			json_array_append_new(calls, tool_call_describe(t->tools_called[i]));
	return calls;
}

json_t *
turn_format_error(int err, const char *message)
{
	const struct err_info *info = err_info(err);

	return json_pack("{s:s, s:s, s:s}", "message", message != NULL ? message : info->text,
	    "type", info->type, "code", info->code);
}

static json_t *
format_message(const struct turn *t)
{
	const char *text = t->feed.text.len > t->hop_text ? t->feed.text.data + t->hop_text : "";

	return json_pack(
	    "{s:s, s:s, s:s}", "id", t->message_id.s, "role", "assistant", "content", text);
}

char *
turn_format_end(struct turn *t)
{
	json_t *data = json_object();

	if (t->outcome == TURN_COMPLETED) {
		json_object_set_new(data, "message", format_message(t));
		json_object_set_new(data, "finish_reason", json_string(t->finish_reason));
		json_object_set_new(
		    data, "sources", t->sources != NULL ? json_incref(t->sources) : json_array());
	} else if (t->outcome == TURN_FAILED) {
		json_t *error = turn_format_error(t->err, t->err_message);

		if (t->retry_after_ms > 0)
			json_object_set_new(
			    error, "retry_after", json_integer((t->retry_after_ms + 999) / 1000));
		json_object_set_new(data, "error", error);
		if (t->exceeded != NULL)
			json_object_set(data, t->exceeded, t->exceeded_json);
	}
	json_object_set_new(data, "usage", turn_format_usage(&t->usage));
	json_object_set_new(data, "tool_calls", turn_format_calls(t));
	char *text = json_dumps(data, JSON_COMPACT);
	check(text != NULL);
	json_shorten_reals(text);
	json_decref(data);
	return text;
}

/* ---- the state, as GET answers ---- */

static json_t *
time_text(int64_t wall_ms)
{
	char text[CLOCK_RFC3339_LEN + 1];

	if (wall_ms <= 0)
		return json_null();
	clock_format(wall_ms, text);
	return json_string(text);
}

static json_t *
format_pending(const struct turn *t)
{
	json_t *pending = json_array();

	for (size_t i = t->tool_hop_first; i < t->tool_count; i++) {
		if (t->tools_called[i]->state != TOOL_PENDING || !t->tools_called[i]->is_told ||
		    t->tools_called[i]->run_by != TOOL_BY_CLIENT)
			continue;
		json_t *call = tool_call_describe(t->tools_called[i]);

		json_object_set_new(call, "claimed_by", claimed_by(t));
		json_array_append_new(pending, call);
	}
	return pending;
}

static const char *
public_state(const struct turn *t)
{
	if (turn_has_ended(t))
		return turn_state_name(t->state);
	return turn_client_tools_pending(t) > 0 ? "waiting_tools" : "live";
}

json_t *
turn_format_state(struct turn *t)
{
	json_t *v = turn_has_ended(t) ? json_loads(t->result_json, 0, NULL) : json_object();

	check(v != NULL);
	json_object_set_new(v, "id", json_string(t->id.s));
	json_object_set_new(v, "session_id", json_string(t->session_id.s));
	json_object_set_new(v, "state", json_string(public_state(t)));
	json_object_set_new(v, "model", json_string(t->model_name));
	json_object_set_new(v, "created_at", time_text(t->created_at));
	json_object_set_new(v, "text", json_string(t->feed.text.len > 0 ? t->feed.text.data : ""));
	json_object_set_new(v, "last_seq", json_integer((json_int_t)t->feed.head));
	json_object_set_new(v, "pending_tool_calls", format_pending(t));
	if (turn_has_ended(t)) {
		json_object_set_new(v, "ended_at", time_text(t->ended_at));
		return v;
	}
	if (turn_client_tools_pending(t) > 0)
		json_object_set_new(v, "finish_reason", json_string("tool_calls"));
	json_object_set_new(v, "usage", turn_format_usage(&t->usage));
	json_object_set_new(v, "tool_calls", turn_format_calls(t));
	return v;
}

/* ---- turns of the record ---- */

static json_t *
record_result(const struct store_turn *r)
{
	json_t *v = r->result_json != NULL ? json_loads(r->result_json, 0, NULL) : NULL;
	int err;

	if (!json_is_object(v)) {
		json_decref(v);
		v = json_pack("{s:[]}", "tool_calls");
	}
	const json_t *code = json_object_get(json_object_get(v, "error"), "code");
	bool is_told = json_is_string(code) && r->error_code != NULL &&
		       strcmp(json_string_value(code), r->error_code) == 0;
	if (strcmp(r->state, "failed") == 0 && !is_told) {
		err = err_by_code(r->error_code != NULL ? r->error_code : "internal_error");
		json_object_set_new(v, "error", turn_format_error(err, r->error_message));
	}
	return v;
}

static void
set_text(json_t *v, const char *name, const char *text)
{
	json_object_set_new(v, name, text != NULL ? json_string(text) : json_null());
}

json_t *
turn_format_record(const struct store_turn *r)
{
	json_t *v = record_result(r);

	json_object_set_new(v, "id", json_string(r->id));
	json_object_set_new(v, "session_id", json_string(r->session_id));
	json_object_set_new(v, "state", json_string(r->state));
	set_text(v, "model", r->model);
	json_object_set_new(v, "created_at", time_text(r->created_at));
	json_object_set_new(v, "ended_at", time_text(r->ended_at));
	json_object_set_new(v, "text", json_string(r->text != NULL ? r->text : ""));
	json_object_set_new(v, "last_seq", json_integer((json_int_t)r->last_seq));
	json_object_set_new(v, "pending_tool_calls", json_array());
	return v;
}

enum turn_event_type
turn_record_end(const struct store_turn *r, struct buf *data)
{
	json_t *v = record_result(r);
	char *text = json_dumps(v, JSON_COMPACT);

	check(text != NULL);
	json_shorten_reals(text);
	buf_add_cstr(data, text);
	free(text);
	json_decref(v);
	if (strcmp(r->state, "completed") == 0)
		return TURN_COMPLETED;
	return strcmp(r->state, "cancelled") == 0 ? TURN_CANCELLED : TURN_FAILED;
}

void
turn_record_snapshot(const struct store_turn *r, uint64_t seq, struct buf *data)
{
	json_t *v = record_result(r);
	json_t *calls = json_object_get(v, "tool_calls");
	char *text = json_is_array(calls) ? json_dumps(calls, JSON_COMPACT) : xstrdup("[]");

	check(text != NULL);
	feed_format_snapshot(data, seq, str_of(r->text != NULL ? r->text : ""), str_of(text));
	free(text);
	json_decref(v);
}
