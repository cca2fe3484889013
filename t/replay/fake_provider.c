/* fake_provider - calls in a list, the newest is the one that speaks. */
#include "t/replay/fake_provider.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/list.h"

struct call {
	struct list node;
	struct providers *providers;
	uint64_t handle;
	struct provider_handlers handlers;
	void *arg;
	struct loop_post post;
};

struct providers {
	struct loop *loop;
	struct list open; /* newest last */
	unsigned calls, cancelled;
	json_t *messages, *tools;
	uint32_t timeout_ms;
	const char *auto_text;
};

struct providers *
fake_providers_new(struct loop *loop)
{
	struct providers *p = xcalloc(1, sizeof(*p));

	p->loop = loop;
	list_init(&p->open);
	return p;
}

static void
call_free(struct call *c)
{
	loop_post_cancel(c->providers->loop, &c->post);
	list_del(&c->node);
	free(c);
}

void
providers_free(struct providers **ret)
{
	struct providers *p = *ret;

	if (p == NULL)
		return;
	check(list_empty(&p->open)); /* whoever called has ended or cancelled */
	json_decref(p->messages);
	json_decref(p->tools);
	free(p);
	*ret = NULL;
}

unsigned
fake_provider_calls(const struct providers *p)
{
	return p->calls;
}

unsigned
fake_provider_open(const struct providers *p)
{
	unsigned count = 0;

	list_for (node, &p->open)
		count++;
	return count;
}

unsigned
fake_provider_cancelled(const struct providers *p)
{
	return p->cancelled;
}

const json_t *
fake_provider_messages(const struct providers *p)
{
	return p->messages;
}

const json_t *
fake_provider_tools(const struct providers *p)
{
	return p->tools;
}

uint32_t
fake_provider_timeout(const struct providers *p)
{
	return p->timeout_ms;
}

static struct call *
newest(struct providers *p)
{
	check(!list_empty(&p->open));
	return list_entry(p->open.prev, struct call, node);
}

void
fake_provider_say(struct providers *p, const char *text)
{
	struct call *c = newest(p);

	c->handlers.on_text(c->arg, str_of(text));
}

void
fake_provider_restart(struct providers *p)
{
	struct call *c = newest(p);

	c->handlers.on_restarted(c->arg);
}

void
fake_provider_think(struct providers *p, const char *text)
{
	struct call *c = newest(p);

	c->handlers.on_reasoning(c->arg, str_of(text));
}

static void
end_call(struct call *c, const struct provider_result *r)
{
	struct provider_handlers handlers = c->handlers;
	void *arg = c->arg;

	call_free(c);
	handlers.on_done(arg, r);
}

static struct provider_result
good_result(enum provider_finish finish)
{
	return (struct provider_result){
	    .finish = finish,
	    .usage = {.input_tokens = 10, .output_tokens = 5, .cached_tokens = 2},
	    .provider = "fake",
	    .model = "fake-1",
	};
}

void
fake_provider_finish(struct providers *p, enum provider_finish finish)
{
	struct provider_result r = good_result(finish);

	end_call(newest(p), &r);
}

void
fake_provider_end(struct providers *p)
{
	fake_provider_finish(p, PROVIDER_FINISH_STOP);
}

void
fake_provider_fail(struct providers *p, int err, const char *message)
{
	struct provider_result r = {.err = err, .message = message};

	end_call(newest(p), &r);
}

void
fake_provider_ask(struct providers *p, const struct provider_tool_call *calls, uint32_t count)
{
	struct provider_result r = good_result(PROVIDER_FINISH_TOOL_CALLS);

	r.tool_calls = calls;
	r.tool_call_count = count;
	end_call(newest(p), &r);
}

void
fake_provider_ask_one(struct providers *p, const char *id, const char *name, const char *arguments)
{
	struct provider_tool_call call = {id, name, arguments};

	fake_provider_ask(p, &call, 1);
}

void
fake_provider_auto(struct providers *p, const char *text)
{
	p->auto_text = text;
}

static void
run_auto(struct loop_post *post)
{
	struct call *c = container_of(post, struct call, post);
	struct provider_result r = good_result(PROVIDER_FINISH_STOP);

	c->handlers.on_text(c->arg, str_of(c->providers->auto_text));
	end_call(c, &r);
}

/* The history is text: it must be JSON, whatever the record holds. */
static json_t *
all_messages(const struct provider_request *r)
{
	struct buf text = BUF_INIT;
	json_t *all, *more = json_deep_copy(r->messages);

	buf_add_char(&text, '[');
	buf_add_str(&text, r->history);
	buf_add_char(&text, ']');
	all = json_loadb(text.data, text.len, 0, NULL);
	check(all != NULL);
	json_array_extend(all, more);
	json_decref(more);
	buf_fini(&text);
	return all;
}

uint64_t
provider_call(struct providers *p, const struct provider_request *request,
    const struct provider_handlers *handlers, void *arg)
{
	struct call *c = xcalloc(1, sizeof(*c));

	check(json_is_array(request->messages));
	c->providers = p;
	c->handle = ++p->calls;
	c->handlers = *handlers;
	c->arg = arg;
	c->post.run = run_auto;
	list_add_tail(&p->open, &c->node);
	json_decref(p->messages);
	p->messages = all_messages(request);
	json_decref(p->tools);
	p->tools = request->tools != NULL ? json_deep_copy(request->tools) : NULL;
	p->timeout_ms = request->timeout_ms;
	if (p->auto_text != NULL)
		loop_post(p->loop, &c->post);
	return c->handle;
}

void
provider_cancel(struct providers *p, uint64_t handle)
{
	list_for_safe (node, &p->open) {
		struct call *c = list_entry(node, struct call, node);

		if (c->handle != handle)
			continue;
		p->cancelled++;
		call_free(c);
	}
}

bool
providers_know_model(const struct providers *p, const char *alias)
{
	(void)p;
	return strcmp(alias, "default") == 0 || strcmp(alias, "free") == 0;
}

int64_t
providers_cost(const struct providers *p, const char *alias, const struct provider_usage *u)
{
	(void)p;
	if (strcmp(alias, "default") != 0)
		return -1;
	return (int64_t)(u->input_tokens + 2 * u->output_tokens);
}

uint32_t
providers_context_tokens(const struct providers *p, const char *alias)
{
	(void)p;
	(void)alias;
	return 4000;
}
