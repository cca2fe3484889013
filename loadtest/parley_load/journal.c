/* journal - a stream that is flushed with each line: the process ends without notice. */
#include "loadtest/parley_load/journal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"

static FILE *out;

void
journal_open(const char *file, uint32_t process)
{
	char path[4096];

	if (file == NULL)
		return;
	snprintf(path, sizeof(path), "%s.%" PRIu32, file, process);
	out = fopen(path, "we");
	if (out == NULL) {
		fprintf(stderr, "parley_load: %s: %m\n", path);
		exit(73);
	}
	setvbuf(out, NULL, _IOLBF, 0);
}

void
journal(const char *format, ...)
{
	va_list args;

	if (out == NULL)
		return;
	fprintf(out, "%" PRId64 " ", clock_wall_ms());
	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
	fputc('\n', out);
}
