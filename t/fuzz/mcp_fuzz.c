/*
 * mcp_fuzz - JSON-RPC messages and batches, pages of lists, schemas, what is posted to us with its
 * headers, results on their way to clients, ids of sessions and of questions.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/mcp/catalog.h"
#include "worker/mcp/jsonrpc.h"
#include "worker/mcp/posted.h"
#include "worker/mcp/question_id.h"
#include "worker/mcp/reply.h"
#include "worker/mcp/schema.h"
#include "worker/mcp/ticket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
write_again(const struct jsonrpc *m, struct buf *out)
{
	if (m->kind == JSONRPC_REQUEST)
		jsonrpc_add_request(out, m->id, m->method, m->params);
	else if (m->kind == JSONRPC_NOTIFICATION)
		jsonrpc_add_notification(out, m->method, m->params);
	else if (m->kind == JSONRPC_RESULT)
		jsonrpc_add_result(out, m->id, m->result);
	else
		jsonrpc_add_error(out, m->id, m->code, STR("m"), m->data);
}

/* What is read and written is read as the same again, also on one line. */
static void
check_message(struct str s)
{
	struct jsonrpc m, again;
	struct buf out = BUF_INIT;

	if (jsonrpc_parse(s, &m) == 0) {
		write_again(&m, &out);
		check(jsonrpc_parse(buf_str(&out), &again) == 0);
		check(again.kind == m.kind && str_eq(again.id, m.id));
		check(str_eq(again.result, m.result) && str_eq(again.params, m.params));
		jsonrpc_flatten(&out, 0);
		check(memchr(out.data, '\n', out.len) == NULL);
		check(jsonrpc_parse(buf_str(&out), &again) == 0);
		if (m.kind == JSONRPC_ERROR) {
			buf_clear(&out);
			jsonrpc_add_error_as(&out, STR("0"), &m);
			check(jsonrpc_parse(buf_str(&out), &again) == 0);
			check(again.code == m.code && str_eq(again.data, m.data));
		}
		if (m.params.len > 0 && m.params.p[0] == '{') {
			buf_clear(&out);
			mcp_reply_replace(&out, m.params, "_meta", STR("{\"level\":\"info\"}"));
			check(jsonrpc_member(buf_str(&out), "_meta", &again.result));
		}
	}
	buf_fini(&out);
}

static void
check_batch(struct str s)
{
	struct jsonrpc_batch batch;
	struct str one;

	jsonrpc_batch_init(&batch, s);
	while (jsonrpc_batch_next(&batch, &one) == 1)
		check_message(one);
}

static void
check_list(struct str s)
{
	static const struct mcp_list_limits limits = {.items_max = 1000, .bytes_max = 1 << 20};
	struct buf next = BUF_INIT, out = BUF_INIT;

	for (enum mcp_kind kind = 0; kind < MCP_KIND_COUNT; kind++) {
		struct mcp_list *l = mcp_list_new(kind), *again = mcp_list_new(kind);

		if (mcp_list_add_page(l, s, &limits, &next) == 0) {
			struct mcp_source sources[] = {{"a", true, l}, {"b", false, l}};

			mcp_list_close(l);
			struct mcp_view *v = mcp_view_new(kind, sources, 2);
			buf_clear(&out);
			mcp_list_format(l, &out);
			check(mcp_list_add_page(again, buf_str(&out), &limits, &next) == 0);
			mcp_list_close(again);
			check(mcp_list_equal(l, again));
			mcp_view_free(&v);
		}
		mcp_list_unref(&l);
		mcp_list_unref(&again);
	}
	buf_fini(&next);
	buf_fini(&out);
}

/* [schema, value] */
static void
check_schema(struct str s)
{
	json_t *pair = json_loadb(s.p, s.len, 0, NULL);
	struct buf why = BUF_INIT;

	if (json_array_size(pair) == 2)
		schema_matches(json_array_get(pair, 0), json_array_get(pair, 1), &why);
	buf_fini(&why);
	json_decref(pair);
}

/* With the headers that agree as far as can be told, and with one line of the input's. */
static void
check_posted(struct str s)
{
	struct posted p;
	struct buf plain = BUF_INIT;
	struct str body = s, first = str_split(&body, '\n');
	struct posted_headers h = {.content_type = STR("application/json"),
	    .revision = STR("2026-07-28"),
	    .method = STR("tools/call"),
	    .name = first};

	posted_decode(first, &plain);
	for (int i = 0; i < 2; i++) {
		posted_read(i == 0 ? s : body, &h, &p);
		check(p.kind != POSTED_REFUSED || (p.status >= 400 && p.code < 0 && p.why != NULL));
		check(p.kind != POSTED_MODERN || p.message.params.len > 0);
		posted_fini(&p);
	}
	buf_fini(&plain);
}

static struct str
no_header(void *arg, const char *name)
{
	(void)arg;
	check(name[0] == 'm');
	return STR_NONE;
}

/* Forms of a result are JSON, and their own forms. */
static void
check_reply(struct str s)
{
	struct jsonrpc m;
	struct buf out = BUF_INIT, again = BUF_INIT;

	if (jsonrpc_parse(s, &m) != 0)
		return;
	for (enum mcp_revision r = 0; r < MCP_REVISION_COUNT; r++) {
		buf_clear(&out);
		buf_clear(&again);
		if (!mcp_reply_add_result(&out, r, m.result))
			continue;
		check(mcp_reply_add_result(&again, r, buf_str(&out)));
		check(str_eq(buf_str(&out), buf_str(&again)));
	}
	if (m.params.len > 0 && m.params.p[0] == '{') {
		buf_clear(&out);
		mcp_reply_replace(&out, m.params, "name", STR("\"a\\\"b\""));
		buf_clear(&again);
		check(jsonrpc_text_member(buf_str(&out), "name", &again));
		check(str_eq(buf_str(&again), STR("a\"b")));
		buf_clear(&out);
		mcp_reply_add_progress(&out, m.params, STR("\"t\""));
		posted_params_agree(m.params, m.params, no_header, NULL);
	}
	buf_fini(&out);
	buf_fini(&again);
}

/* Nobody can seal one without the key. */
static void
check_ticket(struct str s)
{
	struct mcp_ticket t;

	check(!mcp_ticket_parse(s, STR("a key that the input does not know"), &t));
}

/* The id of an answer that was posted: what is taken for one of ours names the same place again. */
static void
check_question_id(struct str s)
{
	struct backplane_addr home, again;
	char text[QUESTION_ID_MAX];
	uint64_t handle, number;
	struct jsonrpc m;

	if (jsonrpc_parse(s, &m) == 0 && m.kind != JSONRPC_NOTIFICATION)
		s = m.id;
	if (!question_id_parse(s, &home, &handle))
		return;
	question_id_format(home, handle, text);
	check(question_id_parse(str_of(text), &again, &number));
	check(owner_equal(home, again) && number == handle);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = str_sub((const char *)data, size);

	check_message(s);
	check_batch(s);
	check_list(s);
	check_posted(s);
	check_reply(s);
	check_ticket(s);
	check_question_id(s);
	if (size > 0)
		check_schema(s);
	return 0;
}
