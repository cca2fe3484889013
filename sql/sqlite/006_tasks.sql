-- Work that outlives a request. The same as ../postgres/006_tasks.sql.

-- A task may be claimed when due_at is there and has come. It is not there while somebody has the
-- task (owner, until lease_ends_at unless renewed), while an older one of its partition key has not
-- ended, and when it has ended itself. Whoever takes a task from somebody raises fence, so that a
-- late write finds nothing to change. position orders the unfinished ones of one partition key;
-- stripe keeps those who claim out of each other's way. terms is what holds for its calls: budget
-- and limits of the key that asked for it. job_id is the provider's, where it must be polled.
CREATE TABLE tasks (
	id TEXT NOT NULL PRIMARY KEY,
	app_id TEXT NOT NULL,
	key_id TEXT,
	type TEXT NOT NULL,
	partition_key TEXT,
	stripe INTEGER NOT NULL,
	position INTEGER NOT NULL,
	idempotency_key TEXT,
	state TEXT NOT NULL,
	model TEXT,
	input TEXT,
	terms TEXT,
	webhook TEXT,
	progress INTEGER NOT NULL,
	message TEXT,
	result TEXT,
	error_code TEXT,
	error_message TEXT,
	is_retryable INTEGER,
	attempts INTEGER NOT NULL,
	losses INTEGER NOT NULL,
	runs INTEGER NOT NULL,
	provider TEXT,
	provider_model TEXT,
	job_id TEXT,
	owner TEXT,
	fence INTEGER NOT NULL,
	timeout_ms INTEGER NOT NULL,
	due_at INTEGER,
	lease_ends_at INTEGER,
	deadline_at INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL,
	started_at INTEGER,
	ended_at INTEGER,
	archived_at INTEGER
) STRICT;
CREATE INDEX tasks_due ON tasks (app_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_owner ON tasks (owner) WHERE owner IS NOT NULL AND ended_at IS NULL;
CREATE INDEX tasks_partition ON tasks (app_id, partition_key, position) WHERE partition_key IS NOT NULL AND ended_at IS NULL;
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE ended_at IS NULL;
CREATE INDEX tasks_app ON tasks (app_id, id);
CREATE INDEX tasks_ended ON tasks (ended_at) WHERE ended_at IS NOT NULL AND archived_at IS NULL;
CREATE INDEX tasks_archived ON tasks (archived_at) WHERE archived_at IS NOT NULL;
CREATE UNIQUE INDEX tasks_request ON tasks (app_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
