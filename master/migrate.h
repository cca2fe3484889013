/*
 * migrate - the schema is brought up to date before the first worker starts.
 */
#ifndef MASTER_MIGRATE_H
#define MASTER_MIGRATE_H

#include <stdbool.h>

#include "common/conf.h"

/* In a child, so that the master never holds the database open. False: logged. */
bool migrate_run(const struct conf *);

#endif
