/* revision - see revision.h. */
#include "worker/mcp/revision.h"

#include "common/check.h"

static const struct mcp_revision_info revisions[MCP_REVISION_COUNT] = {
#define X(name, text, is_modern, has_batches, has_structured)                                      \
	{text, is_modern, has_batches, has_structured},
#include "worker/mcp/revision.tbl"
#undef X
};

const struct mcp_revision_info *
mcp_revision_info(enum mcp_revision r)
{
	check(r < MCP_REVISION_COUNT);
	return &revisions[r];
}

enum mcp_revision
mcp_revision_parse(struct str s)
{
	for (int i = 0; i < MCP_REVISION_COUNT; i++) {
		if (str_eq(s, str_of(revisions[i].text)))
			return (enum mcp_revision)i;
	}
	return MCP_REVISION_NONE;
}
