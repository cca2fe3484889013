/*
 * handshake - is this request a WebSocket's opening (RFC 6455 section 4.2), and
 * what is answered. Pure: looks at header values, knows no request.
 *
 * In the order of refusals: ws_protocols_parse() for the key that a browser
 * hands over as a subprotocol (401), the origin (403, not here), then
 * ws_handshake_check() (400, 426), then capacity.
 *
 * Extensions are declined by leaving Sec-WebSocket-Extensions out of the answer,
 * whatever was offered.
 */
#ifndef WORKER_WS_HANDSHAKE_H
#define WORKER_WS_HANDSHAKE_H

#include <stdbool.h>

#include "common/str.h"

enum { WS_ACCEPT_LEN = 28 };

#define WS_PROTOCOL "parley"
#define WS_VERSION  "13"

/* Values of the headers that may come once; .p == NULL: absent. Lists are joined with commas. */
struct ws_offer {
	struct str upgrade;
	struct str connection;
	struct str version; /* Sec-WebSocket-Version */
	struct str key;     /* Sec-WebSocket-Key */
};

/*
 * 0 and Sec-WebSocket-Accept, NUL-terminated. E_UPGRADE_REQUIRED: not an opening at all, or of
 * another version (answer 426 with Upgrade: websocket and Sec-WebSocket-Version: 13).
 * E_INVALID_REQUEST: a broken one. *ret_fault then says what, in one sentence for the client.
 */
int ws_handshake_check(
    const struct ws_offer *, char ret_accept[WS_ACCEPT_LEN + 1], const char **ret_fault);

struct ws_protocols {
	bool has_parley;   /* to be echoed as Sec-WebSocket-Protocol; nothing else ever is */
	struct str bearer; /* X of `bearer.X`, borrowed from the list; .p == NULL: none */
};

/* The list of Sec-WebSocket-Protocol (.p == NULL: absent, which is fine). False when it is not a
 * list of tokens, or names `parley` or a key twice. */
bool ws_protocols_parse(struct str list, struct ws_protocols *ret);

#endif
