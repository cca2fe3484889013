/*
 * owner - an address as text, in the record and in Redis: "host.row.number" in hex. Pure.
 */
#ifndef WORKER_BACKPLANE_OWNER_H
#define WORKER_BACKPLANE_OWNER_H

#include "worker/backplane/backplane.h"

enum { OWNER_MAX = 40 }; /* 16 + 1 + 8 + 1 + 8 and the NUL */

void owner_format(struct backplane_addr, char out[OWNER_MAX]);
void owner_format_host(
    struct backplane_addr, char out[OWNER_MAX]);                /* what it begins with: "host." */
bool owner_parse(const char *text, struct backplane_addr *ret); /* NULL text: false */
bool owner_equal(struct backplane_addr, struct backplane_addr);

#endif
