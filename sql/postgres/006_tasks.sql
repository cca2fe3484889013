-- Work that outlives a request. The same as ../sqlite/006_tasks.sql.

-- A task may be claimed when due_at is there and has come. It is not there while somebody has the
-- task (owner, until lease_ends_at unless renewed), while an older one of its partition key has not
-- ended, and when it has ended itself. Whoever takes a task from somebody raises fence, so that a
-- late write finds nothing to change. position orders the unfinished ones of one partition key;
-- stripe keeps those who claim out of each other's way. terms is what holds for its calls: budget
-- and limits of the key that asked for it. job_id is the provider's, where it must be polled.
CREATE TABLE tasks (
	id text NOT NULL PRIMARY KEY,
	app_id text NOT NULL,
	key_id text,
	type text NOT NULL,
	partition_key text,
	stripe bigint NOT NULL,
	position bigint NOT NULL,
	idempotency_key text,
	state text NOT NULL,
	model text,
	input json,
	terms json,
	webhook json,
	progress bigint NOT NULL,
	message text,
	result json,
	error_code text,
	error_message text,
	is_retryable boolean,
	attempts bigint NOT NULL,
	losses bigint NOT NULL,
	runs bigint NOT NULL,
	provider text,
	provider_model text,
	job_id text,
	owner text,
	fence bigint NOT NULL,
	timeout_ms bigint NOT NULL,
	due_at timestamptz,
	lease_ends_at timestamptz,
	deadline_at timestamptz NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	started_at timestamptz,
	ended_at timestamptz,
	archived_at timestamptz
);
CREATE INDEX tasks_due ON tasks (app_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_owner ON tasks (owner) WHERE owner IS NOT NULL AND ended_at IS NULL;
CREATE INDEX tasks_partition ON tasks (app_id, partition_key, position) WHERE partition_key IS NOT NULL AND ended_at IS NULL;
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE ended_at IS NULL;
CREATE INDEX tasks_app ON tasks (app_id, id);
CREATE INDEX tasks_ended ON tasks (ended_at) WHERE ended_at IS NOT NULL AND archived_at IS NULL;
CREATE INDEX tasks_archived ON tasks (archived_at) WHERE archived_at IS NOT NULL;
CREATE UNIQUE INDEX tasks_request ON tasks (app_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
