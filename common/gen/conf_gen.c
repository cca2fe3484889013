/*
 * conf_gen - writes what is made from the table of options: `conf_gen sample`
 * (etc/parley.yaml) or `conf_gen reference` (etc/options.md) to standard output.
 * Run by `make gen`; no part of the server.
 */
#include <stdio.h>
#include <string.h>

#include "common/conf.h"

int
main(int argc, char **argv)
{
	struct buf out = BUF_INIT;

	if (argc == 2 && strcmp(argv[1], "sample") == 0) {
		conf_write_sample(&out);
	} else if (argc == 2 && strcmp(argv[1], "reference") == 0) {
		conf_write_reference(&out);
	} else {
		fprintf(stderr, "usage: conf_gen sample|reference\n");
		return 64;
	}
	size_t written = fwrite(out.data, 1, out.len, stdout);
	int rc = written == out.len && fflush(stdout) == 0 ? 0 : 1;
	buf_fini(&out);
	return rc;
}
