/*
 * conf_fuzz - a configuration file and an environment from outside: the input up
 * to the first NUL is the file, the texts between the next ones are variables.
 * What loads must print, and must load and print the same once more.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VARIABLES_MAX = 16 };

/* Secret files would make runs depend on the machine. */
static bool
names_a_file(const char *text, size_t len)
{
	return memmem(text, len, "_file", 5) != NULL || memmem(text, len, "_FILE", 5) != NULL;
}

static void
print(const struct conf *conf, struct buf *out)
{
	struct buf keys = BUF_INIT;

	conf_print(conf, out);
	check(out->len > 0);
	check(conf_diff_needs_restart(conf, conf, &keys) == 0);
	check(conf_workers(conf) >= 1);
	buf_fini(&keys);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *input, *variables[VARIABLES_MAX + 1];
	size_t count = 0, file_len;

	if (names_a_file((const char *)data, size))
		return 0;
	input = xmalloc(size + 1);
	if (size > 0)
		memcpy(input, data, size);
	input[size] = '\0';
	file_len = strlen(input);
	for (size_t at = file_len + 1; at < size && count < VARIABLES_MAX;
	     at += strlen(input + at) + 1)
		variables[count++] = input + at;
	variables[count] = NULL;

	struct conf_source source = {
	    .file = "fuzz", .text = str_sub(input, file_len), .environment = variables};
	struct buf errors = BUF_INIT, first = BUF_INIT, second = BUF_INIT;
	struct conf *conf = conf_load(&source, &errors);
	check((conf == NULL) == (errors.len > 0));
	if (conf != NULL) {
		print(conf, &first);
		conf_free(&conf);
		conf = conf_load(&source, &errors);
		check(conf != NULL);
		print(conf, &second);
		check(str_eq(buf_str(&first), buf_str(&second)));
		conf_free(&conf);
	}
	buf_fini(&errors);
	buf_fini(&first);
	buf_fini(&second);
	free(input);
	return 0;
}
