/* ws_chat - the sockets of /ws/chat. */
#include "worker/api/ws_chat_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/api/farewell.h"

enum { GIVE_BATCH = 128, GIVE_AGAIN_MS = 50 };

/* ---- what a socket is told ---- */

struct chat_socket *
chat_socket_find(struct chats *c, uint64_t handle)
{
	struct chat_socket *cs = idmap_get(c->sockets, handle);

	return cs != NULL && ws_socket_is_open(&cs->ws) ? cs : NULL;
}

void
chat_socket_tell(struct chat_socket *cs, const struct buf *frame)
{
	struct ws_out *out = ws_out_new(WS_OP_TEXT, buf_str(frame));

	/* Nothing is read of who is slow: this one asked faster than it took answers. */
	if (ws_socket_send(&cs->ws, out) == WS_FULL) {
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_SLOW, 0, 1);
		ws_socket_close(&cs->ws, WS_CLOSE_POLICY, STR("reader is too slow"));
	}
	ws_out_unref(&out);
}

void
chat_socket_tell_error(struct chat_socket *cs, const struct chat_error *error)
{
	struct buf frame = BUF_INIT;

	chat_frame_of_error(&frame, error);
	chat_socket_tell(cs, &frame);
	buf_fini(&frame);
}

/* ---- draining ---- */

void
chat_socket_say_goodbye(struct chat_socket *cs)
{
	char reason[WS_REASON_MAX];

	if (!ws_socket_is_open(&cs->ws))
		return;
	metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_DRAINING, 0, 1);
	snprintf(reason, sizeof(reason), "draining; retry_after_ms=%u",
	    farewell_come_back_ms(cs->chats->api->conf));
	ws_socket_close(&cs->ws, WS_CLOSE_GOING_AWAY, str_of(reason));
}

/* False: it stays where it is for now. */
static bool
leave(struct chat_socket *cs)
{
	switch (chat_hand_give(cs)) {
	case CHAT_GIVEN:
		return true;
	case CHAT_GIVE_LATER:
	case CHAT_GIVE_WHEN_IDLE:
		return false;
	case CHAT_NOT_GIVEN:
		break;
	}
	chat_socket_say_goodbye(cs);
	return true;
}

void
chat_socket_consider_drain(struct chat_socket *cs)
{
	struct chats *c = cs->chats;

	if (!c->is_draining || cs->follow_count > 0 || cs->ask_count > 0 ||
	    !ws_socket_is_open(&cs->ws) || leave(cs))
		return;
	c->is_giving_wanted = true;
	if (!loop_timer_is_set(&c->drain_step))
		loop_timer_set(c->api->loop, &c->drain_step, GIVE_AGAIN_MS);
}

void
chat_socket_consider_key(struct chat_socket *cs)
{
	const char *reason = cs->key->void_reason;

	if (reason == NULL || !ws_socket_is_open(&cs->ws))
		return;
	metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_REVOKED, 0, 1);
	ws_socket_close(&cs->ws, WS_CLOSE_POLICY, str_of(reason));
}

/* The first sweep gives, as fast as the successor takes; those that cannot be given are told to go
 * in the second, spread over time. */
enum sweep { SWEEP_ON, SWEEP_WAIT, SWEEP_END };

static enum sweep
sweep_one(struct chats *c)
{
	uint32_t here = c->drain_cursor;
	struct chat_socket *cs = idmap_next(c->sockets, &c->drain_cursor);

	if (cs == NULL)
		return SWEEP_END;
	if (!c->is_giving) {
		chat_socket_consider_drain(cs);
		return SWEEP_ON;
	}
	enum chat_given given = ws_socket_is_open(&cs->ws) ? chat_hand_give(cs) : CHAT_GIVEN;
	c->is_giving_wanted = c->is_giving_wanted || given == CHAT_GIVE_WHEN_IDLE;
	if (given != CHAT_GIVE_LATER)
		return SWEEP_ON;
	c->drain_cursor = here;
	return SWEEP_WAIT; /* an answer goes on */
}

static void
begin_sweep(struct chats *c, bool is_giving)
{
	c->is_giving = is_giving;
	c->is_giving_wanted = c->is_giving_wanted && !is_giving;
	c->drain_cursor = 0;
	c->drain_batch =
	    is_giving ? GIVE_BATCH : farewell_batch(c->api->conf, idmap_count(c->sockets));
}

static void
on_drain_step(struct loop_timer *t)
{
	struct chats *c = container_of(t, struct chats, drain_step);
	enum sweep sweep = SWEEP_ON;

	for (uint32_t i = 0; i < c->drain_batch && sweep == SWEEP_ON; i++)
		sweep = sweep_one(c);
	if (sweep == SWEEP_WAIT)
		return;
	if (sweep == SWEEP_ON) {
		loop_timer_set(c->api->loop, t, c->is_giving ? 0 : FAREWELL_STEP_MS);
	} else if (c->is_giving) {
		begin_sweep(c, false);
		loop_timer_set(c->api->loop, t, 0);
	} else if (c->is_giving_wanted) {
		begin_sweep(c, c->giving != NULL);
		loop_timer_set(c->api->loop, t, GIVE_AGAIN_MS);
	}
}

void
chats_drain_on(struct chats *c)
{
	if (!c->is_draining)
		return;
	if (c->giving == NULL && c->is_giving)
		begin_sweep(c, false);
	else if (!c->is_giving && c->is_giving_wanted)
		begin_sweep(c, c->giving != NULL);
	if (!loop_timer_is_set(&c->drain_step))
		loop_timer_set(c->api->loop, &c->drain_step, 0);
}

static void
on_drain_end(struct loop_timer *t)
{
	struct chats *c = container_of(t, struct chats, drain_end);
	uint32_t cursor = 0;

	for (struct chat_socket *cs; (cs = idmap_next(c->sockets, &cursor)) != NULL;)
		chat_socket_say_goodbye(cs);
}

void
chats_drain(struct chats *c)
{
	const struct conf *conf = c->api->conf;

	if (c->is_draining)
		return;
	c->is_draining = true;
	begin_sweep(c, c->giving != NULL);
	loop_timer_set(c->api->loop, &c->drain_step, 0);
	loop_timer_set(c->api->loop, &c->drain_end, farewell_end_ms(conf));
}

/* ---- one socket ---- */

static struct chat_socket *
socket_of(struct ws_socket *ws)
{
	return container_of(ws, struct chat_socket, ws);
}

static void
on_open(struct ws_socket *ws)
{
	struct chat_socket *cs = socket_of(ws);
	const struct api *api = cs->chats->api;

	log_info("websocket open active=%u max=%lld", http_server_active(api->http),
	    (long long)api->conf->max_connections);
	chat_socket_consider_key(cs);
	chat_socket_consider_drain(cs);
}

static void
on_message(struct ws_socket *ws, struct str data, bool is_text)
{
	struct http_server *http = socket_of(ws)->chats->api->http;

	http_doing(http, STR("message of /ws/chat"), STR(""), data);
	chat_on_message(socket_of(ws), data, is_text);
	http_done(http);
}

static void
on_writable(struct ws_socket *ws)
{
	chat_members_resume(socket_of(ws));
	chat_socket_consider_drain(socket_of(ws));
}

static void
on_closed(struct ws_socket *ws)
{
	struct chat_socket *cs = socket_of(ws);

	idmap_remove(cs->chats->sockets, cs->handle);
	chat_members_free(cs);
	chat_key_put(&cs->key);
	free(cs);
}

static const struct ws_handlers handlers = {on_open, on_message, on_writable, on_closed};

void
chat_socket_open(struct chats *c, struct http_req *req, const struct principal *who,
    const char *accept, const char *protocol)
{
	struct chat_socket *cs = xcalloc(1, sizeof(*cs));

	cs->chats = c;
	cs->key = chat_key_get(c, who);
	cs->handle = idmap_add(c->sockets, cs);
	cs->rate_own = rate_of_key(who, http_client_network(req)).own;
	crypto_random(&cs->originator, sizeof(cs->originator));
	cs->originator |= 1; /* 0 is nobody */
	ws_socket_open(&cs->ws, req, accept, protocol, &handlers);
}

struct chat_socket *
chat_socket_adopt(struct chats *c, int fd, const struct principal *who)
{
	struct chat_socket *cs = xcalloc(1, sizeof(*cs));

	if (!ws_socket_adopt(&cs->ws, c->api->http, fd, &handlers)) {
		free(cs);
		return NULL;
	}
	cs->chats = c;
	cs->key = chat_key_get(c, who);
	cs->handle = idmap_add(c->sockets, cs);
	return cs;
}

/* ---- all of them ---- */

struct chats *
chats_new(struct api *api)
{
	struct chats *c = xcalloc(1, sizeof(*c));

	c->api = api;
	c->door.api = api;
	c->sockets = idmap_new();
	list_init(&c->asks);
	c->drain_step.on_fire = on_drain_step;
	c->drain_end.on_fire = on_drain_end;
	chat_keys_init(c);
	chat_follow_init(c);
	chat_hands_init(c);
	http_server_add_routes(api->http, &chat_route, 1, c);
	return c;
}

void
chats_free(struct chats **ref)
{
	struct chats *c = *ref;

	if (c == NULL)
		return;
	*ref = NULL;
	check(idmap_count(c->sockets) == 0);
	list_for_safe (node, &c->asks)
		chat_ask_end(list_entry(node, struct chat_ask, node));
	loop_timer_stop(c->api->loop, &c->drain_step);
	loop_timer_stop(c->api->loop, &c->drain_end);
	chat_hands_fini(c);
	chat_follow_fini(c);
	chat_keys_fini(c);
	idmap_free(&c->sockets);
	free(c);
}
