/*
 * question_id - the id of a question that a client is asked: where it is remembered. Pure.
 */
#ifndef WORKER_MCP_QUESTION_ID_H
#define WORKER_MCP_QUESTION_ID_H

#include "worker/backplane/owner.h"

enum { QUESTION_ID_MAX = OWNER_MAX + 20 };

/* As it stands in JSON: "p.host.row.number.handle", in hex, with its quotes. */
void question_id_format(struct backplane_addr home, uint64_t handle, char out[QUESTION_ID_MAX]);
bool question_id_parse(struct str id, struct backplane_addr *ret_home, uint64_t *ret_handle);

#endif
