/*
 * turn_wait - see turn_wait.h.
 */
#include "worker/api/turn_wait.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/api/farewell.h"

struct turn_waits {
	struct api *api;
	struct list polls;   /* who asked how a turn is, when there is news */
	struct list results; /* who waits for the answer to his turn */
	size_t poll_count;
	struct loop_timer drain_step, drain_end;
	bool is_draining, is_ending;
};

/* One request. The list that it is in says what for. */
struct turn_wait {
	struct list node;
	struct api_call *call;
	uint64_t listener; /* of a result's: 0 when it has ended */
	uint64_t question;
};

/* ---- how a state becomes an answer ---- */

static const char *
text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text != NULL ? text : "";
}

/* What was exceeded, and when it ends; NULL: nothing was. */
static const char *
exceeded_of(const json_t *state)
{
	static const char *const members[] = {"budget", "limit"};

	for (size_t i = 0; i < ARRAY_LEN(members); i++) {
		if (json_object_get(state, members[i]) != NULL)
			return members[i];
	}
	return NULL;
}

static void
reply_failed(struct api_call *call, const json_t *state)
{
	const json_t *error = json_object_get(state, "error");
	int err = err_by_code(text_of(error, "code"));
	json_int_t retry_s = json_integer_value(json_object_get(error, "retry_after"));
	const char *message = arena_strdup(&call->arena, str_of(text_of(error, "message")));
	const char *exceeded = exceeded_of(state);
	struct http_req *req = call_req(call);

	if (exceeded == NULL && retry_s > 0) {
		call_reply_retry(call, err, (uint32_t)retry_s, message);
	} else if (exceeded == NULL) {
		call_reply_error(call, err, NULL, message);
	} else {
		if (retry_s > 0 && req != NULL)
			call_add_retry_after(req, (uint32_t)retry_s);
		call_reply_error_with(
		    call, err, message, exceeded, json_incref(json_object_get(state, exceeded)));
	}
}

/* It may end elsewhere, but we do first. */
static bool
is_cut_short(struct turn_waits *waits, const char *state)
{
	return waits->is_ending && strcmp(state, "waiting_tools") != 0 &&
	       strcmp(state, "completed") != 0 && strcmp(state, "cancelled") != 0;
}

/* The answer to a turn that was not streamed; a failed one is an HTTP error. */
static void
reply_result(struct api_call *call, const json_t *state)
{
	const char *is = text_of(state, "state");

	if (strcmp(is, "failed") == 0) {
		reply_failed(call, state);
		return;
	}
	if (is_cut_short(call->api->turn_waits, is)) {
		call_reply_retry(call, E_DRAINING, 1, err_info(E_DRAINING)->text);
		return;
	}
	bool is_waiting = strcmp(is, "waiting_tools") == 0;
	json_t *pending = json_object_get(state, "pending_tool_calls");
	json_t *json = json_pack("{s:s,s:s,s:s,s:O?,s:O?,s:O?}", "turn_id", call->turn_id.s,
	    "session_id", call->session_id.s, "state", is, "message",
	    json_object_get(state, "message"), "usage", json_object_get(state, "usage"),
	    "finish_reason", json_object_get(state, "finish_reason"));
	json_object_set_new(json, "tool_calls",
	    is_waiting && pending != NULL ? json_incref(pending) : json_array());
	if (is_waiting)
		json_object_set_new(json, "finish_reason", json_string("tool_calls"));
	call_reply_json(call, 200, json);
}

/* ---- a result: present as a listener, answered by the state ---- */

static struct turn_wait *
wait_new(struct api_call *call, struct list *all)
{
	struct turn_wait *wait = xcalloc(1, sizeof(*wait));

	wait->call = call;
	list_add_tail(all, &wait->node);
	return wait;
}

static void
wait_free(struct turn_wait *wait)
{
	list_del(&wait->node);
	free(wait);
}

static bool
wait_on_event(void *arg, const struct turn_event *event)
{
	(void)arg;
	(void)event;
	return true;
}

static void
wait_on_end(void *arg, int err)
{
	struct turn_wait *wait = arg;

	wait->listener = 0;
	/* The answer may have been on its way when Redis went. */
	if (err == 0)
		turn_hurry_state(wait->call->api->turns, wait->question);
}

static const struct turn_listener_handlers wait_handlers = {wait_on_event, wait_on_end};

static void
wait_on_gone(void *arg)
{
	struct turn_wait *wait = arg;
	struct turns *turns = wait->call->api->turns;

	if (wait->listener != 0)
		turn_detach(turns, wait->listener, true);
	turn_forget_state(turns, wait->question);
	call_end(wait->call);
	wait_free(wait);
}

static void
wait_on_state(void *arg, int err, json_t *state)
{
	struct turn_wait *wait = arg;
	struct api_call *call = wait->call;
	struct http_req *req = call_req(call);

	if (wait->listener != 0)
		turn_detach(call->api->turns, wait->listener, false);
	if (req != NULL)
		http_on_gone(req, NULL, NULL);
	wait_free(wait);
	if (err != 0)
		call_reply_error(call, err, NULL, NULL);
	else
		reply_result(call, state);
}

void
turn_wait_for_result(struct api_call *call, struct http_req *req, uint64_t originator)
{
	struct turn_wait *wait = wait_new(call, &call->api->turn_waits->results);

	wait->listener = turn_attach(call->api->turns, &call->session_id, &call->turn_id, 0,
	    originator, &wait_handlers, wait);
	http_on_gone(req, wait_on_gone, wait);
	wait->question = turn_get_state(call->api->turns, &call->session_id, &call->turn_id,
	    (uint32_t)call->api->conf->turns.total_timeout_ms + 5000, wait_on_state, wait);
}

/* ---- news: the long poll ---- */

static void
poll_free(struct turn_wait *poll)
{
	poll->call->api->turn_waits->poll_count--;
	wait_free(poll);
}

static void
poll_on_gone(void *arg)
{
	struct turn_wait *poll = arg;
	struct api_call *call = poll->call;

	turn_forget_state(call->api->turns, poll->question);
	poll_free(poll);
	call_end(call);
}

static void
poll_on_state(void *arg, int err, json_t *state)
{
	struct turn_wait *poll = arg;
	struct api_call *call = poll->call;
	struct http_req *req = call_req(call);

	poll_free(poll);
	if (req != NULL)
		http_on_gone(req, NULL, NULL);
	if (err != 0)
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such turn." : NULL);
	else
		call_reply_json(call, 200, json_incref(state));
}

void
turn_wait_for_news(struct api_call *call, struct http_req *req, uint32_t wait_ms)
{
	struct turn_waits *waits = call->api->turn_waits;
	struct turn_wait *poll = wait_new(call, &waits->polls);

	if (waits->is_draining)
		wait_ms = 0;
	waits->poll_count++;
	if (wait_ms > 0)
		http_on_gone(req, poll_on_gone, poll);
	poll->question = turn_get_state(
	    call->api->turns, &call->session_id, &call->turn_id, wait_ms, poll_on_state, poll);
}

/* ---- all of them ---- */

/* Their next one waits elsewhere. Answered they leave the list, soon. */
static void
on_drain_step(struct loop_timer *t)
{
	struct turn_waits *waits = container_of(t, struct turn_waits, drain_step);
	uint32_t n = farewell_batch(waits->api->conf, waits->poll_count);

	list_for (node, &waits->polls) {
		if (n-- == 0)
			break;
		turn_hurry_state(
		    waits->api->turns, list_entry(node, struct turn_wait, node)->question);
	}
	if (waits->poll_count > 0)
		loop_timer_set(waits->api->loop, t, FAREWELL_STEP_MS);
}

/* What runs here has ended by now, one way or the other. */
static void
on_drain_end(struct loop_timer *t)
{
	struct turn_waits *waits = container_of(t, struct turn_waits, drain_end);

	waits->is_ending = true;
	list_for (node, &waits->results)
		turn_hurry_state(
		    waits->api->turns, list_entry(node, struct turn_wait, node)->question);
}

void
turn_waits_drain(struct turn_waits *waits)
{
	waits->is_draining = true;
	loop_timer_set(waits->api->loop, &waits->drain_step, 0);
	loop_timer_set(waits->api->loop, &waits->drain_end, farewell_end_ms(waits->api->conf));
}

struct turn_waits *
turn_waits_new(struct api *api)
{
	struct turn_waits *waits = xcalloc(1, sizeof(*waits));

	waits->api = api;
	list_init(&waits->polls);
	list_init(&waits->results);
	waits->drain_step.on_fire = on_drain_step;
	waits->drain_end.on_fire = on_drain_end;
	return waits;
}

void
turn_waits_free(struct turn_waits **ref)
{
	struct turn_waits *waits = *ref;

	if (waits == NULL)
		return;
	*ref = NULL;
	check(list_empty(&waits->polls) && list_empty(&waits->results));
	loop_timer_stop(waits->api->loop, &waits->drain_step);
	loop_timer_stop(waits->api->loop, &waits->drain_end);
	free(waits);
}
