/*
 * migrations - the schema's numbered steps, from sql/, and their application.
 *
 * Each runs once, in its own transaction together with its row in
 * schema_migrations, while no other process migrates. A database that is newer
 * than this program is fine: each step is good for the version before, too.
 */
#ifndef WORKER_STORE_MIGRATIONS_H
#define WORKER_STORE_MIGRATIONS_H

#include <stddef.h>

#include "common/conf.h"

struct migration {
	const char *dialect; /* the folder: sqlite, postgres */
	int version;
	const char *name;
	const char *sql;
};

/* The next step after `version`; NULL: none. */
const struct migration *migration_after(const char *dialect, int version);

/* All pending ones of the SQLite file, which is made if it is not there. 0 or E_* (logged). */
int sqlite_migrate(const char *path);

/* All pending ones of the PostgreSQL database. Waits for the server up to store.connect_timeout.
 * Warns when all workers' pools together exceed what it allows. 0 or E_* (logged). */
int pg_migrate(const struct conf *);

#endif
