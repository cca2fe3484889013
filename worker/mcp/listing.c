/*
 * listing - the lists of one upstream: read page by page, kind after kind; read again when it says
 * that they have changed, and now and then where it cannot say so; one that could not be read is
 * asked for again, with back-off.
 */
#include "common/log.h"
#include "worker/mcp/http_headers.h"
#include "worker/mcp/upstream_impl.h"

enum { PAGES_MAX = 1000, RELIST_DELAY_MS = 50, REFRESH_LEAST_MS = 1000 };

static void ask_page(struct upstream *, struct str cursor);
static void next_kind(struct upstream *);
static void retry_no_more(struct upstream *, enum mcp_kind);

void
listing_set(struct upstream *u, enum mcp_kind kind, struct mcp_list *list)
{
	struct mcp_list *old = u->lists[kind];

	u->lists[kind] = list;
	if (!mcp_list_equal(old, list)) {
		mcp_upstreams_changed(u->all, u->index, kind);
		if (u->step == STEP_READY)
			errands_announce(u);
	}
	mcp_list_unref(&old);
}

/* ---- reading ---- */

static void
end_kind(struct upstream *u, bool is_good)
{
	struct mcp_list *list = u->listing;
	enum mcp_kind kind = u->listing_kind;

	u->listing = NULL;
	if (is_good) {
		retry_no_more(u, kind);
		mcp_list_close(list);
		if (mcp_list_left_out(list) > 0)
			log_info("mcp list server=%s method=%s left_out=%zu", u->conf->name,
			    mcp_kind_info(kind)->method, mcp_list_left_out(list));
		listing_set(u, kind, list);
	} else {
		mcp_list_unref(&list); /* what was known before stays */
	}
	next_kind(u);
}

static void
give_up_kind(struct upstream *u, const char *why)
{
	bool is_known = (u->to_retry & 1U << u->listing_kind) != 0;

	log_at(is_known ? LOG_INFO : LOG_WARN, "mcp list not read server=%s method=%s reason=%s",
	    u->conf->name, mcp_kind_info(u->listing_kind)->method, log_quote(str_of(why)).s);
	end_kind(u, false);
}

static void
on_retry(struct loop_timer *timer)
{
	struct upstream *u = container_of(timer, struct upstream, retry_timer);

	if (u->step == STEP_READY)
		listing_begin(u, u->to_retry);
	else
		loop_timer_set(u->all->of.loop, timer, u->retry_backoff_ms);
}

static void
retry_no_more(struct upstream *u, enum mcp_kind kind)
{
	u->to_retry &= ~(1U << kind);
	if (u->to_retry != 0)
		return;
	u->retry_backoff_ms = 0;
	loop_timer_stop(u->all->of.loop, &u->retry_timer);
}

/* It may be able to later, and need not say when. One that gives what is no list is not asked. */
static void
retry_kind(struct upstream *u, const char *why)
{
	enum mcp_kind kind = u->listing_kind;

	if (!loop_timer_is_set(&u->retry_timer)) {
		u->retry_timer.on_fire = on_retry;
		loop_timer_set(u->all->of.loop, &u->retry_timer,
		    upstream_back_off_ms(u, &u->retry_backoff_ms));
	}
	give_up_kind(u, why);
	u->to_retry |= 1U << kind;
}

static void
take_page(struct upstream *u, struct str result)
{
	const struct conf *conf = u->all->of.conf;
	struct mcp_list_limits limits = {.items_max = (size_t)conf->mcp.max_items,
	    .bytes_max = conf->mcp.max_message_bytes,
	    .allowed = u->listing_kind == MCP_TOOLS ? &u->conf->tools : NULL,
	    .refuses = u->listing_kind == MCP_TOOLS && u->transport == &http_transport &&
			       upstream_is_modern(u)
			   ? http_headers_are_wrong
			   : NULL};
	struct buf cursor = BUF_INIT;
	int err = mcp_list_add_page(u->listing, result, &limits, &cursor);

	if (err != 0)
		give_up_kind(u, err == E_PAYLOAD_TOO_LARGE ? "too much" : "not of that shape");
	else if (cursor.len == 0)
		end_kind(u, true);
	else if (++u->listing_pages >= PAGES_MAX)
		give_up_kind(u, "too many pages");
	else
		ask_page(u, buf_str(&cursor));
	buf_fini(&cursor);
}

static void
fail(struct upstream *u, const struct mcp_answer *a)
{
	upstream_failed(u, a->why);
	if (a->err == E_TIMEOUT && u->transport->hang != NULL)
		u->transport->hang(u);
}

static void
on_page(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;

	u->list_call = 0;
	if (a->err == 0 && a->result.len > 0)
		take_page(u, a->result);
	else if (a->err == 0 && a->upstream_code == MCP_METHOD_NOT_FOUND)
		end_kind(u, true); /* it has said that it can, and cannot: there is nothing */
	else if (u->step == STEP_LIST && a->err != 0)
		fail(u, a);
	else
		retry_kind(u, a->err != 0 ? a->why : "refused");
}

static void
ask_page(struct upstream *u, struct str cursor)
{
	static const struct mcp_handlers handlers = {.on_answer = on_page};
	struct buf params = BUF_INIT;

	if (cursor.len > 0)
		buf_printf(&params, "{\"cursor\":%.*s}", (int)cursor.len, cursor.p);
	u->list_call = call_ask(u, mcp_kind_info(u->listing_kind)->method, buf_str(&params),
	    (uint32_t)u->conf->probe_timeout_ms, &handlers, u);
	buf_fini(&params);
}

static void
next_kind(struct upstream *u)
{
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		if ((u->to_list & 1U << k) == 0)
			continue;
		u->to_list &= ~(1U << k);
		if (!upstream_has_capability(u, mcp_kind_info(k)->capability, false)) {
			listing_set(u, k, NULL);
			continue;
		}
		u->listing = mcp_list_new(k);
		u->listing_kind = k;
		u->listing_pages = 0;
		ask_page(u, STR_NONE);
		return;
	}
	upstream_listed(u);
}

void
listing_begin(struct upstream *u, uint32_t kinds)
{
	u->to_list |= kinds;
	if (u->listing == NULL)
		next_kind(u);
}

void
listing_stop(struct upstream *u)
{
	struct loop *loop = u->all->of.loop;

	mcp_cancel(u->all, u->list_call);
	mcp_cancel(u->all, u->listen_call);
	u->list_call = u->listen_call = 0;
	mcp_list_unref(&u->listing);
	u->to_list = u->to_retry = 0;
	u->retry_backoff_ms = 0;
	loop_timer_stop(loop, &u->retry_timer);
	loop_timer_stop(loop, &u->relist_timer);
	loop_timer_stop(loop, &u->refresh_timer);
	loop_timer_stop(loop, &u->listen_timer);
}

/* ---- changes ---- */

static void
on_relist(struct loop_timer *timer)
{
	struct upstream *u = container_of(timer, struct upstream, relist_timer);

	if (u->step == STEP_READY)
		listing_begin(u, 0);
}

static void
relist_soon(struct upstream *u)
{
	if (u->step == STEP_READY && u->listing == NULL && !loop_timer_is_set(&u->relist_timer)) {
		u->relist_timer.on_fire = on_relist;
		loop_timer_set(u->all->of.loop, &u->relist_timer, RELIST_DELAY_MS);
	}
}

/* Servers say it many times in a row: once is enough, and a flood costs one list at a time. */
void
listing_changed(struct upstream *u, const char *method)
{
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		if (strcmp(mcp_kind_info(k)->changed, method) == 0)
			u->to_list |= 1U << k;
	}
	relist_soon(u);
}

/* Not more often than a server that is away is tried: a request may be as bad as it says. */
void
listing_doubt(struct upstream *u)
{
	uint64_t now_ms = loop_now_ms(u->all->of.loop);
	enum mcp_kind k = 0;

	if (u->step != STEP_READY || now_ms - u->doubted_ms < u->all->of.conf->mcp.backoff_ms)
		return;
	while (k < MCP_KIND_COUNT && u->lists[k] == NULL)
		k++;
	if (k == MCP_KIND_COUNT)
		return;
	u->doubted_ms = now_ms;
	u->to_list |= 1U << k;
	relist_soon(u);
}

static bool
says_changes(const struct upstream *u)
{
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		const char *name = mcp_kind_info(k)->capability;

		if (upstream_has_capability(u, name, false) &&
		    !upstream_has_capability(u, name, true))
			return false;
	}
	return true;
}

static void set_refresh(struct upstream *);

static void
on_refresh(struct loop_timer *timer)
{
	struct upstream *u = container_of(timer, struct upstream, refresh_timer);

	if (u->step == STEP_READY)
		listing_begin(u, LISTING_ALL);
	set_refresh(u);
}

/* As often as the config says, or sooner where the server says that a list holds for less. */
static void
set_refresh(struct upstream *u)
{
	uint64_t every_ms = u->all->of.conf->mcp.refresh_ms;

	if (every_ms == 0 || says_changes(u))
		return;
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++) {
		uint64_t ttl_ms = u->lists[k] != NULL ? mcp_list_ttl_ms(u->lists[k]) : 0;

		if (ttl_ms > REFRESH_LEAST_MS && ttl_ms < every_ms)
			every_ms = ttl_ms;
	}
	u->refresh_timer.on_fire = on_refresh;
	loop_timer_set(u->all->of.loop, &u->refresh_timer, every_ms);
}

/* ---- subscriptions/listen ---- */

static void
on_listen_again(struct loop_timer *timer)
{
	struct upstream *u = container_of(timer, struct upstream, listen_timer);

	if (u->step != STEP_READY)
		return;
	listing_follow(u);
	listing_begin(u, LISTING_ALL); /* what was said meanwhile was not heard */
}

void
listing_stream_opened(struct upstream *u, struct stream_pause *p)
{
	p->opened_ms = loop_now_ms(u->all->of.loop);
}

uint64_t
listing_stream_pause_ms(struct upstream *u, struct stream_pause *p)
{
	if (loop_now_ms(u->all->of.loop) - p->opened_ms >= u->all->of.conf->mcp.backoff_max_ms)
		p->next_ms = 0;
	return upstream_back_off_ms(u, &p->next_ms);
}

static void
on_listen_end(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;

	u->listen_call = 0;
	if (u->step != STEP_READY)
		return;
	if (a->err == 0 && a->upstream_code == MCP_METHOD_NOT_FOUND)
		return; /* never mind: it is looked at now and then */
	u->listen_timer.on_fire = on_listen_again;
	loop_timer_set(
	    u->all->of.loop, &u->listen_timer, listing_stream_pause_ms(u, &u->listen_pause));
}

static void
listen_modern(struct upstream *u)
{
	static const struct mcp_handlers handlers = {.on_answer = on_listen_end};
	struct buf params = BUF_INIT;
	bool wants = false;

	buf_add_cstr(&params, "{\"notifications\":{");
	for (enum mcp_kind k = 0; k < MCP_TEMPLATES; k++) { /* those are resources, too */
		if (!upstream_has_capability(u, mcp_kind_info(k)->capability, true))
			continue;
		buf_printf(&params, "%s\"%s\":true", wants ? "," : "", mcp_kind_info(k)->wish);
		wants = true;
	}
	buf_add_cstr(&params, "}}");
	listing_stream_opened(u, &u->listen_pause);
	if (wants)
		u->listen_call =
		    call_ask(u, "subscriptions/listen", buf_str(&params), 0, &handlers, u);
	buf_fini(&params);
}

void
listing_follow(struct upstream *u)
{
	if (upstream_is_modern(u))
		listen_modern(u);
	else if (u->transport->listen != NULL)
		u->transport->listen(u);
	set_refresh(u);
}
