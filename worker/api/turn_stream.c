/*
 * turn_stream - between a turn's feed and an SSE response.
 *
 *   attached --event--> sse_send
 *      |  full: the listener is detached, the response ends with an error that says so;
 *      |        the client attaches again with Last-Event-ID
 *      |  feed ended: the response ends
 *      |  drained, shortly before the time is up: the response ends with `retry:`, and the
 *      |        client attaches again elsewhere
 *      |  its key was revoked: the listener is detached as a disconnect, the response ends
 *      |        with an error
 *      +- client gone: the listener is detached as a disconnect
 */
#include "worker/api/turn_stream.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/farewell.h"
#include "worker/api/key_watch.h"
#include "worker/sse/sse.h"

struct turn_streams {
	struct api *api;
	struct list all;
	struct loop_timer drain_end;
};

struct turn_stream {
	struct turns *turns;
	struct list node;
	struct key_hold key;
	struct sse *sse;
	uint64_t listener;
	struct id turn_id;
};

static void
stream_free(struct turn_stream *s)
{
	list_del(&s->node);
	key_release(&s->key);
	free(s);
}

static void
on_client_gone(void *arg)
{
	struct turn_stream *s = arg;

	turn_detach(s->turns, s->listener, true);
	stream_free(s);
}

/* What ends the stream without being an event of the turn: said, never silent. */
static void
end_with_error(struct turn_stream *s, int err)
{
	const struct err_info *info = err_info(err);
	char data[512];
	int len = snprintf(data, sizeof(data),
	    "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}}",
	    info->text, info->type, info->code);

	check(len > 0 && (size_t)len < sizeof(data));
	sse_end_with(s->sse, STR("error"), str_sub(data, (size_t)len));
	stream_free(s);
}

static bool
on_event(void *arg, const struct turn_event *event)
{
	struct turn_stream *s = arg;
	char id[ID_MAX + 24];
	int len = snprintf(id, sizeof(id), "%s.%llu", s->turn_id.s, (unsigned long long)event->seq);

	if (sse_send(s->sse, str_sub(id, (size_t)len), turn_event_name(event->type), event->data))
		return true;
	end_with_error(s, E_SLOW_READER);
	return false;
}

static void
on_end(void *arg, int err)
{
	struct turn_stream *s = arg;

	if (err != 0) {
		end_with_error(s, err);
		return;
	}
	sse_end(s->sse);
	stream_free(s);
}

static const struct turn_listener_handlers handlers = {on_event, on_end};

static void
on_key_void(struct key_hold *key)
{
	struct turn_stream *s = container_of(key, struct turn_stream, key);

	turn_detach(s->turns, s->listener, true);
	end_with_error(s, E_UNAUTHORIZED);
}

void
turn_stream_start(
    struct api_call *call, struct http_req *req, uint64_t after_seq, uint64_t originator)
{
	struct turn_stream *s = xcalloc(1, sizeof(*s));

	s->turns = call->api->turns;
	s->turn_id = call->turn_id;
	list_add_tail(&call->api->streams->all, &s->node);
	key_hold(call->api->key_watch, &s->key, call->key_hash, call->key_expires_at, on_key_void);
	s->sse = sse_start(req, on_client_gone, s);
	s->listener = turn_attach(
	    s->turns, &call->session_id, &s->turn_id, after_seq, originator, &handlers, s);
	call_end(call);
}

/* ---- all of them ---- */

/* The turns of this worker that still run are failing now, which their listeners are told. */
static void
on_drain_end(struct loop_timer *t)
{
	struct turn_streams *all = container_of(t, struct turn_streams, drain_end);

	list_for_safe (node, &all->all) {
		struct turn_stream *s = list_entry(node, struct turn_stream, node);

		turn_detach(s->turns, s->listener, false);
		sse_end_for_now(s->sse, farewell_come_back_ms(all->api->conf));
		stream_free(s);
	}
}

void
turn_streams_drain(struct turn_streams *all)
{
	loop_timer_set(all->api->loop, &all->drain_end, farewell_end_ms(all->api->conf));
}

struct turn_streams *
turn_streams_new(struct api *api)
{
	struct turn_streams *all = xcalloc(1, sizeof(*all));

	all->api = api;
	list_init(&all->all);
	all->drain_end.on_fire = on_drain_end;
	return all;
}

void
turn_streams_free(struct turn_streams **ref)
{
	struct turn_streams *all = *ref;

	if (all == NULL)
		return;
	*ref = NULL;
	check(list_empty(&all->all));
	loop_timer_stop(all->api->loop, &all->drain_end);
	free(all);
}
