/*
 * plan - what the mock shall do with one request.
 *
 * Filled in this order, the later one wins: the command line, POST /mock/fault,
 * the model's name (mock-tokens-100-fault-stall), the header X-Mock
 * ("tokens=20,interval=0,fault=status:503"), and directives in the last user
 * message: [[mock tool=get_weather args={"city":"Paris"} fault=stall hop=1]].
 * Pure.
 */
#ifndef LOADTEST_MOCK_LLM_PLAN_H
#define LOADTEST_MOCK_LLM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum fault {
	FAULT_NONE,
#define X(name, text, help) name,
#include "loadtest/mock_llm/faults.tbl"
#undef X
};

enum { PLAN_TOOLS_MAX = 16, PLAN_HOPS_ENDLESS = 1000000 };

struct plan_tool {
	char *name;
	char *args; /* as the model would write them; JSON or not */
};

struct plan {
	bool has_tokens; /* false: the answer is an echo */
	uint32_t tokens; /* the answer is tok0 .. tok<n-1> */
	uint32_t interval_ms;
	uint32_t first_ms; /* before the head */
	bool has_first;

	enum fault fault;
	uint32_t fault_status;
	uint32_t fault_after;
	uint32_t fault_size;
	bool has_fault_hop;
	uint32_t fault_hop;   /* only at this hop of the tool loop */
	uint32_t fault_times; /* only the first n requests with this key; 0: all */
	char *fault_key;
	char *retry_after;
	char *fault_message; /* of the error object */

	struct plan_tool tools[PLAN_TOOLS_MAX];
	uint32_t tool_count;
	uint32_t hops; /* how often the tools are called before the text */

	char *text;         /* the answer, word for word */
	char *finish;       /* finish_reason in place of the natural one */
	uint32_t reasoning; /* so many deltas of reasoning_content first: why0 why1 .. */
	uint32_t cached;    /* prompt_tokens_details.cached_tokens */
	uint32_t burst;     /* so many deltas first, without the interval */
	bool is_stamped;    /* the text says when it was asked for and when it was given */
	bool hides_usage;
	bool refuses; /* the text comes as a refusal */
};

void plan_init(struct plan *);
void plan_fini(struct plan *);
void plan_copy(struct plan *dst, const struct plan *src);

/* "key=value" items between spaces or commas, values may be JSON. False and *ret_error (static) for
 * what is not understood. */
bool plan_parse(struct plan *, struct str text, const char **ret_error);
/* mock-key-value-key-value; other names and unknown keys change nothing. */
void plan_parse_model(struct plan *, struct str model);
/* Takes the [[mock ..]] parts out of a user's text; the rest goes to plain, trimmed. */
bool plan_parse_message(struct plan *, struct str text, struct buf *plain, const char **ret_error);

const char *fault_name(enum fault);

#endif
