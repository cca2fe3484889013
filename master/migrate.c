/*
 * migrate - worker_migrate() in a process of its own.
 */
#include "master/migrate.h"

#include "common/handoff.h"
#include "common/log.h"
#include "master/spawn.h"

bool
migrate_run(const struct conf *conf)
{
	int status = spawn_job("migration", worker_migrate, conf);

	if (status != 0)
		log_error("migration failed status=%d", status);
	return status == 0;
}
