/*
 * result - what a tool of a server has answered, for clients, for the model. Pure.
 *
 *   text            as it is, parts joined by empty lines
 *   structured      its JSON, where there is no text (servers repeat it as text)
 *   image           a part of its own, beside a line in the text that says so
 *   audio, others   a line in the text
 *   resource        its text, or a line with its address
 *
 * Clients get the structured content, else the text, else the parts as they are.
 */
#ifndef WORKER_MCP_RESULT_H
#define WORKER_MCP_RESULT_H

#include <jansson.h>

#include "common/buf.h"
#include "common/str.h"

struct mcp_result {
	bool is_error;
	struct buf text;
	json_t *output;
	json_t *images; /* NULL: none */
};

/* False: it is no result of tools/call. What is larger than bytes_max is cut and says so; images
 * that do not fit are left out. */
bool mcp_result_read(struct str json, size_t bytes_max, struct mcp_result *ret);
void mcp_result_fini(struct mcp_result *);

#endif
