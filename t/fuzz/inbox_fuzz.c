/*
 * inbox_fuzz - messages of other hosts, and compact payloads; addresses as text; Redis addresses.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/redis_url.h"
#include "worker/backplane/inbox.h"
#include "worker/backplane/owner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_message(struct str s)
{
	struct inbox_message m, again;
	struct buf out = BUF_INIT;

	if (!inbox_parse(s, &m))
		return;
	check(m.payload.p + m.payload.len == s.p + s.len);
	check(m.from.who.number != 0 && m.method < BACKPLANE_METHOD_COUNT);
	inbox_format(&m, &out);
	check(out.len <= s.len); /* numbers may have been written longer than need be */
	check(inbox_parse(buf_str(&out), &again));
	check(owner_equal(m.from, again.from) && m.method == again.method);
	check(str_eq(m.payload, again.payload));
	buf_fini(&out);
}

static void
check_payload(struct str rest)
{
	struct str text;
	uint64_t n;

	while (backplane_take_u64(&rest, &n) && backplane_take_str(&rest, &text))
		check(text.p + text.len == rest.p);
}

static void
check_texts(struct str s)
{
	char *text = xstrndup(s.p, s.len), out[OWNER_MAX];
	struct backplane_addr addr;
	struct redis_url url;

	if (owner_parse(text, &addr))
		owner_format(addr, out);
	free(text);
	if (redis_url_parse(s, &url) == NULL)
		check((url.host[0] != '\0') != (url.path[0] != '\0'));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = str_sub((const char *)data, size);

	check_message(s);
	check_payload(s);
	if (size > 0)
		check_texts(s);
	return 0;
}
