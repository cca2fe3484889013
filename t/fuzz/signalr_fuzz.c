/* signalr - what clients of hubs send: any bytes, in any pieces, are records, or are not. */
#include <stdint.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/events/hub_shape.h"
#include "worker/events/position.h"
#include "worker/events/signalr.h"

static void
try_record(struct str record)
{
	struct signalr_message m;
	struct buf out = BUF_INIT;

	signalr_is_handshake(record);
	if (!signalr_parse(record, &m))
		return;
	check(m.type >= SIGNALR_INVOCATION && m.type <= SIGNALR_CLOSE);
	/* What we would answer is a record again, whatever was in it. */
	if (m.invocation_id != NULL) {
		struct str rest, again;
		struct signalr_message answer;

		signalr_add_completion(&out, m.invocation_id, m.target, STR_NONE);
		rest = buf_str(&out);
		check(signalr_next(&rest, &again) && rest.len == 0);
		check(signalr_parse(again, &answer) && answer.type == SIGNALR_COMPLETION);
		signalr_fini(&answer);
	}
	buf_fini(&out);
	signalr_fini(&m);
}

static void
try_position(struct str s)
{
	struct position p, again;
	char text[POSITION_TEXT_MAX];

	if (!position_parse(s, &p))
		return;
	check(position_parse(str_sub(text, position_format(&p, text)), &again));
	check(position_covers(&p, &again) && position_covers(&again, &p));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct str rest = str_sub((const char *)data, len), record;

	try_position(rest);
	while (signalr_next(&rest, &record))
		try_record(record);
	check(rest.len == 0 || memchr(rest.p, SIGNALR_END, rest.len) == NULL);
	return 0;
}
