/*
 * turn_stream - between a turn's feed and an SSE response.
 *
 *   attached --event--> sse_send
 *      |  full: the listener is detached, the response ends with an error that says so;
 *      |        the client attaches again with Last-Event-ID
 *      |  feed ended: the response ends
 *      +- client gone: the listener is detached as a disconnect
 */
#include "worker/api/turn_stream.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/sse/sse.h"

struct turn_stream {
	struct turns *turns;
	struct sse *sse;
	uint64_t listener;
	struct id turn_id;
};

static void
on_client_gone(void *arg)
{
	struct turn_stream *s = arg;

	turn_detach(s->turns, s->listener, true);
	free(s);
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
	free(s);
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
	free(s);
}

static const struct turn_listener_handlers handlers = {on_event, on_end};

void
turn_stream_start(
    struct api_call *call, struct http_req *req, uint64_t after_seq, uint64_t originator)
{
	struct turn_stream *s = xcalloc(1, sizeof(*s));

	s->turns = call->api->turns;
	s->turn_id = call->turn_id;
	s->sse = sse_start(req, on_client_gone, s);
	s->listener = turn_attach(
	    s->turns, &call->session_id, &s->turn_id, after_seq, originator, &handlers, s);
	call_end(call);
}
