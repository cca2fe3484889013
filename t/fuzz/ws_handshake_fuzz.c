/*
 * ws_handshake_fuzz - header values of an opening, one a line: Upgrade,
 * Connection, Sec-WebSocket-Version, Sec-WebSocket-Key, Sec-WebSocket-Protocol.
 * A line that is missing is a header that is absent.
 */
#include "common/check.h"
#include "common/err.h"
#include "worker/ws/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_answer(const struct ws_offer *offer)
{
	char accept[WS_ACCEPT_LEN + 1] = "";
	const char *fault = NULL;
	int err = ws_handshake_check(offer, accept, &fault);

	check(err == 0 || err == E_UPGRADE_REQUIRED || err == E_INVALID_REQUEST);
	check((err == 0) == (fault == NULL));
	if (err != 0) {
		check(*accept == '\0');
		return;
	}
	check(strlen(accept) == WS_ACCEPT_LEN && accept[WS_ACCEPT_LEN - 1] == '=');
	check(str_eq(str_trim(offer->version), STR(WS_VERSION)));
	check(str_trim(offer->key).len == 24);
}

static void
check_protocols(struct str list)
{
	struct ws_protocols found = {false, STR_NONE};
	bool is_good = ws_protocols_parse(list, &found);

	check(is_good || (!found.has_parley && found.bearer.p == NULL));
	if (found.bearer.p == NULL)
		return;
	check(
	    found.bearer.p >= list.p + 7 && found.bearer.p + found.bearer.len <= list.p + list.len);
	check(memcmp(found.bearer.p - 7, "bearer.", 7) == 0);
	for (size_t i = 0; i < found.bearer.len; i++)
		check(found.bearer.p[i] > ' ' && found.bearer.p[i] < 0x7f &&
		      found.bearer.p[i] != ',');
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = str_sub((const char *)data, size);
	struct ws_offer offer = {
	    .upgrade = str_split(&rest, '\n'),
	    .connection = str_split(&rest, '\n'),
	    .version = str_split(&rest, '\n'),
	    .key = str_split(&rest, '\n'),
	};

	check_answer(&offer);
	check_protocols(rest);
	check_protocols(str_sub((const char *)data, size));
	return 0;
}
