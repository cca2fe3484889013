/* core_time - one line of /proc. */
#include "master/core_time.h"

#include <stdio.h>
#include <unistd.h>

#include "common/check.h"

enum { LINE_MAX_BYTES = 1024, FIELDS_BEFORE_UTIME = 10 };

bool
core_time_parse(struct str line, long ticks_per_s, struct core_time *ret)
{
	const char *name_end = line.len > 0 ? memrchr(line.p, ')', line.len) : NULL;
	uint64_t user, system;

	check(ticks_per_s > 0);
	if (name_end == NULL)
		return false;
	struct str rest = str_sub(name_end + 1, line.len - (size_t)(name_end + 1 - line.p));
	str_split(&rest, ' ');
	struct str state = str_split(&rest, ' ');
	for (int i = 0; i < FIELDS_BEFORE_UTIME; i++)
		str_split(&rest, ' ');
	if (state.len != 1 || !str_to_u64(str_split(&rest, ' '), &user) ||
	    !str_to_u64(str_split(&rest, ' '), &system))
		return false;
	ret->is_runnable = state.p[0] == 'R';
	ret->used_ms = (user + system) * 1000 / (uint64_t)ticks_per_s;
	return true;
}

bool
core_time_read(pid_t pid, struct core_time *ret)
{
	char path[64], line[LINE_MAX_BYTES];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)pid);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	size_t len = fread(line, 1, sizeof(line), f);
	fclose(f);
	return core_time_parse(str_sub(line, len), sysconf(_SC_CLK_TCK), ret);
}
