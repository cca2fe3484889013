/* sessions - a queue of who waits, and connections that serve it. */
#include "loadtest/parley_load/sessions.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/list.h"
#include "loadtest/parley_load/user.h"

enum { CONNS = 8 };

struct waiter {
	struct list node;
	uint64_t number; /* from 0, in this process */
	void (*on_session)(void *arg, struct str id);
	void *arg;
};

struct opener {
	struct load *load;
	struct conn *conn;
	struct waiter *serves; /* NULL: idle */
	struct buf body;
};

static struct opener openers[CONNS];
static struct list waiting = LIST_INIT(waiting);
static uint64_t count;

static void
request(void *arg)
{
	struct opener *o = arg;
	const struct options *options = o->load->options;
	struct buf body = BUF_INIT;

	if (options->devices == NULL)
		buf_add_cstr(&body, "{}");
	else
		buf_printf(&body, "{\"device_id\":\"%s-%u-%llu\",\"reuse\":true}", options->devices,
		    o->load->process, (unsigned long long)o->serves->number);
	buf_clear(&o->body);
	conn_request(o->conn, "POST", "/v1/sessions", buf_str(&body));
	buf_fini(&body);
}

static void
serve_next(struct opener *o)
{
	o->serves = list_first(&waiting, struct waiter, node);
	if (o->serves == NULL)
		return;
	list_del(&o->serves->node);
	request(o);
}

static void
on_data(void *arg, struct str bytes)
{
	struct opener *o = arg;

	buf_add_str(&o->body, bytes);
}

static void
on_done(void *arg, int status)
{
	struct opener *o = arg;
	struct waiter served = *o->serves;
	bool is_open = status == 200 || status == 201;

	if (status == 503) {
		load_after(o->load, 1000 * conn_retry_after_s(o->conn) + (uint64_t)random() % 1000,
		    request, o);
		return;
	}
	struct str id = is_open ? user_find(buf_str(&o->body), "id") : STR_NONE;
	served.on_session(served.arg, id.len < USER_SESSION_MAX ? id : STR_NONE);
	free(o->serves);
	serve_next(o);
}

static const struct conn_handlers handlers = {on_data, on_done};

void
sessions_open(struct load *load, void (*on_session)(void *arg, struct str id), void *arg)
{
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));

	waiter->on_session = on_session;
	waiter->arg = arg;
	waiter->number = count++;
	list_add_tail(&waiting, &waiter->node);
	for (size_t i = 0; i < CONNS; i++) {
		struct opener *o = &openers[i];

		if (o->serves != NULL)
			continue;
		if (o->conn == NULL) {
			o->load = load;
			o->conn = conn_new(&load->target, &handlers, o);
		}
		serve_next(o);
		return;
	}
}
