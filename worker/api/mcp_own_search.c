/*
 * mcp_own_search - the tool search_session: which messages of a session of the key's app have a
 * text, newest last. Looks through the record page by page, up to a number of messages.
 *
 * The record answers once per question and cannot be told to stop: who has been dropped meanwhile
 * is freed then.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

#include "common/check.h"
#include "worker/api/mcp_impl.h"

/* PAGE: a message may have http.max_body, and all of a page is read in one go of the loop. */
enum { PAGE = 20, SCAN_MAX = 10000, LIMIT = 10, LIMIT_MAX = 50, AROUND = 200, QUERY_MAX = 1000 };

struct search {
	struct mcp_own own; /* ask NULL: nobody waits any more */
	struct api *api;
	struct id session_id;
	char *query;
	uint32_t limit, scanned;
	char *after; /* the last message seen; NULL: none */
	json_t *found;
};

static void
search_free(struct search *s)
{
	free(s->query);
	free(s->after);
	json_decref(s->found);
	free(s);
}

/* A question to the record is under way, always. */
static void
drop(struct mcp_own *own)
{
	own->ask = NULL;
}

static void
end(struct search *s, const char *why, bool is_whole)
{
	struct mcp_ask *a = s->own.ask;

	if (why != NULL) {
		mcp_own_fail(a, why);
	} else {
		json_t *answer =
		    json_pack("{s:O,s:b}", "messages", s->found, "searched_all", is_whole);
		char *text = json_dumps(answer, JSON_COMPACT);

		mcp_own_reply(a, str_of(text));
		free(text);
		json_decref(answer);
	}
	search_free(s);
}

/* ---- one message ---- */

static const char *
find_text(const char *text, const char *query)
{
	size_t len = strlen(query);
	int first = tolower((unsigned char)*query);

	for (; *text != '\0'; text++) {
		if (tolower((unsigned char)*text) == first && strncasecmp(text, query, len) == 0)
			return text;
	}
	return NULL;
}

static bool
is_inside_char(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* What stands around it, cut between characters. */
static json_t *
excerpt(const char *text, const char *at, size_t len)
{
	const char *from = at - text > AROUND ? at - AROUND : text;
	size_t rest = strlen(at);
	const char *to = at + (rest > len + AROUND ? len + AROUND : rest);

	while (from < at && is_inside_char(*from))
		from++;
	while (*to != '\0' && is_inside_char(*to))
		to++;
	return json_stringn(from, (size_t)(to - from));
}

static bool
look_into(struct search *s, const struct store_message *m, const char *text)
{
	const char *at = text != NULL ? find_text(text, s->query) : NULL;

	if (at == NULL)
		return false;
	json_array_append_new(
	    s->found, json_pack("{s:s,s:s,s:I,s:o}", "id", m->id, "role", m->role, "position",
			  (json_int_t)m->position, "text", excerpt(text, at, strlen(s->query))));
	return true;
}

static void
look_at(struct search *s, const struct store_message *m)
{
	json_t *body = json_loads(m->body_json, 0, NULL), *part;
	const json_t *content = json_object_get(body, "content");
	size_t i;

	if (json_is_array(content)) {
		json_array_foreach(content, i, part)
		{
			if (look_into(s, m, json_string_value(json_object_get(part, "text"))))
				break;
		}
	} else {
		look_into(s, m, json_string_value(content));
	}
	json_decref(body);
}

/* ---- the record ---- */

static void
on_page(void *arg, int err, const struct store_message *messages, size_t count, bool has_more)
{
	struct search *s = arg;

	if (s->own.ask == NULL) {
		search_free(s);
		return;
	}
	if (err != 0) {
		end(s, err_info(err)->text, false);
		return;
	}
	for (size_t i = 0; i < count && json_array_size(s->found) < s->limit; i++)
		look_at(s, &messages[i]);
	s->scanned += (uint32_t)count;
	if (json_array_size(s->found) >= s->limit || !has_more || count == 0 ||
	    s->scanned >= SCAN_MAX) {
		end(s, NULL, !has_more && json_array_size(s->found) < s->limit);
		return;
	}
	free(s->after);
	s->after = xstrdup(messages[count - 1].id);
	store_message_list(s->api->store, s->session_id.s, s->after, PAGE, on_page, s);
}

static void
on_session(void *arg, int err, const struct store_session *session)
{
	struct search *s = arg;

	if (s->own.ask == NULL) {
		search_free(s);
		return;
	}
	if (err == 0 &&
	    (session->is_erased || strcmp(session->app_id, s->own.ask->call->app_id) != 0))
		err = E_NOT_FOUND;
	if (err != 0)
		end(s, err == E_NOT_FOUND ? "No such session." : err_info(err)->text, false);
	else
		store_message_list(s->api->store, s->session_id.s, NULL, PAGE, on_page, s);
}

void
mcp_own_search_session(struct mcp_ask *a, struct str arguments)
{
	struct buf session = BUF_INIT, query = BUF_INIT;
	int64_t limit = LIMIT;
	struct str unused;
	struct id id;

	if (!jsonrpc_text_member(arguments, "session_id", &session) ||
	    !id_parse(buf_str(&session), "sess", &id)) {
		mcp_own_fail(a, "No such session.");
	} else if (!jsonrpc_text_member(arguments, "query", &query) || query.len == 0 ||
		   query.len > QUERY_MAX || memchr(query.data, '\0', query.len) != NULL) {
		mcp_own_fail(a, "query is a text of 1 to 1000 bytes.");
	} else if (jsonrpc_member(arguments, "limit", &unused) &&
		   (!jsonrpc_int_member(arguments, "limit", &limit) || limit < 1 ||
		       limit > LIMIT_MAX)) {
		mcp_own_fail(a, "limit is a whole number from 1 to 50.");
	} else {
		struct search *s = xcalloc(1, sizeof(*s));

		s->api = a->front->api;
		s->session_id = id;
		s->query = xstrdup(query.data);
		s->limit = (uint32_t)limit;
		s->found = json_array();
		mcp_own_begin(a, &s->own, drop);
		store_session_get(s->api->store, id.s, on_session, s);
	}
	buf_fini(&session);
	buf_fini(&query);
}
