/*
 * sqlite_migrate - brings a SQLite file to the present schema.
 *
 * BEGIN IMMEDIATE is the lock: of two that migrate at once the second waits and
 * finds nothing left to do.
 */
#include "worker/store/migrations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/sqlite_db.h"
#include "worker/store/store.h"

enum { LOCK_WAIT_MS = 30000 };

/* The folder that the file is to be in; only its last part may be missing. */
static int
make_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder;
	int err = 0;

	if (slash == NULL || slash == path)
		return 0;
	folder = xstrndup(path, (size_t)(slash - path));
	if (mkdir(folder, 0750) != 0 && errno != EEXIST) {
		log_error("store folder cannot be made path=\"%s\" reason=\"%s\"", folder,
		    strerror(errno));
		err = E_STORE_UNAVAILABLE;
	}
	free(folder);
	return err;
}

static int
present_version(struct sqlite_db *db, int *ret)
{
	int64_t number = 0;
	int err = sqlite_db_number(
	    db, "SELECT count(*) FROM sqlite_master WHERE name = 'schema_migrations'", &number);

	if (err == 0 && number > 0)
		err = sqlite_db_number(db, "SELECT max(version) FROM schema_migrations", &number);
	*ret = (int)number;
	return err;
}

static int
apply(struct sqlite_db *db, const struct migration *m)
{
	struct buf row = BUF_INIT;
	int err = sqlite_db_script(db, m->sql);

	buf_printf(&row,
	    "INSERT INTO schema_migrations (version, name, applied_at) VALUES (%d, '%s', %lld)",
	    m->version, m->name, (long long)clock_wall_ms());
	if (err == 0)
		err = sqlite_db_script(db, row.data);
	buf_fini(&row);
	if (err == 0)
		log_info("store migrated version=%d name=%s", m->version, m->name);
	return err;
}

/* All steps in one transaction: a database is never seen half way. */
static int
apply_pending(struct sqlite_db *db)
{
	const struct migration *m;
	int version, err;

	if ((err = sqlite_db_begin(db)) != 0)
		return err;
	if ((err = present_version(db, &version)) == 0)
		while (err == 0 && (m = migration_after("sqlite", version)) != NULL) {
			err = apply(db, m);
			version = m->version;
		}
	if (err == 0)
		return sqlite_db_commit(db);
	sqlite_db_rollback(db);
	return err;
}

int
sqlite_migrate(const char *path)
{
	struct sqlite_failure failure = {""};
	struct sqlite_db_conf conf = {.path = path,
	    .is_writer = true,
	    .may_create = true,
	    .busy_wait_ms = LOCK_WAIT_MS,
	    .failure = &failure};
	struct sqlite_db *db = NULL;
	int err = make_folder(path);

	if (err == 0)
		err = sqlite_db_open(&conf, &db);
	if (err == 0)
		err = apply_pending(db);
	if (err != 0)
		log_error("store migration failed %s", failure.text);
	sqlite_db_close(&db);
	return err;
}
