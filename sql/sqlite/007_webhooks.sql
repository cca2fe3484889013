-- The outbox of webhooks, and where they go. The same as ../postgres/007_webhooks.sql.

-- Those of the configuration have a row for what the hosts know of them; the others are of tasks,
-- their ids made of what they are. probe_at: the breaker is open until then, who comes next tries.
CREATE TABLE webhook_endpoints (
	id TEXT NOT NULL PRIMARY KEY,
	app_id TEXT,
	url TEXT NOT NULL,
	secrets TEXT,
	headers TEXT,
	batch INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	probe_at INTEGER,
	disabled_at INTEGER,
	delivered INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	dead INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	used_at INTEGER NOT NULL,
	last_status INTEGER,
	last_error TEXT,
	last_at INTEGER
) STRICT;
CREATE INDEX webhook_endpoints_used ON webhook_endpoints (used_at);

-- state: pending, delivered, dead. Who claims one moves due_at to the end of his lease. Of equal
-- endpoint_id and order_key the next waits until the one before has ended.
CREATE TABLE webhooks (
	id TEXT NOT NULL PRIMARY KEY,
	endpoint_id TEXT NOT NULL,
	app_id TEXT,
	order_key TEXT NOT NULL,
	position INTEGER NOT NULL,
	event TEXT NOT NULL,
	body TEXT NOT NULL,
	state TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	claim INTEGER NOT NULL,
	due_at INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	ended_at INTEGER,
	status INTEGER,
	error TEXT,
	response TEXT,
	first_ms INTEGER,
	total_ms INTEGER
) STRICT;
CREATE INDEX webhooks_order ON webhooks (endpoint_id, order_key, position);
CREATE INDEX webhooks_due ON webhooks (endpoint_id, due_at) WHERE state = 'pending';
CREATE INDEX webhooks_state ON webhooks (state, id) WHERE state <> 'pending';
CREATE INDEX webhooks_app ON webhooks (app_id, id);
