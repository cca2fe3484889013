/*
 * migrations - the schema's steps as part of the program.
 */
#include "worker/store/migrations.h"

#include <string.h>

#include "common/check.h"

static const struct migration migrations[] = {
#define MIGRATION(dialect, version, name, sql) {dialect, version, name, sql},
#include "worker/store/migrations.tbl" /* made from sql/ */
#undef MIGRATION
};

const struct migration *
migration_after(const char *dialect, int version)
{
	const struct migration *next = NULL;

	for (size_t i = 0; i < ARRAY_LEN(migrations); i++) {
		const struct migration *m = &migrations[i];

		if (strcmp(m->dialect, dialect) == 0 && m->version > version &&
		    (next == NULL || m->version < next->version))
			next = m;
	}
	return next;
}
