/*
 * mcp_own_task - the tool task_status: a task of the key's app as GET /v1/tasks/{id} shows it, at
 * once, when it has ended or after a while.
 *
 * The record cannot be told to stop: who has been dropped meanwhile is freed when it has answered,
 * which is soon, because then nobody waits for the end any more.
 */
#include <stdlib.h>

#include "worker/api/mcp_impl.h"
#include "worker/api/task_shape.h"

struct status {
	struct mcp_own own; /* ask NULL: nobody waits any more */
	struct task_wait wait;
	struct id id;
	char *app_id;
};

static void
drop(struct mcp_own *own)
{
	own->ask = NULL;
	task_wait_hurry(&container_of(own, struct status, own)->wait);
}

static void
on_task(void *arg, int err, const struct store_task *t)
{
	struct status *s = arg;
	struct mcp_ask *a = s->own.ask;

	free(s->app_id);
	if (a != NULL)
		a->own = NULL;
	free(s);
	if (a == NULL)
		return;
	if (err != 0) {
		mcp_own_fail(a, err == E_NOT_FOUND ? "No such task." : err_info(err)->text);
		return;
	}
	json_t *json = shape_task(t, true);
	char *text = json_dumps(json, JSON_COMPACT);

	mcp_own_reply_structured(a, str_of(text));
	free(text);
	json_decref(json);
}

void
mcp_own_task_status(struct mcp_ask *a, struct str arguments)
{
	struct buf text = BUF_INIT;
	int64_t wait_s = 0;
	struct str unused;
	struct id id;

	if (!jsonrpc_text_member(arguments, "id", &text) ||
	    !id_parse(buf_str(&text), "task", &id)) {
		mcp_own_fail(a, "No such task.");
	} else if (jsonrpc_member(arguments, "wait", &unused) &&
		   (!jsonrpc_int_member(arguments, "wait", &wait_s) || wait_s < 0 ||
		       wait_s > TASK_WAIT_MAX_S)) {
		mcp_own_fail(a, "wait is a whole number of seconds from 0 to 60.");
	} else {
		struct status *s = xcalloc(1, sizeof(*s));

		s->app_id = xstrdup(a->call->app_id);
		mcp_own_begin(a, &s->own, drop);
		task_wait_start(a->front->api->tasks, &s->wait, &id, s->app_id,
		    (uint32_t)wait_s * 1000, on_task, s);
	}
	buf_fini(&text);
}
