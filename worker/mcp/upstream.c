/*
 * upstream - the machine of one upstream: which era it is of, the handshake, back-off.
 *
 *   WAIT      its transport connects
 *   PROBE     server/discover: a result, or an error that names a modern revision, is modern
 *   INIT      initialize, then notifications/initialized: a legacy one
 *   FALLBACK  HTTP: a stream of 2024-11-05 is looked for, then INIT over it
 *   LIST      its lists are read for the first time
 *   READY     requests go out
 *   PAUSE     it failed: WAIT again after the back-off
 *   FOLLOW    another worker speaks to it (errands.c)
 *
 * What the era was is remembered for mcp.verdict_age, so that a legacy server is not asked
 * each time what it does not understand.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/metric.h"
#include "worker/mcp/http_link.h"
#include "worker/mcp/upstream_impl.h"

static void ask_discover(struct upstream *);
static void ask_initialize(struct upstream *);

bool
upstream_is_modern(const struct upstream *u)
{
	if (u->step == STEP_PROBE)
		return true;
	return u->revision < MCP_REVISION_COUNT && mcp_revision_info(u->revision)->is_modern;
}

void
upstream_enter(struct upstream *u, enum step step)
{
	static const char *const names[] = {
	    "off", "wait", "probe", "init", "fallback", "list", "ready", "pause", "follow"};

	log_debug("mcp server=%s from=%s to=%s", u->conf->name, names[u->step], names[step]);
	u->step = step;
	if (!u->is_settled && (step == STEP_READY || step == STEP_FOLLOW || step == STEP_PAUSE)) {
		u->is_settled = true;
		mcp_upstreams_settled(u->all);
	}
	metric_gauge_set(METRIC_MCP_UP, u->label, 0, step == STEP_READY || step == STEP_FOLLOW);
}

static uint32_t
probe_timeout_ms(const struct upstream *u)
{
	return (uint32_t)u->conf->probe_timeout_ms;
}

/* ---- failure ---- */

/* One that has been there for long begins with the shortest back-off. */
static void
look_back(struct upstream *u)
{
	const struct conf *conf = u->all->of.conf;

	if (u->step != STEP_READY ||
	    loop_now_ms(u->all->of.loop) - u->ready_ms < conf->mcp.backoff_max_ms)
		return;
	u->is_forgetful = false;
	u->backoff_ms = conf->mcp.backoff_ms;
}

uint64_t
upstream_back_off_ms(const struct upstream *u, uint64_t *next_ms)
{
	const struct conf *conf = u->all->of.conf;
	uint64_t pause_ms = *next_ms > 0 ? *next_ms : conf->mcp.backoff_ms;

	*next_ms =
	    pause_ms * 2 < conf->mcp.backoff_max_ms ? pause_ms * 2 : conf->mcp.backoff_max_ms;
	return pause_ms;
}

void
upstream_failed(struct upstream *u, const char *why)
{
	if (u->step == STEP_PAUSE || u->step == STEP_OFF)
		return;
	look_back(u);
	uint64_t pause_ms = upstream_back_off_ms(u, &u->backoff_ms);
	log_at(u->has_failed ? LOG_INFO : LOG_WARN,
	    "mcp server away server=%s reason=%s retry_ms=%llu", u->conf->name,
	    log_quote(str_of(why)).s, (unsigned long long)pause_ms);
	u->has_failed = true;
	upstream_enter(u, STEP_PAUSE);
	loop_timer_set(u->all->of.loop, &u->pause_timer, pause_ms);
	listing_stop(u);
	news_stop(u);
	u->transport->end(u);
	errands_announce(u);
	calls_fail_waiting(u, E_UNAVAILABLE, "The tool server is not reachable.");
}

static void
begin(struct upstream *u)
{
	upstream_enter(u, STEP_WAIT);
	u->transport->begin(u);
}

static void
on_pause_over(struct loop_timer *timer)
{
	begin(container_of(timer, struct upstream, pause_timer));
}

/*
 * What we ask for ourselves as soon as it is ready would else be asked again and again. Requests of
 * others are repeated once, so there are no more handshakes than those.
 */
void
upstream_session_lost(struct upstream *u, bool was_ours)
{
	const struct conf *conf = u->all->of.conf;

	if (u->step == STEP_LIST) { /* it has not been of use yet */
		upstream_failed(u, "It has forgotten its session at once.");
		return;
	}
	if (u->step != STEP_READY)
		return;
	if (was_ours && loop_now_ms(u->all->of.loop) - u->ready_ms < conf->mcp.backoff_max_ms) {
		u->is_forgetful = true;
		upstream_failed(u, "It has forgotten its session soon.");
		return;
	}
	look_back(u);
	log_info("mcp session lost server=%s", u->conf->name);
	listing_stop(u);
	news_stop(u);
	u->transport->end(u);
	begin(u);
}

/* ---- what it says of itself ---- */

static void
keep_member(struct str object, const char *name, struct buf *out)
{
	struct str value;

	buf_clear(out);
	if (jsonrpc_member(object, name, &value))
		buf_add_str(out, value);
}

static void
keep_description(struct upstream *u, struct str result)
{
	struct str info = result;

	keep_member(result, "capabilities", &u->capabilities);
	buf_clear(&u->instructions);
	jsonrpc_text_member(result, "instructions", &u->instructions);
	if (upstream_is_modern(u) && !jsonrpc_member(result, "_meta", &info))
		info = STR("{}");
	keep_member(info, upstream_is_modern(u) ? MCP_META_SERVER : "serverInfo", &u->server_info);
}

bool
upstream_has_capability(const struct upstream *u, const char *name, bool with_changes)
{
	struct str value;
	bool does = false;

	if (u->capabilities.len == 0 || !jsonrpc_member(buf_str(&u->capabilities), name, &value))
		return false;
	if (!with_changes)
		return true;
	return jsonrpc_bool_member(value, "listChanged", &does) && does;
}

static void
remember(struct upstream *u, enum mcp_revision verdict)
{
	u->verdict = verdict;
	u->verdict_ms = loop_now_ms(u->all->of.loop);
	if (u->transport == &stdio_transport)
		stdio_tell_era(u->all->stdio, u);
}

/* ---- PROBE ---- */

/* Does data.supported have a revision of that era? */
static bool
supports(struct str list, bool is_modern)
{
	struct json_scan s;
	struct str value;

	json_scan_init(&s, list);
	if (list.len == 0 || !json_scan_array(&s))
		return false;
	while (json_scan_element(&s) == 1 && json_scan_skip(&s, &value)) {
		enum mcp_revision r = MCP_REVISION_NONE;

		if (value.len > 2 && value.p[0] == '"')
			r = mcp_revision_parse(str_sub(value.p + 1, value.len - 2));
		if (r != MCP_REVISION_NONE && mcp_revision_info(r)->is_modern == is_modern)
			return true;
	}
	return false;
}

static void
become_modern(struct upstream *u, struct str result)
{
	u->revision = MCP_REVISION_MODERN;
	remember(u, MCP_REVISION_MODERN);
	keep_description(u, result);
	upstream_enter(u, STEP_LIST);
	listing_begin(u, LISTING_ALL);
}

/*
 * That says nothing of its era: it is not there, may not be used or cannot do its work now. Over
 * stdio silence is how some legacy ones take what they do not understand.
 */
static bool
is_failure(const struct mcp_answer *a, bool is_http)
{
	if (a->status == 401 || a->status == 403 || a->status >= 500)
		return true;
	return a->err == E_GONE || a->err == E_UNAVAILABLE || a->err == E_BUSY ||
	       (is_http && a->err == E_TIMEOUT);
}

static const char *
reason_of(const struct mcp_answer *a, char text[64])
{
	if (a->status >= 400)
		snprintf(text, 64, "status %d", a->status);
	else
		snprintf(text, 64, "%s", a->why != NULL ? a->why : "It refused the handshake.");
	return text;
}

static void
on_discovered(struct upstream *u, const struct mcp_answer *a)
{
	char reason[64];
	struct str versions = STR_NONE;
	bool is_http = u->transport == &http_transport;

	if (a->err == 0 && a->result.len > 0 &&
	    jsonrpc_member(a->result, "supportedVersions", &versions) && supports(versions, true)) {
		become_modern(u, a->result);
	} else if (is_failure(a, is_http)) {
		upstream_failed(u, reason_of(a, reason));
	} else if (a->code == MCP_UNSUPPORTED_REVISION &&
		   jsonrpc_member(a->data, "supported", &versions) && supports(versions, true)) {
		upstream_failed(u, "It refused the revision that it says it supports.");
	} else {
		upstream_enter(u, STEP_INIT);
		ask_initialize(u);
	}
}

/* ---- INIT ---- */

static void
on_initialized(struct upstream *u, const struct mcp_answer *a)
{
	char reason[64];
	struct buf version = BUF_INIT;
	struct buf message = BUF_INIT;

	if (a->err == 0 && a->result.len > 0) {
		jsonrpc_text_member(a->result, "protocolVersion", &version);
		u->revision = mcp_revision_parse(buf_str(&version));
		if (u->revision == MCP_REVISION_NONE || upstream_is_modern(u)) {
			u->revision = MCP_REVISION_NONE;
			upstream_failed(u, "It speaks no revision that we do.");
		} else {
			remember(u, u->revision);
			keep_description(u, a->result);
			jsonrpc_add_notification(&message, "notifications/initialized", STR_NONE);
			u->transport->notify(u, buf_str(&message), true);
		}
	} else if (u->transport == &http_transport && !u->is_fallback &&
		   (a->status == 400 || a->status == 404 || a->status == 405)) {
		upstream_enter(u, STEP_FALLBACK);
		http_link_fall_back(u);
	} else {
		u->is_fallback = false;
		u->verdict = MCP_REVISION_NONE;
		upstream_failed(u, reason_of(a, reason));
		if (a->err == E_TIMEOUT && u->transport->hang != NULL)
			u->transport->hang(u);
	}
	buf_fini(&version);
	buf_fini(&message);
}

void
upstream_notified(struct upstream *u)
{
	if (u->step != STEP_INIT)
		return;
	upstream_enter(u, STEP_LIST);
	listing_begin(u, LISTING_ALL);
}

/* ---- questions of ours ---- */

static void
on_handshake(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;

	u->handshake_call = 0;
	if (u->step == STEP_PROBE)
		on_discovered(u, a);
	else if (u->step == STEP_INIT)
		on_initialized(u, a);
}

static const struct mcp_handlers handshake = {.on_answer = on_handshake};

static void
ask_discover(struct upstream *u)
{
	u->handshake_call =
	    call_ask(u, "server/discover", STR_NONE, probe_timeout_ms(u), &handshake, u);
}

static void
ask_initialize(struct upstream *u)
{
	struct buf params = BUF_INIT;

	u->revision = MCP_REVISION_NONE;
	buf_printf(&params, "{\"protocolVersion\":\"%s\",\"capabilities\":",
	    mcp_revision_info(u->is_fallback ? MCP_2024_11_05 : MCP_REVISION_LEGACY)->text);
	question_add_capabilities(u, &params);
	buf_add_cstr(&params, ",\"clientInfo\":{\"name\":\"parley\","
			      "\"version\":\"" PARLEY_VERSION "\"}}");
	u->handshake_call =
	    call_ask(u, "initialize", buf_str(&params), probe_timeout_ms(u), &handshake, u);
	buf_fini(&params);
}

static bool
is_verdict_good(const struct upstream *u)
{
	return u->verdict != MCP_REVISION_NONE &&
	       loop_now_ms(u->all->of.loop) - u->verdict_ms < u->all->of.conf->mcp.verdict_age_ms;
}

void
upstream_connected(struct upstream *u)
{
	bool is_old = strcmp(u->conf->era, "sessions") == 0 && !u->is_fallback;
	bool is_known = is_verdict_good(u);

	check(u->step == STEP_WAIT || u->step == STEP_FALLBACK);
	if (u->step == STEP_WAIT && !is_known)
		u->is_fallback = false;
	if (u->step == STEP_WAIT && is_known && u->is_fallback) {
		upstream_enter(u, STEP_FALLBACK);
		http_link_fall_back(u);
	} else if (u->step == STEP_FALLBACK || is_old ||
		   (is_known && !mcp_revision_info(u->verdict)->is_modern)) {
		u->is_fallback = u->step == STEP_FALLBACK;
		upstream_enter(u, STEP_INIT);
		ask_initialize(u);
	} else {
		u->revision = MCP_REVISION_NONE;
		upstream_enter(u, STEP_PROBE);
		ask_discover(u);
	}
}

void
upstream_greeted(struct upstream *u)
{
	check(u->step == STEP_WAIT && u->revision != MCP_REVISION_NONE);
	upstream_enter(u, STEP_LIST);
	listing_begin(u, LISTING_ALL);
}

void
upstream_restart(struct upstream *u)
{
	mcp_cancel(u->all, u->handshake_call);
	u->handshake_call = 0;
	listing_stop(u);
	news_stop(u);
	u->transport->end(u);
	loop_timer_stop(u->all->of.loop, &u->pause_timer);
	begin(u);
}

void
upstream_follow(struct upstream *u)
{
	if (u->step == STEP_FOLLOW)
		return;
	mcp_cancel(u->all, u->handshake_call);
	u->handshake_call = 0;
	listing_stop(u);
	news_stop(u);
	u->transport->end(u);
	loop_timer_stop(u->all->of.loop, &u->pause_timer);
	upstream_enter(u, STEP_FOLLOW);
	u->has_failed = false;
	log_info("mcp server ready server=%s revision=%s tools=%zu by_row=%u", u->conf->name,
	    mcp_revision_info(u->revision)->text, mcp_list_count(u->lists[MCP_TOOLS]),
	    u->speaker.who.row);
	calls_flush(u);
	news_ready(u);
}

void
upstream_listed(struct upstream *u)
{
	if (u->step != STEP_LIST)
		return;
	upstream_enter(u, STEP_READY);
	u->ready_ms = loop_now_ms(u->all->of.loop);
	if (!u->is_forgetful)
		u->backoff_ms = u->all->of.conf->mcp.backoff_ms;
	u->has_failed = false;
	log_info("mcp server ready server=%s revision=%s tools=%zu prompts=%zu resources=%zu",
	    u->conf->name, mcp_revision_info(u->revision)->text,
	    mcp_list_count(u->lists[MCP_TOOLS]), mcp_list_count(u->lists[MCP_PROMPTS]),
	    mcp_list_count(u->lists[MCP_RESOURCES]));
	listing_follow(u);
	errands_announce(u);
	calls_flush(u);
	news_ready(u);
}

/* Where there is no client to be asked, a sign of life is all that there is. */
void
upstream_asked(struct upstream *u, const struct jsonrpc *m)
{
	struct buf answer = BUF_INIT;

	if (strcmp(m->method, "ping") == 0)
		jsonrpc_add_result(&answer, m->id, STR("{}"));
	else
		jsonrpc_add_error(&answer, m->id, MCP_METHOD_NOT_FOUND,
		    STR("This client has no such method."), STR_NONE);
	u->transport->notify(u, buf_str(&answer), false);
	buf_fini(&answer);
}

/* ---- life ---- */

static const struct transport *
transport_of(const struct conf_mcp_server *conf)
{
	if (!conf->enabled)
		return NULL;
	if (*conf->url != '\0')
		return &http_transport;
	return &stdio_transport;
}

struct upstream *
upstream_new(struct mcp_upstreams *all, size_t index)
{
	struct upstream *u = xcalloc(1, sizeof(*u));

	u->all = all;
	u->index = index;
	u->conf = &all->of.conf->mcp.servers.v[index];
	if (u->conf->enabled)
		u->label = metric_label(LABEL_MCP_SERVER, str_of(u->conf->name));
	u->transport = transport_of(u->conf);
	if (u->transport == &stdio_transport)
		stdio_link_new(u);
	u->step = STEP_OFF;
	u->verdict = u->revision = MCP_REVISION_NONE;
	u->backoff_ms = all->of.conf->mcp.backoff_ms;
	u->next_id = (uint64_t)(all->of.who.number & 0xfffff) << 32 | 1;
	u->pause_timer.on_fire = on_pause_over;
	list_init(&u->waiting);
	news_init(u);
	for (size_t i = 0; i < CALL_BUCKETS; i++)
		list_init(&u->sent[i]);
	return u;
}

void
upstream_start(struct upstream *u)
{
	if (u->transport != NULL)
		begin(u);
}

void
upstream_leave(struct upstream *u)
{
	if (u->transport == NULL || u->transport->leave == NULL)
		return;
	upstream_enter(u, STEP_OFF);
	loop_timer_stop(u->all->of.loop, &u->pause_timer);
	listing_stop(u);
	u->transport->leave(u);
}

void
upstream_free(struct upstream **ref)
{
	struct upstream *u = *ref;

	if (u == NULL)
		return;
	*ref = NULL;
	u->step = STEP_OFF;
	listing_stop(u);
	news_stop(u);
	calls_drop(u);
	news_fini(u);
	if (u->transport != NULL) {
		u->transport->end(u);
		u->transport->fini(u);
	}
	loop_timer_stop(u->all->of.loop, &u->pause_timer);
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++)
		mcp_list_unref(&u->lists[k]);
	buf_fini(&u->server_info);
	buf_fini(&u->capabilities);
	buf_fini(&u->instructions);
	free(u);
}
