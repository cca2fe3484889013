/*
 * signalr - records of SignalR's JSON hub protocol. Pure.
 *
 * A record is a JSON object and the byte 0x1E. What a client sends is text from outside: a record
 * that is not one is told from one, and nothing else happens. See
 * https://github.com/dotnet/aspnetcore/blob/main/src/SignalR/docs/specs/HubProtocol.md.
 */
#ifndef WORKER_EVENTS_SIGNALR_H
#define WORKER_EVENTS_SIGNALR_H

#include <jansson.h>
#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

enum { SIGNALR_END = 0x1e };

/* Cuts the next whole record off, without its end. False: the rest is not whole. */
bool signalr_next(struct str *rest, struct str *ret_record);

/* Is it {"protocol":"json","version":1}? */
bool signalr_is_handshake(struct str record);

enum signalr_type {
	SIGNALR_INVOCATION = 1,
	SIGNALR_ITEM = 2,
	SIGNALR_COMPLETION = 3,
	SIGNALR_STREAM = 4,
	SIGNALR_CANCEL = 5,
	SIGNALR_PING = 6,
	SIGNALR_CLOSE = 7,
};

/* Borrowed from json. */
struct signalr_message {
	json_t *json; /* owned, see signalr_fini() */
	enum signalr_type type;
	const char *target;        /* of an invocation */
	const char *invocation_id; /* NULL: nobody waits for an answer */
	const json_t *arguments;   /* an array; of an invocation */
};
/* False: not a message, or one without what its type must have. */
bool signalr_parse(struct str record, struct signalr_message *ret);
void signalr_fini(struct signalr_message *);

/* All append a whole record. */
void signalr_add_handshake(struct buf *, const char *error); /* NULL: none */
/* arguments: JSON, what is between the brackets. */
void signalr_add_invocation(struct buf *, const char *target, struct str arguments);
void signalr_add_item(struct buf *, const char *invocation_id, struct str json);
/* error NULL: it has succeeded; result: JSON, empty: none. */
void signalr_add_completion(
    struct buf *, const char *invocation_id, const char *error, struct str result);
void signalr_add_ping(struct buf *);
void signalr_add_close(struct buf *, const char *error, bool may_reconnect);

#endif
