/*
 * migrate_main - the door through which the schema is brought up to date: by the
 * master before its first worker, and by `parleyd migrate`.
 */
#include <stdlib.h>

#include "common/handoff.h"
#include "worker/store/store.h"

int
worker_migrate(const struct conf *conf)
{
	return store_migrate(conf) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
