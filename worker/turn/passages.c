/*
 * passages - what an app's knowledge base says to the input of a turn, before the
 * model is asked. A base that fails or is slow makes the turn poorer, not a failure: listeners are
 * told.
 */
#include <stdlib.h>

#include "worker/turn/turn_impl.h"

/* The text of the input: of content parts those that are text. */
static void
add_query(const json_t *input, struct buf *out)
{
	size_t i;
	json_t *part;

	if (json_is_string(input))
		buf_add_cstr(out, json_string_value(input));
	json_array_foreach(input, i, part)
	{
		const char *text = json_string_value(json_object_get(part, "text"));

		if (text == NULL)
			continue;
		if (out->len > 0)
			buf_add_char(out, '\n');
		buf_add_cstr(out, text);
	}
}

static void
on_answer(void *arg, const struct knowledge_answer *answer)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_PREPARE);
	t->asking = 0;
	if (answer->error_code != NULL) {
		turn_emit(t, TURN_KNOWLEDGE,
		    json_pack("{s:{s:s,s:s}}", "error", "message", answer->error_message, "code",
			answer->error_code));
	} else {
		buf_add_str(&t->passages, answer->prompt);
		t->sources = json_incref(answer->sources);
		turn_emit(t, TURN_KNOWLEDGE, json_pack("{s:O}", "sources", t->sources));
	}
	turn_ask_history(t);
}

bool
turn_ask_knowledge(struct turn *t)
{
	struct buf query = BUF_INIT;

	if (t->turns->knowledge == NULL || t->app == NULL || *t->app->knowledge.url == '\0')
		return false;
	add_query(t->input, &query);
	if (query.len > 0)
		t->asking = knowledge_ask(t->turns->knowledge,
		    &(struct knowledge_question){.url = t->app->knowledge.url,
			.session_id = t->session_id.s,
			.query = buf_str(&query),
			.top_k = (uint32_t)t->app->knowledge.top_k,
			.request_id = t->http_request_id,
			.traceparent = t->traceparent},
		    on_answer, t);
	buf_fini(&query);
	return t->asking != 0;
}

void
turn_stop_knowledge(struct turn *t)
{
	if (t->asking != 0)
		knowledge_cancel(t->turns->knowledge, t->asking);
	t->asking = 0;
}

void
turn_knowledge_fini(struct turn *t)
{
	turn_stop_knowledge(t);
	buf_fini(&t->passages);
	json_decref(t->sources);
	t->sources = NULL;
}
