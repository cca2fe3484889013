/*
 * replay_main - runs a fuzz target over files, without a fuzzer.
 *
 * Every argument is a file or a folder of files; each is one input, also fed
 * empty. `make test` replays the committed corpora this way, in every kind of
 * build. It says what it is about to run when that run kills it.
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *current;
static unsigned count;

static void
on_death(int sig)
{
	dprintf(STDERR_FILENO, "died of signal %d on input %s\n", sig, current);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void
replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;

	if (f == NULL || fstat(fileno(f), &st) != 0) {
		perror(path);
		exit(1);
	}
	/* Exactly as large as the input, so that a sanitizer sees a read past its end. */
	size_t size = (size_t)st.st_size;
	uint8_t *data = xmalloc(size);
	check(fread(data, 1, size, f) == size);
	fclose(f);
	current = path;
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	count++;
}

static void
replay_folder(const char *path)
{
	struct dirent **entries;
	int n = scandir(path, &entries, NULL, alphasort);

	check(n >= 0);
	for (int i = 0; i < n; i++) {
		char *file = xasprintf("%s/%s", path, entries[i]->d_name);

		if (entries[i]->d_name[0] != '.')
			replay_file(file);
		free(file);
		free(entries[i]);
	}
	free(entries);
}

int
main(int argc, char **argv)
{
	static const int deadly[] = {SIGABRT, SIGFPE, SIGBUS, SIGALRM};

	for (size_t i = 0; i < ARRAY_LEN(deadly); i++)
		signal(deadly[i], on_death);
	current = "(empty)";
	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			replay_folder(argv[i]);
		else
			replay_file(argv[i]);
	}
	printf("%u inputs\n", count);
	return count > 0 ? 0 : 1;
}
