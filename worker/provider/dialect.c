/* dialect - see dialect.h; OpenAI's own, of which nothing is translated. */
#include "worker/provider/dialect.h"

#include "common/check.h"

static const char *
same_path(const char *path)
{
	return path;
}

static const struct dialect dialect_openai = {
    .name = "openai",
    .key_header = "Authorization",
    .key_prefix = "Bearer ",
    .path = same_path,
};

void
dialect_end(const struct dialect *d, struct translation **tp)
{
	if (*tp != NULL)
		d->end(tp);
}

const struct dialect *
dialect_named(const char *name)
{
	static const struct dialect *const all[] = {&dialect_openai, &dialect_anthropic};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	}
	check(!"a dialect of the config");
	return NULL;
}
