/*
 * runner - see runner.h.
 *
 * What is on offer is read once for each change of a list and shared by all menus that are opened
 * until the next one.
 */
#include "worker/mcp/runner.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/log.h"
#include "common/strmap.h"
#include "worker/mcp/result.h"
#include "worker/mcp/sampling.h"
#include "worker/mcp/schema.h"

enum {
	MODEL_NAME_MAX = 64,
	HASH_SHOWN = 8,
	AGAIN_MS = 250,
	ROUND_MAX = 16, /* questions of one round, as of older servers at a time (question.c) */
};

struct dish { /* a tool on offer */
	size_t server;
	char *key; /* the server's name for it */
	char name[MODEL_NAME_MAX + 1], long_name[MODEL_NAME_MAX + 1];
	json_t *function; /* {"description","parameters"}; without the name */
	json_t *schema;   /* of that */
};

struct offer {
	unsigned refs;
	struct dish *dishes;
	size_t count;
};

struct mcp_runner {
	struct mcp_upstreams *upstreams;
	struct loop *loop;
	const struct conf *conf;
	struct tool_runner table;
	struct offer *offer; /* NULL: to be read anew */
	struct idmap *runs;
};

struct tool_menu {
	struct mcp_runner *runner;
	struct offer *offer;
	struct strmap *by_name; /* struct dish */
};

/*
 *   called --answered--> ended
 *     |  \--asks back--> questions --all answered--> called again      (2026-07-28: a round)
 *     +-- asks back, in the midst of the call                            (older revisions)
 */
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

/* ---- what is on offer ---- */

static void
offer_unref(struct offer **ref)
{
	struct offer *o = *ref;

	*ref = NULL;
	if (o == NULL || --o->refs > 0)
		return;
	for (size_t i = 0; i < o->count; i++) {
		free(o->dishes[i].key);
		json_decref(o->dishes[i].function);
	}
	free(o->dishes);
	free(o);
}

static void
model_name(struct str name, char out[MODEL_NAME_MAX + 1])
{
	uint8_t hash[SHA256_LEN];
	size_t n = name.len < MODEL_NAME_MAX ? name.len : MODEL_NAME_MAX;

	for (size_t i = 0; i < n; i++) {
		char c = name.p[i];
		bool is_plain = (c >= '0' && c <= '9') ||
				((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' || c == '-';

		out[i] = is_plain ? c : '_';
	}
	out[n] = '\0';
	if (name.len <= MODEL_NAME_MAX)
		return;
	crypto_sha256(name, hash);
	snprintf(out + MODEL_NAME_MAX - HASH_SHOWN - 1, HASH_SHOWN + 2, "_%02x%02x%02x%02x",
	    hash[0], hash[1], hash[2], hash[3]);
}

static void
add_dish(struct mcp_runner *r, struct offer *o, const struct mcp_entry *e)
{
	struct mcp_upstream_info server;
	struct dish *d = &o->dishes[o->count];
	json_t *tool = json_loadb(e->item->json.p, e->item->json.len, 0, NULL);
	json_t *schema = json_object_get(tool, "inputSchema");
	json_t *description = json_object_get(tool, "description");
	char whole[MCP_PREFIX_MAX + MCP_NAME_MAX + 1];

	if (tool == NULL)
		return; /* no JSON to a stricter eye: twice the same key */
	mcp_upstream_get(r->upstreams, e->source, &server);
	*d = (struct dish){.server = e->source, .key = xstrndup(e->item->key.p, e->item->key.len)};
	snprintf(whole, sizeof(whole), "%s__%s", server.conf->name, d->key);
	model_name(e->name, d->name);
	model_name(str_of(whole), d->long_name);
	d->schema = json_is_object(schema)
			? json_incref(schema)
			: json_pack("{s:s,s:{}}", "type", "object", "properties");
	d->function = json_pack("{s:o}", "parameters", d->schema);
	if (json_is_string(description))
		json_object_set(d->function, "description", description);
	json_decref(tool);
	o->count++;
}

static struct offer *
read_offer(struct mcp_runner *r)
{
	const struct mcp_view *view = mcp_upstreams_view(r->upstreams, MCP_TOOLS);
	struct offer *o = xcalloc(1, sizeof(*o));

	o->refs = 1;
	o->dishes = xcalloc(mcp_view_count(view) + 1, sizeof(*o->dishes));
	for (size_t i = 0; i < mcp_view_count(view); i++)
		add_dish(r, o, mcp_view_at(view, i));
	return o;
}

static void
on_changed(void *arg, size_t server, enum mcp_kind kind)
{
	struct mcp_runner *r = arg;

	(void)server;
	if (kind == MCP_TOOLS)
		offer_unref(&r->offer);
}

/* ---- menus ---- */

static bool
may_use(const struct mcp_runner *r, const struct conf_app *app, size_t server)
{
	const char *name = r->conf->mcp.servers.v[server].name;

	return app == NULL || conf_list_has(&app->mcp_servers, "*") ||
	       conf_list_has(&app->mcp_servers, name);
}

static struct strmap *
names_of(const json_t *tools)
{
	struct strmap *names = strmap_new();

	for (size_t i = 0; i < json_array_size(tools); i++) {
		const json_t *f = json_object_get(json_array_get(tools, i), "function");
		const char *name = json_string_value(json_object_get(f, "name"));

		if (name != NULL)
			strmap_set(names, str_of(name), strmap_set);
	}
	return names;
}

static const char *
free_name(const struct tool_menu *m, const struct strmap *taken, const struct dish *d)
{
	const char *const names[] = {d->name, d->long_name};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strmap_get(taken, str_of(names[i])) == NULL &&
		    strmap_get(m->by_name, str_of(names[i])) == NULL)
			return names[i];
	}
	return NULL;
}

static void
serve(struct tool_menu *m, const struct strmap *taken, struct dish *d, json_t *tools)
{
	const char *name = free_name(m, taken, d);

	if (name == NULL) {
		log_info("mcp tool not offered tool=%s reason=\"its name is taken\"", d->long_name);
		return;
	}
	strmap_set(m->by_name, str_of(name), d);
	json_t *function = json_copy(d->function); /* flat: the schema is shared */
	json_object_set_new(function, "name", json_string(name));
	json_array_append_new(
	    tools, json_pack("{s:s,s:o}", "type", "function", "function", function));
}

static struct tool_menu *
open_menu(void *self, const struct conf_app *app, size_t max, json_t *tools)
{
	struct mcp_runner *r = self;
	struct strmap *taken;

	if (r->offer == NULL)
		r->offer = read_offer(r);
	if (r->offer->count == 0)
		return NULL;
	struct tool_menu *m = xcalloc(1, sizeof(*m));
	m->runner = r;
	m->offer = r->offer;
	m->offer->refs++;
	m->by_name = strmap_new();
	taken = names_of(tools);
	for (size_t i = 0; i < m->offer->count; i++) {
		struct dish *d = &m->offer->dishes[i];

		if (!may_use(r, app, d->server))
			continue;
		if (max > 0 && json_array_size(tools) >= max) {
			log_warn("mcp tools not offered reason=\"tools.max_tools\" max=%zu", max);
			break;
		}
		serve(m, taken, d, tools);
	}
	strmap_free(&taken);
	return m;
}

static void
close_menu(struct tool_menu *m)
{
	if (m == NULL)
		return;
	strmap_free(&m->by_name);
	offer_unref(&m->offer);
	free(m);
}

static const char *
server_of(const struct tool_menu *m, const char *name)
{
	const struct dish *d = strmap_get(m->by_name, str_of(name));

	return d != NULL ? m->runner->conf->mcp.servers.v[d->server].name : NULL;
}

/* ---- calls ---- */

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

static uint64_t
call_tool(struct tool_menu *m, const char *name, const json_t *arguments,
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

static void
cancel_run(void *self, uint64_t handle)
{
	struct mcp_runner *r = self;
	struct run *run = handle != 0 ? idmap_get(r->runs, handle) : NULL;

	if (run == NULL)
		return;
	run_free(run);
}

/* ---- life ---- */

struct mcp_runner *
mcp_runner_new(struct mcp_upstreams *upstreams, struct loop *loop, const struct conf *conf)
{
	struct mcp_runner *r = xcalloc(1, sizeof(*r));

	r->upstreams = upstreams;
	r->loop = loop;
	r->conf = conf;
	r->runs = idmap_new();
	r->table = (struct tool_runner){
	    .self = r,
	    .open = open_menu,
	    .server_of = server_of,
	    .call = call_tool,
	    .cancel = cancel_run,
	    .close = close_menu,
	};
	mcp_upstreams_on_changed(upstreams, on_changed, r);
	return r;
}

void
mcp_runner_free(struct mcp_runner **ref)
{
	struct mcp_runner *r = *ref;

	if (r == NULL)
		return;
	*ref = NULL;
	check(idmap_count(r->runs) == 0);
	offer_unref(&r->offer);
	idmap_free(&r->runs);
	free(r);
}

const struct tool_runner *
mcp_runner_table(struct mcp_runner *r)
{
	return &r->table;
}
