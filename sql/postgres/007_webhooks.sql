-- The outbox of webhooks, and where they go. The same as ../sqlite/007_webhooks.sql.

-- Those of the configuration have a row for what the hosts know of them; the others are of tasks,
-- their ids made of what they are. probe_at: the breaker is open until then, who comes next tries.
CREATE TABLE webhook_endpoints (
	id text NOT NULL PRIMARY KEY,
	app_id text,
	url text NOT NULL,
	secrets text,
	headers text,
	batch bigint NOT NULL,
	failures bigint NOT NULL,
	probe_at timestamptz,
	disabled_at timestamptz,
	delivered bigint NOT NULL,
	failed bigint NOT NULL,
	dead bigint NOT NULL,
	created_at timestamptz NOT NULL,
	used_at timestamptz NOT NULL,
	last_status bigint,
	last_error text,
	last_at timestamptz
);
CREATE INDEX webhook_endpoints_used ON webhook_endpoints (used_at);

-- state: pending, delivered, dead. Who claims one moves due_at to the end of his lease. Of equal
-- endpoint_id and order_key the next waits until the one before has ended.
CREATE TABLE webhooks (
	id text NOT NULL PRIMARY KEY,
	endpoint_id text NOT NULL,
	app_id text,
	order_key text NOT NULL,
	position bigint NOT NULL,
	event text NOT NULL,
	body text NOT NULL,
	state text NOT NULL,
	attempts bigint NOT NULL,
	claim bigint NOT NULL,
	due_at timestamptz NOT NULL,
	created_at timestamptz NOT NULL,
	ended_at timestamptz,
	status bigint,
	error text,
	response text,
	first_ms bigint,
	total_ms bigint
);
CREATE INDEX webhooks_order ON webhooks (endpoint_id, order_key, position);
CREATE INDEX webhooks_due ON webhooks (endpoint_id, due_at) WHERE state = 'pending';
CREATE INDEX webhooks_state ON webhooks (state, id) WHERE state <> 'pending';
CREATE INDEX webhooks_app ON webhooks (app_id, id);
