/*
 * call - the tool calls of this worker's live turns: our own ids, and who waits
 * for which answer.
 *
 * A call is in the map before the client hears of it and leaves it with its
 * turn. It is answered once; the same answer again is recognised by its hash.
 * The provider's ids are not unique, sometimes empty: clients see ours, the
 * provider is given its own back.
 */
#ifndef WORKER_TOOL_CALL_H
#define WORKER_TOOL_CALL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/crypto.h"
#include "common/id.h"
#include "common/str.h"

enum tool_run_by { TOOL_BY_CLIENT, TOOL_BY_SERVER };

enum tool_state {
	TOOL_PENDING,
	TOOL_ANSWERED,
	TOOL_FAILED, /* by us: not a known tool, no JSON, too late */
};

struct tool_call {
	struct id id;
	struct id session_id;
	uint64_t turn; /* the turn's handle */
	uint32_t hop;
	enum tool_run_by run_by;
	enum tool_state state;
	bool is_told;  /* the client has heard of it */
	bool is_error; /* what the model is told is an error */
	bool is_late;  /* .. because there was no answer in time */
	char *wire_id; /* the provider's id, or ours where that is empty or not unique */
	char *name;
	char *text;               /* the arguments as the model wrote them */
	json_t *arguments;        /* the same parsed: an object, or NULL */
	char *content;            /* the result as the model is told; NULL while pending */
	json_t *images;           /* parts of a message that the model is shown, too; NULL: none */
	uint8_t hash[SHA256_LEN]; /* of the answer */
	uint64_t started_ms;
};

struct tool_calls; /* the map */

struct tool_calls *tool_calls_new(void);
void tool_calls_free(struct tool_calls **); /* it must be empty */

struct tool_call_asked { /* what the model asks for */
	const struct id *session_id;
	uint64_t turn;
	uint32_t hop;
	const char *wire_id, *name, *arguments;
	uint64_t now_ms;
};
struct tool_call *tool_call_new(struct tool_calls *, const struct tool_call_asked *);
void tool_call_free(struct tool_calls *, struct tool_call **);

/* NULL: no such call of a client's tool in a live turn of this session. */
struct tool_call *tool_call_find(
    struct tool_calls *, const struct id *session_id, const struct id *call_id);

/* Either output or error. 0, or E_ALREADY_ANSWERED with *ret_is_same. */
int tool_call_answer(
    struct tool_call *, const json_t *output, const char *error, bool *ret_is_same);
/* What the model is told and shown instead of the same as clients; of an answered call. */
void tool_call_tell(struct tool_call *, struct str content, json_t *images);
/* Our own answer to the model in place of the tool's. */
void tool_call_fail(struct tool_call *, const char *error);

/* {"tool_call_id","name","arguments","run_by"}; a new reference. */
json_t *tool_call_describe(const struct tool_call *);

/* Is there a tool of that name in an array of OpenAI tools? NULL: no. */
bool tool_is_listed(const json_t *tools, const char *name);

#endif
