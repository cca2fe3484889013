/*
 * run - a call of a server's tool for a turn, from its arguments to its outcome; on the way it may
 * ask back.
 *
 *   called --answered--> ended
 *     |  \--asks back--> questions --all answered--> called again      (2026-07-28: a round)
 *     +-- asks back, in the midst of the call                            (older revisions)
 */
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/strmap.h"
#include "worker/mcp/result.h"
#include "worker/mcp/runner_impl.h"
#include "worker/mcp/sampling.h"
#include "worker/mcp/schema.h"

enum {
	AGAIN_MS = 250,
	ROUND_MAX = 16, /* questions of one round, as of older servers at a time (question.c) */
};

struct run {
	struct mcp_runner *runner;
	uint64_t handle, call;
	tool_on_outcome *on_outcome;
	void *arg;
	struct loop_post post;
	char *refusal; /* it was not made */

	size_t server;
	char *params;
	struct tool_caller caller;
	struct list questions; /* to the model */
	int64_t rounds;
	struct buf responses, state; /* of this round; as they are to be sent */
	struct loop_timer again;
};

struct question {
	struct list node;
	struct run *run;
	uint64_t aside;
	uint64_t number; /* of an older server's; 0: of a round .. */
	char *key;       /* .. under this one, as it was written */
};

/* ---- life ---- */

static void
question_free(struct question *q)
{
	q->run->caller.cancel(q->run->caller.self, q->aside);
	list_del(&q->node);
	free(q->key);
	free(q);
}

static void
run_free(struct run *run)
{
	struct question *q;

	while ((q = list_first(&run->questions, struct question, node)) != NULL)
		question_free(q);
	idmap_remove(run->runner->runs, run->handle);
	loop_post_cancel(run->runner->loop, &run->post);
	loop_timer_stop(run->runner->loop, &run->again);
	mcp_cancel(run->runner->upstreams, run->call);
	buf_fini(&run->responses);
	buf_fini(&run->state);
	free(run->params);
	free(run->refusal);
	free(run);
}

static void
end_run(struct run *run, const struct tool_outcome *outcome)
{
	tool_on_outcome *on_outcome = run->on_outcome;
	void *arg = run->arg;

	run_free(run);
	on_outcome(arg, outcome);
}

static void
end_with(struct run *run, const char *error)
{
	end_run(run, &(struct tool_outcome){.error = error});
}

static void
run_refused(struct loop_post *post)
{
	struct run *run = container_of(post, struct run, post);
	char *refusal = run->refusal;
	struct tool_outcome outcome = {.error = refusal};

	run->refusal = NULL;
	end_run(run, &outcome);
	free(refusal);
}

static void
end_by_error(struct run *run, const struct mcp_answer *a)
{
	struct buf text = BUF_INIT;

	if (a->err == 0 && a->message.len > 0)
		json_scan_decode(a->message, &text);
	if (a->err == 0 && text.len == 0)
		buf_printf(&text, "The tool server refused with code %lld.", (long long)a->code);
	end_run(run, &(struct tool_outcome){.error = a->err != 0 ? a->why : text.data,
			 .is_timeout = a->err == E_TIMEOUT});
	buf_fini(&text);
}

/* ---- it asks back ---- */

static void send_call(struct run *);

static bool
may_sample(const struct run *run)
{
	return run->runner->conf->mcp.servers.v[run->server].turn_sampling;
}

static void
add_response(struct run *run, struct str key, struct str result)
{
	buf_add_cstr(&run->responses, run->responses.len > 0 ? ",\"" : "\"");
	buf_add_str(&run->responses, key);
	buf_add_cstr(&run->responses, "\":");
	buf_add_str(&run->responses, result);
}

static void
answer_question(struct run *run, uint64_t number, const struct tool_aside *a, struct str result)
{
	struct jsonrpc m = {.kind = JSONRPC_RESULT, .result = result};
	struct buf why = BUF_INIT;

	if (a->err != 0) {
		jsonrpc_add_string(&why, str_of(a->why));
		m = (struct jsonrpc){
		    .kind = JSONRPC_ERROR, .code = MCP_INTERNAL_ERROR, .message = buf_str(&why)};
	}
	mcp_answer(run->runner->upstreams, run->call, number, &m);
	buf_fini(&why);
}

static void
take_aside(struct question *q, const struct tool_aside *a, struct str result)
{
	struct run *run = q->run;
	uint64_t number = q->number;

	q->aside = 0;
	if (number == 0 && a->err == 0)
		add_response(run, str_of(q->key), result);
	question_free(q);
	if (number != 0) {
		answer_question(run, number, a, result);
	} else if (a->err != 0) {
		char *why = xasprintf("The tool asks for a model's answer: %s", a->why);

		end_with(run, why);
		free(why);
	} else if (list_empty(&run->questions)) {
		send_call(run);
	}
}

static void
on_aside(void *arg, const struct tool_aside *a)
{
	struct buf result = BUF_INIT;

	if (a->err == 0)
		mcp_sampling_add_result(&result, a->text, a->model, a->is_cut);
	take_aside(arg, a, buf_str(&result));
	buf_fini(&result);
}

/* False: it cannot be asked. */
static bool
ask_model(struct run *run, struct str params, uint64_t number, struct str key)
{
	uint32_t max_tokens;
	json_t *messages = mcp_sampling_read(params, &max_tokens);
	struct question *q;

	if (messages == NULL)
		return false;
	q = xcalloc(1, sizeof(*q));
	q->run = run;
	q->number = number;
	q->key = xstrndup(key.p != NULL ? key.p : "", key.len);
	list_add_tail(&run->questions, &q->node);
	q->aside = run->caller.ask(run->caller.self, messages, max_tokens, on_aside, q);
	json_decref(messages);
	return true;
}

static const char *
take_request(struct run *run, struct str key, struct str request)
{
	struct buf method = BUF_INIT;
	struct str params = STR_NONE;
	const char *why = NULL;

	if (request.p[0] != '{' || !jsonrpc_text_member(request, "method", &method)) {
		why = "The tool server's answer is no result.";
	} else if (str_eq(buf_str(&method), STR("roots/list"))) {
		add_response(run, key, STR("{\"roots\":[]}"));
	} else if (!str_eq(buf_str(&method), STR("sampling/createMessage"))) {
		why = "The tool asks the user, which is not possible in a turn.";
	} else if (!may_sample(run)) {
		why = "The tool asks for a model's answer, which the option turn_sampling of its "
		      "server does not allow.";
	} else {
		jsonrpc_member(request, "params", &params);
		if (!ask_model(run, params, 0, key))
			why = "The tool asks for a model's answer in a way that is not possible.";
	}
	buf_fini(&method);
	return why;
}

static const char *
take_requests(struct run *run, struct str requests)
{
	struct str key, value;
	const char *why = NULL;
	struct json_scan s;
	unsigned n = 0;

	json_scan_init(&s, requests);
	if (!json_scan_object(&s))
		return "The tool server's answer is no result.";
	while (why == NULL && json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value))
		why = n++ < ROUND_MAX ? take_request(run, key, value)
				      : "The tool asks for too much at once.";
	return why;
}

static void
on_again(struct loop_timer *timer)
{
	send_call(container_of(timer, struct run, again));
}

static void
take_round(struct run *run, struct str result)
{
	struct str requests, state;
	const char *why = NULL;

	buf_clear(&run->responses);
	buf_clear(&run->state);
	if (jsonrpc_member(result, "requestState", &state))
		buf_add_str(&run->state, state);
	if (++run->rounds > run->runner->conf->mcp.max_rounds)
		why = "The tool asks back in too many rounds.";
	else if (jsonrpc_member(result, "inputRequests", &requests))
		why = take_requests(run, requests);
	if (why != NULL) {
		end_with(run, why);
	} else if (list_empty(&run->questions)) {
		run->again.on_fire = on_again;
		loop_timer_set(run->runner->loop, &run->again, AGAIN_MS);
	}
}

/* An older server, in the midst of the call. */
static void
on_question(void *arg, const struct jsonrpc *m, uint64_t number)
{
	static const struct tool_aside well;
	struct run *run = arg;
	const struct jsonrpc refusal = {.kind = JSONRPC_ERROR,
	    .code = MCP_METHOD_NOT_FOUND,
	    .message = STR("\"A turn has no such method.\"")};
	bool is_sampling = strcmp(m->method, "sampling/createMessage") == 0;

	if (strcmp(m->method, "roots/list") == 0)
		answer_question(run, number, &well, STR("{\"roots\":[]}"));
	else if (!is_sampling || !may_sample(run) ||
		 ++run->rounds > run->runner->conf->mcp.max_rounds ||
		 !ask_model(run, m->params, number, STR_NONE))
		mcp_answer(run->runner->upstreams, run->call, number, &refusal);
}

/* ---- the answer ---- */

static void
on_answer(void *arg, const struct mcp_answer *a)
{
	struct run *run = arg;
	struct mcp_result result;
	struct str type;

	run->call = 0;
	if (a->err != 0 || a->result.len == 0) {
		end_by_error(run, a);
		return;
	}
	if (jsonrpc_member(a->result, "resultType", &type) && !str_eq(type, STR("\"complete\""))) {
		if (str_eq(type, STR("\"input_required\"")))
			take_round(run, a->result);
		else
			end_with(run, "The tool server's answer is of an unknown kind.");
		return;
	}
	if (!mcp_result_read(
		a->result, (size_t)run->runner->conf->tools.max_output_bytes, &result)) {
		end_run(
		    run, &(struct tool_outcome){.error = "The tool server's answer is no result."});
		return;
	}
	end_run(run, &(struct tool_outcome){
			 .error = !result.is_error      ? NULL
				  : result.text.len > 0 ? result.text.data
							: "The tool failed.",
			 .output = result.is_error ? NULL : result.output,
			 .content = buf_str(&result.text),
			 .images = result.is_error ? NULL : result.images,
		     });
	mcp_result_fini(&result);
}

/* What it may ask for is told to a modern server with each call. */
static char *
format_params(const struct dish *d, const json_t *arguments, bool with_sampling)
{
	json_t *params = json_pack("{s:s,s:O}", "name", d->key, "arguments", (json_t *)arguments);

	if (with_sampling)
		json_object_set_new(
		    params, "_meta", json_pack("{s:{s:{}}}", MCP_META_CAPABILITIES, "sampling"));
	char *text = json_dumps(params, JSON_COMPACT);

	check(text != NULL);
	json_decref(params);
	return text;
}

/* Again with the answers of the last round, and what the server wants to have back. */
static void
send_call(struct run *run)
{
	static const struct mcp_handlers handlers = {
	    .on_answer = on_answer, .on_question = on_question};
	struct buf params = BUF_INIT;

	buf_add(&params, run->params, strlen(run->params) - 1);
	if (run->responses.len > 0)
		buf_printf(&params, ",\"inputResponses\":{%.*s}", (int)run->responses.len,
		    run->responses.data);
	if (run->state.len > 0) {
		buf_add_cstr(&params, ",\"requestState\":");
		buf_add_str(&params, buf_str(&run->state));
	}
	buf_add_char(&params, '}');
	run->call = mcp_call(run->runner->upstreams, run->server,
	    &(struct mcp_request){.method = "tools/call", .params = buf_str(&params)}, &handlers,
	    run);
	buf_fini(&params);
}

uint64_t
run_call(struct tool_menu *m, const char *name, const json_t *arguments,
    const struct tool_caller *caller, tool_on_outcome *on_outcome, void *arg)
{
	const struct dish *d = strmap_get(m->by_name, str_of(name));
	struct run *run = xcalloc(1, sizeof(*run));
	struct buf why = BUF_INIT;

	check(d != NULL);
	run->runner = m->runner;
	run->on_outcome = on_outcome;
	run->arg = arg;
	run->post.run = run_refused;
	run->server = d->server;
	run->caller = *caller;
	list_init(&run->questions);
	run->handle = idmap_add(m->runner->runs, run);
	if (!schema_matches(d->schema, arguments, &why)) {
		run->refusal =
		    xasprintf("The arguments do not match the tool's schema: %s", why.data);
		loop_post(m->runner->loop, &run->post);
	} else {
		run->params = format_params(d, arguments, may_sample(run));
		send_call(run);
	}
	buf_fini(&why);
	return run->handle;
}

void
run_cancel(void *self, uint64_t handle)
{
	struct mcp_runner *r = self;
	struct run *run = handle != 0 ? idmap_get(r->runs, handle) : NULL;

	if (run == NULL)
		return;
	run_free(run);
}
