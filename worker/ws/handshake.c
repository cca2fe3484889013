/* handshake - tokens, the key, and its answer. */
#include "worker/ws/handshake.h"

#include "common/check.h"
#include "common/crypto.h"
#include "common/err.h"

#define GUID   "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 section 1.3 */
#define BEARER "bearer."

enum { KEY_LEN = 24, KEY_DIGITS = 22 }; /* 16 bytes in base64, two of them padding */

static bool
is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool
has_token(struct str list, struct str token)
{
	while (list.len > 0) {
		if (str_ieq(str_trim(str_split(&list, ',')), token))
			return true;
	}
	return false;
}

static bool
is_key(struct str key)
{
	if (key.len != KEY_LEN || key.p[KEY_DIGITS] != '=' || key.p[KEY_DIGITS + 1] != '=')
		return false;
	for (size_t i = 0; i < KEY_DIGITS; i++) {
		if (!is_alnum(key.p[i]) && key.p[i] != '+' && key.p[i] != '/')
			return false;
	}
	return true;
}

static void
answer_key(struct str key, char ret_accept[WS_ACCEPT_LEN + 1])
{
	char text[KEY_LEN + sizeof(GUID) - 1];
	uint8_t sum[SHA1_LEN];
	struct buf encoded = BUF_INIT;

	memcpy(text, key.p, KEY_LEN);
	memcpy(text + KEY_LEN, GUID, sizeof(GUID) - 1);
	crypto_sha1(str_sub(text, sizeof(text)), sum);
	crypto_base64(str_sub((const char *)sum, sizeof(sum)), &encoded);
	check(encoded.len == WS_ACCEPT_LEN);
	memcpy(ret_accept, encoded.data, WS_ACCEPT_LEN + 1);
	buf_fini(&encoded);
}

int
ws_handshake_check(
    const struct ws_offer *offer, char ret_accept[WS_ACCEPT_LEN + 1], const char **ret_fault)
{
	struct str key = str_trim(offer->key);

	if (!has_token(offer->upgrade, STR("websocket"))) {
		*ret_fault = "This is a WebSocket: the request must ask to upgrade.";
		return E_UPGRADE_REQUIRED;
	}
	if (!str_eq(str_trim(offer->version), STR(WS_VERSION))) {
		*ret_fault = "Sec-WebSocket-Version must be 13.";
		return E_UPGRADE_REQUIRED;
	}
	if (!has_token(offer->connection, STR("upgrade"))) {
		*ret_fault = "The Connection header does not name upgrade.";
		return E_INVALID_REQUEST;
	}
	if (!is_key(key)) {
		*ret_fault = "Sec-WebSocket-Key must be 16 bytes in base64.";
		return E_INVALID_REQUEST;
	}
	answer_key(key, ret_accept);
	return 0;
}

/* RFC 9110 section 5.6.2 */
static bool
is_token(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!is_alnum(s.p[i]) &&
		    (s.p[i] == '\0' || strchr("!#$%&'*+-.^_`|~", s.p[i]) == NULL))
			return false;
	}
	return s.len > 0;
}

/* One element of the list; false when it may not be there. */
static bool
take_protocol(struct ws_protocols *found, struct str name)
{
	struct str prefix = STR(BEARER);

	if (!is_token(name))
		return false;
	if (str_eq(name, STR(WS_PROTOCOL))) {
		bool is_new = !found->has_parley;

		found->has_parley = true;
		return is_new;
	}
	if (!str_starts(name, prefix))
		return true;
	bool is_new = found->bearer.p == NULL;
	found->bearer = str_sub(name.p + prefix.len, name.len - prefix.len);
	return is_new;
}

bool
ws_protocols_parse(struct str list, struct ws_protocols *ret)
{
	struct ws_protocols found = {false, STR_NONE};

	while (list.len > 0) {
		struct str name = str_trim(str_split(&list, ','));

		/* A recipient ignores empty elements (RFC 9110 section 5.6.1.2). */
		if (name.len > 0 && !take_protocol(&found, name))
			return false;
	}
	*ret = found;
	return true;
}
