/*
 * jsonrpc - the messages of MCP: JSON-RPC 2.0 as text, read where it lies and written.
 *
 * Pure; nothing is built. What a message holds is given as it was written (params, result, error
 * data, id), so that it can be passed on byte for byte; only its frame is understood. Texts that
 * are read this way are JSON, UTF-8 and no deeper than JSON_SCAN_DEPTH_MAX: what does not hold that
 * is refused as a whole. A frame in which a key stands twice is refused too, and so are params,
 * because those behind us might read the other one: also where one is in escapes, or differs in
 * upper and lower case only, which some do not tell apart.
 */
#ifndef WORKER_MCP_JSONRPC_H
#define WORKER_MCP_JSONRPC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/json_scan.h"
#include "common/str.h"

enum {
	JSONRPC_ID_MAX = 256, /* bytes of an id as it is written */
	JSONRPC_METHOD_MAX = 128,
	JSONRPC_BATCH_MAX = 64,  /* messages in one array */
	JSONRPC_PARAMS_MAX = 64, /* members; those are compared with each other */
};

enum jsonrpc_kind {
	JSONRPC_REQUEST,
	JSONRPC_NOTIFICATION,
	JSONRPC_RESULT,
	JSONRPC_ERROR,
};

struct jsonrpc { /* borrowed from the text, but for the method */
	enum jsonrpc_kind kind;
	struct str id; /* as written: a string with its quotes, or an integer; empty: an error that
			  names none */
	char method[JSONRPC_METHOD_MAX + 1]; /* requests and notifications; decoded */
	struct str params;                   /* likewise; an object or an array, or empty */
	struct str result;                   /* any value */
	int64_t code;                        /* of an error .. */
	struct str message;                  /* .. as written, with its quotes; empty: none */
	struct str data;                     /* .. as written; empty: none */
};

/*
 * 0, MCP_PARSE_ERROR (not JSON) or MCP_INVALID_REQUEST (JSON and no message; also an array). In the
 * latter case *ret has the id where there was a good one (else empty) and nothing else. A request's
 * id is a string or an integer, never null.
 */
int jsonrpc_parse(struct str text, struct jsonrpc *ret);

/* Is it an array? Then its messages one by one, each for jsonrpc_parse(): 1, 0 at the end, -1: not
 * JSON or more than JSONRPC_BATCH_MAX. */
bool jsonrpc_is_batch(struct str text);
struct jsonrpc_batch {
	struct json_scan scan;
	uint32_t count;
};
void jsonrpc_batch_init(struct jsonrpc_batch *, struct str text);
int jsonrpc_batch_next(struct jsonrpc_batch *, struct str *ret);

/* ---- within params and results ---- */

/* The value of a member as it was written. False: the text is no object, or has none of that name.
 * The first one counts. */
bool jsonrpc_member(struct str object, const char *name, struct str *ret);
/* Its text, appended to out. False: there is none, or it is no string. */
bool jsonrpc_text_member(struct str object, const char *name, struct buf *out);
bool jsonrpc_int_member(struct str object, const char *name, int64_t *ret);
bool jsonrpc_bool_member(struct str object, const char *name, bool *ret);
/* Whole numbers without a fraction or an exponent that fit. */
bool jsonrpc_int(struct str text, int64_t *ret);

/* Does no key stand twice in the object, none that resembles another, and no more than
 * JSONRPC_PARAMS_MAX? Of what is no object there is none. */
bool jsonrpc_is_clear(struct str object);

/* The object without one of its members and whatever resembles it (json_scan_key_resembles()), as
 * text: {} when it has no other. It is an object. */
void jsonrpc_without(struct buf *, struct str object, const char *name);

/* ---- writing; ids and values are given as they are to stand ---- */

void jsonrpc_add_request(struct buf *, struct str id, const char *method, struct str params);
void jsonrpc_add_notification(struct buf *, const char *method, struct str params);
void jsonrpc_add_result(struct buf *, struct str id, struct str result);
/* id empty: null. message is plain text; data may be empty. */
void jsonrpc_add_error(
    struct buf *, struct str id, int64_t code, struct str message, struct str data);
/* One that was read: code, message and data as they were. */
void jsonrpc_add_error_as(struct buf *, struct str id, const struct jsonrpc *error);
/* "..." */
void jsonrpc_add_string(struct buf *, struct str plain);
/* What was added since `from` becomes one line, for streams of events and of lines: line feeds and
 * returns, which in JSON stand between values only, become spaces. */
void jsonrpc_flatten(struct buf *, size_t from);

#endif
