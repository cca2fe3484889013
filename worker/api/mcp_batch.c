/*
 * mcp_batch - see mcp_impl.h. The answers come in one array when the last of them is there; what
 * is no request has none.
 */
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/mcp_impl.h"

struct mcp_batch {
	struct api_call *call;
	struct buf answers;
	uint32_t waiting; /* asks, and one while the array is read */
};

static void
let_go(struct mcp_batch *b)
{
	struct http_req *req = call_req(b->call);

	if (--b->waiting > 0)
		return;
	if (req != NULL && b->answers.len == 0) {
		http_reply(req, 202, NULL, STR_NONE);
	} else if (req != NULL) {
		buf_add_char(&b->answers, ']');
		http_reply(req, 200, "application/json", buf_str(&b->answers));
	}
	buf_fini(&b->answers);
	call_end(b->call);
	free(b);
}

static void
add(struct mcp_batch *b, struct str answer)
{
	buf_add_char(&b->answers, b->answers.len == 0 ? '[' : ',');
	buf_add_str(&b->answers, answer);
}

void
mcp_batch_add(struct mcp_batch *b, struct str answer)
{
	add(b, answer);
	let_go(b);
}

void
mcp_batch_drop(struct mcp_batch *b)
{
	let_go(b);
}

static void
refuse(struct mcp_batch *b, struct str id, int code, const char *why)
{
	struct buf error = BUF_INIT;

	jsonrpc_add_error(&error, id, code, str_of(why), STR_NONE);
	add(b, buf_str(&error));
	buf_fini(&error);
}

static void
take(struct mcp_front *front, struct mcp_batch *b, const struct mcp_ticket *t, struct str text)
{
	struct jsonrpc m;
	int err = jsonrpc_parse(text, &m);

	if (err != 0) {
		refuse(b, m.id, err, "This is no JSON-RPC message");
	} else if (m.kind != JSONRPC_REQUEST) {
		mcp_hear_legacy(front, t, &m);
	} else {
		struct mcp_ask *a = mcp_ask_new(front, b->call, NULL, t->revision, &m);

		a->batch = b;
		a->session = t->nonce;
		a->caps = t->caps;
		a->until_ms = mcp_life_until_ms(front, t);
		b->waiting++;
		mcp_run_legacy(a, m.method);
	}
}

void
mcp_batch_start(struct mcp_front *front, struct api_call *call, struct http_req *req,
    const struct mcp_ticket *t)
{
	struct mcp_batch *b = xcalloc(1, sizeof(*b));
	struct jsonrpc_batch batch;
	struct str text;
	int more;

	b->call = call;
	b->waiting = 1;
	jsonrpc_batch_init(&batch, http_body(req));
	while ((more = jsonrpc_batch_next(&batch, &text)) == 1)
		take(front, b, t, text);
	if (more < 0)
		refuse(b, STR_NONE, MCP_INVALID_REQUEST, "This is no array of so many messages");
	let_go(b);
}
