/*
 * sampling - sampling/createMessage of MCP, as our models understand it and as its answer is told.
 *
 * Pure. Texts and images are taken; who asks for more (audio, tools of its own) is refused.
 */
#ifndef WORKER_MCP_SAMPLING_H
#define WORKER_MCP_SAMPLING_H

#include <jansson.h>

#include "common/buf.h"

/* NULL: nothing that can be asked. Else OpenAI's messages, the caller's; *ret_max_tokens 0: no
 * limit was named. */
json_t *mcp_sampling_read(struct str params, uint32_t *ret_max_tokens);
/* The result, appended. */
void mcp_sampling_add_result(struct buf *, struct str text, const char *model, bool is_cut);

#endif
