/*
 * guard - does the machine take more connections? It says no before the kernel
 * begins to kill, and says why.
 *
 * Free memory is MemFree and the pages of files. MemAvailable would count 2-3 KB
 * of each socket's own inode, dentry and slab as reclaimable, which they are not.
 */
#ifndef LOADTEST_PARLEY_LOAD_GUARD_H
#define LOADTEST_PARLEY_LOAD_GUARD_H

#include "common/str.h"

struct guard_seen {
	uint64_t free_bytes;
	uint64_t files_open, files_max;    /* of all processes of the machine */
	uint64_t tcp_pages, tcp_pages_max; /* in TCP's buffers */
};

/* From the texts of /proc/meminfo, /proc/sys/fs/file-nr, /proc/net/sockstat and
 * /proc/sys/net/ipv4/tcp_mem. What is not in them is taken for boundless. Pure. */
struct guard_seen guard_read(
    struct str meminfo, struct str file_nr, struct str sockstat, struct str tcp_mem);

/* NULL: it takes more, else the reason, in static memory. Pure. */
const char *guard_judge(const struct guard_seen *, uint64_t leave_bytes);

/* Of this machine, now. */
const char *guard_look(uint64_t leave_bytes);

#endif
