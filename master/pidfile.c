/*
 * pidfile - written whole or not at all.
 */
#include "master/pidfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"

bool
pidfile_write(const char *path)
{
	if (path[0] == '\0')
		return true;
	char *temporary = xasprintf("%s.new", path);
	FILE *f = fopen(temporary, "we");
	bool is_written = f != NULL;

	if (f != NULL) {
		fprintf(f, "%d\n", (int)getpid());
		is_written = fclose(f) == 0 && rename(temporary, path) == 0;
	}
	if (!is_written)
		log_error("pid file not written file=%s error=\"%s\"", path, strerror(errno));
	free(temporary);
	return is_written;
}

void
pidfile_remove(const char *path)
{
	if (path[0] != '\0')
		unlink(path);
}
