/*
 * sse_fuzz - a provider's stream through the SSE parser and the chat-completions
 * dialect. The first byte says how the rest is split; the outcome must be the one
 * of the stream given whole, and texts must be valid UTF-8.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
on_text(void *arg, struct str s)
{
	check(s.len > 0 && str_is_utf8(s));
	buf_add_str(arg, s);
}

/* Everything that a caller sees. */
static void
run(const char *bytes, size_t len, size_t step, struct buf *seen)
{
	struct openai_answer *a =
	    openai_answer_new(&(struct openai_handlers){on_text, on_text}, seen);
	struct provider_result r = {0};
	int err = 0;

	for (size_t at = 0; at < len && err == 0; at += step)
		err = openai_answer_feed(a, str_sub(bytes + at, len - at < step ? len - at : step));
	err = openai_answer_end(a);
	buf_printf(seen, "|%d %s|", err, openai_answer_message(a));
	check((err != 0) == (*openai_answer_message(a) != '\0'));
	if (err == 0) {
		openai_answer_result(a, &r);
		for (uint32_t i = 0; i < r.tool_call_count; i++)
			buf_printf(seen, "%s %s %s;", r.tool_calls[i].id, r.tool_calls[i].name,
			    r.tool_calls[i].arguments);
		check(r.usage.cached_tokens <= r.usage.input_tokens);
		buf_printf(seen, "%d %ju %ju", r.finish, (uintmax_t)r.usage.input_tokens,
		    (uintmax_t)r.usage.output_tokens);
	}
	openai_answer_free(&a);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = BUF_INIT, split = BUF_INIT, error = BUF_INIT;

	if (size == 0)
		return 0;
	const char *bytes = (const char *)data + 1;
	run(bytes, size - 1, size, &whole);
	run(bytes, size - 1, data[0] % 64 + 1u, &split);
	check(str_eq(buf_str(&whole), buf_str(&split)));
	openai_error_message(str_sub(bytes, size - 1), &error);
	check(str_is_utf8(buf_str(&error)));
	buf_fini(&whole);
	buf_fini(&split);
	buf_fini(&error);
	return 0;
}
