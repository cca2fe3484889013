/*
 * backend - what runs the operations of the record: a table of functions, and one table for
 * each database.
 *
 * Private to worker/store.
 */
#ifndef WORKER_STORE_BACKEND_H
#define WORKER_STORE_BACKEND_H

#include "worker/store/job.h"

struct backend_env {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm; /* NULL, with backplane: this process is alone */
	struct backplane *backplane;
	struct store_health *health;
};

struct backend {
	bool (*is_ours)(const char *url);
	bool is_shared; /* by hosts */

	/* NULL: logged. What it returns is given to the others. */
	void *(*open)(const struct backend_env *);
	/* Nobody is called back any more. */
	void (*close)(void *);
	/* Takes the job. Never calls back from inside. */
	void (*add)(void *, struct job *);
	bool (*is_elected)(const void *);

	/* For the command line: synchronous, nothing else is there. */
	void *(*open_direct)(const struct conf *);
	void (*close_direct)(void *);
	/* Takes the wire of the call; answer->err says how it went (logged). */
	void (*run_direct)(void *, struct op_call *, struct op_answer *);

	int (*migrate)(const struct conf *); /* 0 or E_* (logged) */
};

extern const struct backend sqlite_backend, pg_backend;

#endif
