/*
 * errands - programs that another worker of the host speaks to: one worker has the pipes
 * (stdio_link.c), the others have what it says of the program, and give it their calls over the bus
 * (errand_call.c).
 *
 *   ASK     a worker begins: who speaks to programs?
 *   STATE   I do to this one; it is ready or not, and offers this. Who leaves waits for the answer
 *   WATCH   a resource, or not any more
 *   NEWS    what the server says that belongs to no request, to all
 */
#include "worker/mcp/errands_impl.h"

#include <stdlib.h>

#include "common/log.h"
#include "worker/backplane/owner.h"

enum { LEAVE_MS = 1000 };

struct upstream *
errands_find(const struct errands *r, uint64_t program)
{
	for (size_t i = 0; i < r->all->count; i++) {
		struct upstream *u = r->all->all[i];

		if (u->transport == &stdio_transport && stdio_link_program(u) == program)
			return u;
	}
	return NULL;
}

static bool
is_shared(const struct upstream *u)
{
	return u->transport == &stdio_transport && strcmp(u->conf->per, "host") == 0;
}

/* ---- what the one who speaks says ---- */

static void
put_state(struct buf *b, const struct upstream *u)
{
	struct buf text = BUF_INIT;

	backplane_put_u64(b, stdio_link_program(u));
	backplane_put_u64(b, stdio_link_has_pipes(u) && u->step == STEP_READY);
	backplane_put_u64(b, u->revision);
	backplane_put_str(b, buf_str(&u->server_info));
	backplane_put_str(b, buf_str(&u->capabilities));
	backplane_put_str(b, buf_str(&u->instructions));
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		buf_clear(&text);
		if (u->lists[k] != NULL)
			mcp_list_format(u->lists[k], &text);
		backplane_put_str(b, buf_str(&text));
	}
	buf_fini(&text);
}

void
errands_cast(const struct errands *r, struct backplane_addr to, enum backplane_method method,
    struct str payload)
{
	int err = backplane_cast(r->all->of.backplane, to, method, payload);

	if (err != 0 && err != E_GONE)
		log_warn("mcp errand not told row=%u method=%d", to.who.row, method);
}

/* The next row of a worker that lives, from *row on, which is stepped past it. */
static bool
next_peer(const struct errands *r, uint32_t *row, struct backplane_addr *ret)
{
	struct shm_row_info info;

	while (*row < shm_rows(r->all->of.shm)) {
		uint32_t i = (*row)++;

		if (i == r->all->of.who.row || !shm_row_get(r->all->of.shm, i, &info) ||
		    info.state == SHM_DEAD || info.state == SHM_FREE)
			continue;
		*ret = backplane_self(r->all->of.backplane);
		ret->who = info.who;
		return true;
	}
	return false;
}

static void
tell_all(const struct errands *r, enum backplane_method method, struct str payload)
{
	struct backplane_addr to;

	for (uint32_t row = 0; next_peer(r, &row, &to);)
		errands_cast(r, to, method, payload);
}

void
errands_announce(struct upstream *u)
{
	struct buf b = BUF_INIT;

	if (!is_shared(u))
		return;
	put_state(&b, u);
	tell_all(u->all->errands, BACKPLANE_MCP_STATE, buf_str(&b));
	buf_fini(&b);
}

static void
on_left(void *arg, int err, struct str payload)
{
	struct mcp_upstreams *all = arg;

	(void)err, (void)payload;
	all->leaving--;
}

void
errands_leave(struct upstream *u)
{
	struct errands *r = u->all->errands;
	struct backplane_addr to;
	struct buf b = BUF_INIT;

	check(!stdio_link_has_pipes(u));
	if (!is_shared(u))
		return;
	put_state(&b, u);
	for (uint32_t row = 0; next_peer(r, &row, &to);) {
		u->all->leaving++;
		backplane_send_call(r->all->of.backplane, to, BACKPLANE_MCP_STATE, buf_str(&b),
		    LEAVE_MS, on_left, u->all);
	}
	buf_fini(&b);
}

static void
on_ask(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < r->all->count; i++) {
		struct upstream *u = r->all->all[i];

		if (!is_shared(u) || !stdio_link_has_pipes(u) || u->step != STEP_READY)
			continue;
		buf_clear(&b);
		put_state(&b, u);
		errands_cast(r, call->from, BACKPLANE_MCP_STATE, buf_str(&b));
	}
	buf_fini(&b);
}

void
errands_ask(struct errands *r)
{
	tell_all(r, BACKPLANE_MCP_ASK, STR(""));
}

/* ---- what we hear from it ---- */

static void
keep(struct buf *b, struct str text)
{
	buf_clear(b);
	buf_add_str(b, text);
}

static void
take_list(struct upstream *u, enum mcp_kind kind, struct str text)
{
	const struct mcp_list_limits limits = {.items_max = SIZE_MAX, .bytes_max = SIZE_MAX};
	struct buf cursor = BUF_INIT;
	struct mcp_list *list = text.len > 0 ? mcp_list_new(kind) : NULL;

	if (list != NULL && mcp_list_add_page(list, text, &limits, &cursor) == 0)
		mcp_list_close(list);
	else
		mcp_list_unref(&list);
	buf_fini(&cursor);
	listing_set(u, kind, list);
}

static bool
take_state(struct upstream *u, struct str rest)
{
	struct str info, capabilities, instructions, lists[MCP_KIND_COUNT];
	uint64_t revision;

	if (!backplane_take_u64(&rest, &revision) || revision > MCP_REVISION_COUNT ||
	    !backplane_take_str(&rest, &info) || !backplane_take_str(&rest, &capabilities) ||
	    !backplane_take_str(&rest, &instructions))
		return false;
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		if (!backplane_take_str(&rest, &lists[k]))
			return false;
	}
	u->revision = (enum mcp_revision)revision;
	keep(&u->server_info, info);
	keep(&u->capabilities, capabilities);
	keep(&u->instructions, instructions);
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++)
		take_list(u, k, lists[k]);
	return true;
}

static void
hear_state(struct errands *r, const struct backplane_call *call)
{
	struct str rest = call->payload;
	uint64_t program, is_ready;
	struct upstream *u;

	if (!backplane_take_u64(&rest, &program) || !backplane_take_u64(&rest, &is_ready))
		return;
	u = errands_find(r, program);
	if (u == NULL || !is_shared(u) || stdio_link_has_pipes(u))
		return;
	if (is_ready == 0) {
		if (u->step == STEP_FOLLOW && owner_equal(u->speaker, call->from))
			upstream_restart(u);
		return;
	}
	if (!take_state(u, rest)) {
		log_error("mcp state not understood row=%u", call->from.who.row);
		return;
	}
	u->speaker = call->from;
	upstream_follow(u);
}

static void
on_state(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;

	hear_state(r, call);
	if (call->call_id != 0)
		backplane_reply(r->all->of.backplane, call->from, call->call_id, 0, STR_NONE);
}

static void
on_peer_gone(void *arg, struct backplane_addr peer)
{
	struct errands *r = arg;

	for (size_t i = 0; i < r->all->count; i++) {
		struct upstream *u = r->all->all[i];

		if (u->step == STEP_FOLLOW && owner_equal(u->speaker, peer))
			upstream_restart(u);
		news_forget(u, peer);
	}
	errand_calls_peer_gone(r, peer);
}

/* ---- news ---- */

void
errands_watch(struct upstream *u, struct str uri, bool is_on)
{
	struct buf b = BUF_INIT;

	backplane_put_u64(&b, stdio_link_program(u));
	backplane_put_u64(&b, is_on);
	backplane_put_str(&b, uri);
	errands_cast(u->all->errands, u->speaker, BACKPLANE_MCP_WATCH, buf_str(&b));
	buf_fini(&b);
}

static void
on_watch(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct str rest = call->payload, uri;
	uint64_t program, is_on;

	if (!backplane_take_u64(&rest, &program) || !backplane_take_u64(&rest, &is_on) ||
	    !backplane_take_str(&rest, &uri))
		return;
	struct upstream *u = errands_find(r, program);
	if (u != NULL && stdio_link_has_pipes(u))
		news_watch_for(u, call->from, uri, is_on != 0);
}

void
errands_tell(struct upstream *u, const struct jsonrpc *m)
{
	struct buf b = BUF_INIT, text = BUF_INIT;

	if (!is_shared(u) || !stdio_link_has_pipes(u))
		return;
	jsonrpc_add_notification(&text, m->method, m->params);
	backplane_put_u64(&b, stdio_link_program(u));
	backplane_put_str(&b, buf_str(&text));
	tell_all(u->all->errands, BACKPLANE_MCP_NEWS, buf_str(&b));
	buf_fini(&b);
	buf_fini(&text);
}

static void
on_news(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct str rest = call->payload, text;
	struct jsonrpc m;
	uint64_t program;

	if (!backplane_take_u64(&rest, &program) || !backplane_take_str(&rest, &text) ||
	    jsonrpc_parse(text, &m) != 0 || m.kind != JSONRPC_NOTIFICATION)
		return;
	struct upstream *u = errands_find(r, program);
	if (u != NULL && u->step == STEP_FOLLOW && owner_equal(u->speaker, call->from))
		news_take(u, &m);
}

/* ---- life ---- */

struct errands *
errands_new(struct mcp_upstreams *all)
{
	struct errands *r = xcalloc(1, sizeof(*r));
	struct backplane *b = all->of.backplane;

	r->all = all;
	errand_calls_init(r);
	backplane_serve(b, BACKPLANE_MCP_ASK, on_ask, r);
	backplane_serve(b, BACKPLANE_MCP_STATE, on_state, r);
	backplane_serve(b, BACKPLANE_MCP_WATCH, on_watch, r);
	backplane_serve(b, BACKPLANE_MCP_NEWS, on_news, r);
	backplane_on_peer_gone(b, on_peer_gone, r);
	return r;
}

void
errands_free(struct errands **ref)
{
	struct errands *r = *ref;

	if (r == NULL)
		return;
	*ref = NULL;
	errand_calls_fini(r);
	free(r);
}
