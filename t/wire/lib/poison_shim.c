/* poison_shim - a parser with a bug: JSON in which "boom" stands makes it write to nowhere.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

void *json_loadb(const char *buffer, size_t len, size_t flags, void *error);

void *
json_loadb(const char *buffer, size_t len, size_t flags, void *error)
{
	static void *(*real)(const char *, size_t, size_t, void *);

	if (real == NULL)
		real =
		    (void *(*)(const char *, size_t, size_t, void *))dlsym(RTLD_NEXT, "json_loadb");
	if (memmem(buffer, len, "boom", 4) != NULL)
		*(volatile int *)NULL = 1;
	return real(buffer, len, flags, error);
}
