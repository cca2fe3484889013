/* out - one allocation: count, head, payload. */
#include "worker/ws/out.h"

#include <stdlib.h>

#include "common/check.h"

static struct ws_out *
out_new(const uint8_t *head, size_t head_len, struct str rest)
{
	check(rest.len <= UINT32_MAX - WS_HEAD_OUT_MAX - sizeof(struct ws_out));
	struct ws_out *o = xmalloc(sizeof(*o) + head_len + rest.len);

	o->refs = 1;
	o->len = (uint32_t)(head_len + rest.len);
	memcpy(o->bytes, head, head_len);
	if (rest.len > 0)
		memcpy(o->bytes + head_len, rest.p, rest.len);
	return o;
}

struct ws_out *
ws_out_new(enum ws_opcode opcode, struct str payload)
{
	uint8_t head[WS_HEAD_OUT_MAX];
	size_t head_len = ws_frame_format_head(opcode, payload.len, head);

	return out_new(head, head_len, payload);
}

struct ws_out *
ws_out_of_frame(const uint8_t *frame, size_t len)
{
	check(len > 0);
	return out_new(frame, len, STR_NONE);
}

struct ws_out *
ws_out_ref(struct ws_out *o)
{
	check(o->refs > 0 && o->refs < UINT32_MAX);
	o->refs++;
	return o;
}

void
ws_out_unref(struct ws_out **o)
{
	if (*o == NULL)
		return;
	check((*o)->refs > 0);
	if (--(*o)->refs == 0)
		free(*o);
	*o = NULL;
}
