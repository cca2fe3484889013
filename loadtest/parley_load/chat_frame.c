/* chat_frame - one search per question. */
#include "loadtest/parley_load/chat_frame.h"

#include <stdio.h>

#include "common/check.h"

enum { NAME_MAX_BYTES = 48 };

static const char *const statuses[] = {
    [CHAT_OTHER] = "",
    [CHAT_PROCESSING] = "processing",
    [CHAT_CHUNK] = "chunk",
    [CHAT_TOOL_CALL] = "tool_call",
    [CHAT_RESTARTED] = "restarted",
    [CHAT_COMPLETE] = "complete",
    [CHAT_ERROR] = "error",
    [CHAT_JOINED] = "joined",
    [CHAT_PONG] = "pong",
};

/* What follows "name": in the frame; empty: it is not there. */
static struct str
value_of(struct str frame, const char *name)
{
	char pattern[NAME_MAX_BYTES];
	int len = snprintf(pattern, sizeof(pattern), "\"%s\":", name);

	check(len > 0 && (size_t)len < sizeof(pattern));
	const char *at = frame.len > 0 ? memmem(frame.p, frame.len, pattern, (size_t)len) : NULL;
	return at == NULL ? STR_NONE : str_sub(at + len, frame.len - (size_t)(at + len - frame.p));
}

struct str
chat_frame_text(struct str frame, const char *name)
{
	struct str value = value_of(frame, name);

	if (value.len == 0 || value.p[0] != '"')
		return STR_NONE;
	value = str_sub(value.p + 1, value.len - 1);
	return str_split(&value, '"');
}

uint64_t
chat_frame_number(struct str frame, const char *name)
{
	struct str value = value_of(frame, name);
	uint64_t n = 0;
	size_t len = 0;

	while (len < value.len && value.p[len] >= '0' && value.p[len] <= '9')
		len++;
	str_to_u64(str_sub(value.p, len), &n);
	return n;
}

enum chat_status
chat_frame_status(struct str frame)
{
	struct str status = chat_frame_text(frame, "status");

	for (size_t i = CHAT_PROCESSING; i < ARRAY_LEN(statuses); i++) {
		if (str_eq(status, str_of(statuses[i])))
			return (enum chat_status)i;
	}
	return CHAT_OTHER;
}
