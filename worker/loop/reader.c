/*
 * reader - see reader.h. An h2o socket that h2o does not read from.
 */
#include "worker/loop/reader.h"

#include "common/check.h"
#include "worker/loop/h2o_loop.h"

static void
on_ready(h2o_socket_t *socket, const char *err)
{
	struct loop_reader *r = socket->data;

	(void)err;
	r->on_readable(r);
}

void
loop_reader_start(struct loop *l, struct loop_reader *r, int fd)
{
	check(r->socket == NULL && r->on_readable != NULL && fd >= 0);
	r->socket = h2o_evloop_socket_create(loop_h2o(l), fd, H2O_SOCKET_FLAG_DONT_READ);
	r->socket->data = r;
	h2o_socket_read_start(r->socket, on_ready);
}

/* To export a socket is h2o's way to end it without closing the descriptor. h2o passes over one
 * that has ended and was about to be called. */
void
loop_reader_stop(struct loop_reader *r)
{
	h2o_socket_export_t exported;

	if (r->socket == NULL)
		return;
	h2o_socket_read_stop(r->socket);
	check(h2o_socket_export(r->socket, &exported) == 0);
	h2o_buffer_dispose(&exported.input);
	r->socket = NULL;
}
