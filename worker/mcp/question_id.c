/* question_id - see question_id.h. */
#include "worker/mcp/question_id.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
question_id_format(struct backplane_addr home, uint64_t handle, char out[QUESTION_ID_MAX])
{
	char owner[OWNER_MAX];

	owner_format(home, owner);
	snprintf(out, QUESTION_ID_MAX, "\"p.%s.%" PRIx64 "\"", owner, handle);
}

bool
question_id_parse(struct str id, struct backplane_addr *ret_home, uint64_t *ret_handle)
{
	char text[QUESTION_ID_MAX], *dot, *end;

	if (id.len < 5 || id.len >= sizeof(text) || memcmp(id.p, "\"p.", 3) != 0)
		return false;
	memcpy(text, id.p + 3, id.len - 4);
	text[id.len - 4] = '\0';
	dot = strrchr(text, '.');
	if (dot == NULL || dot[1] == '\0' || strspn(dot + 1, "0123456789abcdef") != strlen(dot + 1))
		return false;
	*dot = '\0';
	*ret_handle = strtoull(dot + 1, &end, 16);
	return *end == '\0' && owner_parse(text, ret_home);
}
