/*
 * cpus - how many CPUs this process may use: the smaller of its affinity and
 * the quota of its cgroup (version 1 or 2, the tightest on the way to the root).
 */
#ifndef COMMON_CPUS_H
#define COMMON_CPUS_H

#include "common/str.h"

/* At least 1. A share of a CPU counts as one: 1.5 are 2. */
unsigned cpus_available(void);

/* The pure parts. 0: no limit, or not to be understood. */
unsigned cpus_of_cgroup2(struct str cpu_max); /* "150000 100000\n", "max 100000\n" */
unsigned cpus_of_cgroup1(struct str quota, struct str period); /* "150000\n", "100000\n"; "-1\n" */

/* The path of the cgroup in the text of /proc/self/cgroup; .p NULL: none there. */
struct str cpus_cgroup2_path(struct str proc_self_cgroup);
struct str cpus_cgroup1_path(struct str proc_self_cgroup);

/* The quota under another root than "/": `root`/proc/self/cgroup, `root`/sys/fs/cgroup. 0: none. */
unsigned cpus_of_quota(const char *root);

#endif
