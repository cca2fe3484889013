/* user - a session opened, and one text found in an answer. */
#include "loadtest/parley_load/user.h"

#include <stdlib.h>

#include "common/check.h"

struct opening {
	struct load *load;
	struct conn *conn;
	struct buf body;
	void (*on_session)(void *arg, struct str id);
	void *arg;
};

struct str
user_find(struct str json, const char *name)
{
	struct buf pattern = BUF_INIT;
	struct str found = STR_NONE;

	buf_printf(&pattern, "\"%s\":", name);
	char *at = json.len > 0 ? memmem(json.p, json.len, pattern.data, pattern.len) : NULL;
	if (at != NULL) {
		struct str rest =
		    str_sub(at + pattern.len, json.len - (size_t)(at - json.p) - pattern.len);

		str_split(&rest, '"');
		found = str_split(&rest, '"');
	}
	buf_fini(&pattern);
	return found;
}

static void
on_data(void *arg, struct str bytes)
{
	struct opening *o = arg;

	buf_add_str(&o->body, bytes);
}

static void
open_again(void *arg)
{
	struct opening *o = arg;

	buf_clear(&o->body);
	conn_request(o->conn, "POST", "/v1/sessions", STR("{}"));
}

static void
on_done(void *arg, int status)
{
	struct opening *o = arg;
	struct str id = status == 201 ? user_find(buf_str(&o->body), "id") : STR_NONE;

	if (status == 503) {
		load_after(o->load, 1000 * conn_retry_after_s(o->conn) + (uint64_t)random() % 1000,
		    open_again, o);
		return;
	}
	o->on_session(o->arg, id.len < USER_SESSION_MAX ? id : STR_NONE);
	conn_free(&o->conn);
	buf_fini(&o->body);
	free(o);
}

static const struct conn_handlers handlers = {on_data, on_done};

void
user_open_session(struct load *load, void (*on_session)(void *arg, struct str id), void *arg)
{
	struct opening *o = xcalloc(1, sizeof(*o));

	o->load = load;
	o->on_session = on_session;
	o->arg = arg;
	o->conn = conn_new(&load->target, &handlers, o);
	open_again(o);
}

bool
user_keep_session(struct load *load, struct str id, char ret_session[USER_SESSION_MAX])
{
	if (id.len == 0) {
		load_gone(load);
		return false;
	}
	check(id.len < USER_SESSION_MAX);
	memcpy(ret_session, id.p, id.len);
	ret_session[id.len] = '\0';
	return true;
}
