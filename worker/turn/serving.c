/*
 * serving - the tools of a turn that servers run: they join what the client offers, are called in
 * parallel, and cancelled with the turn.
 */
#include <stdlib.h>

#include "worker/turn/turn_impl.h"

struct serving {
	struct list node; /* turn->servings */
	struct turn *turn;
	struct tool_call *call;
	uint64_t run;
};

void
turn_read_menu(struct turn *t)
{
	const struct tool_runner *r = t->turns->runner;

	if (r == NULL || t->has_menu)
		return;
	t->has_menu = true;
	json_t *tools = t->tools != NULL ? json_copy(t->tools) : json_array();
	t->menu = r->open(r->self, t->app, (size_t)t->turns->conf->tools.max_tools, tools);
	if (t->menu == NULL) {
		json_decref(tools);
		return;
	}
	json_decref(t->tools);
	t->tools = tools;
}

bool
turn_is_served(const struct turn *t, const char *tool)
{
	return t->menu != NULL && t->turns->runner->server_of(t->menu, tool) != NULL;
}

/* The serving is cancelled before its turn goes: the pointer is good. */
static void
on_outcome(void *arg, const struct tool_outcome *o)
{
	struct serving *s = arg;
	struct turn *t = s->turn;
	struct tool_call *c = s->call;
	bool is_same;

	list_del(&s->node);
	free(s);
	check(t->state == TURN_STATE_TOOLS && c->state == TOOL_PENDING);
	check(tool_call_answer(c, o->output, o->error, &is_same) == 0);
	c->is_late = o->is_timeout;
	if (o->error == NULL)
		tool_call_tell(c, o->content, o->images);
	turn_tool_answered(t, c, o->output, o->error);
}

void
turn_serve(struct turn *t, struct tool_call *c)
{
	const struct tool_runner *r = t->turns->runner;
	const struct tool_caller caller = turn_caller(t);
	struct serving *s = xcalloc(1, sizeof(*s));

	s->turn = t;
	s->call = c;
	list_add_tail(&t->servings, &s->node);
	s->run = r->call(t->menu, c->name, c->arguments, &caller, on_outcome, s);
}

void
turn_stop_serving(struct turn *t)
{
	const struct tool_runner *r = t->turns->runner;
	struct serving *s;

	while ((s = list_first(&t->servings, struct serving, node)) != NULL) {
		r->cancel(r->self, s->run);
		list_del(&s->node);
		free(s);
	}
	turn_drop_asides(t);
}

void
turn_close_menu(struct turn *t)
{
	turn_stop_serving(t);
	if (t->menu != NULL)
		t->turns->runner->close(t->menu);
	t->menu = NULL;
}
