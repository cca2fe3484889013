-- The record, as SQLite keeps it: the same tables, columns and indexes as
-- ../postgres/001_init.sql (a test compares the two). Times are milliseconds
-- since 1970, texts that hold JSON are TEXT, truth is 0 or 1. The runner of
-- migrations holds the lock and the transaction.

CREATE TABLE schema_migrations (
	version INTEGER NOT NULL PRIMARY KEY,
	name TEXT NOT NULL,
	applied_at INTEGER NOT NULL
) STRICT;

-- Numbers that tell others that something has changed ("keys").
CREATE TABLE generations (
	name TEXT NOT NULL PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT;

CREATE TABLE apps (
	id TEXT NOT NULL PRIMARY KEY,
	org_id TEXT NOT NULL,
	name TEXT NOT NULL,
	settings TEXT,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL
) STRICT;

-- Apps of the configuration are not in the store: app_id refers to no table.
CREATE TABLE keys (
	id TEXT NOT NULL PRIMARY KEY,
	kind TEXT NOT NULL,
	app_id TEXT,
	device_id TEXT,
	name TEXT,
	hash BLOB NOT NULL,
	limits TEXT,
	created_at INTEGER NOT NULL,
	expires_at INTEGER,
	revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX keys_hash ON keys (hash);
CREATE INDEX keys_app ON keys (app_id, id);

CREATE TABLE chat_sessions (
	id TEXT NOT NULL PRIMARY KEY,
	app_id TEXT NOT NULL,
	device_id TEXT,
	status TEXT NOT NULL,
	model TEXT,
	system TEXT,
	tools TEXT,
	metadata TEXT,
	created_at INTEGER NOT NULL,
	last_activity_at INTEGER NOT NULL,
	closed_at INTEGER,
	erased_at INTEGER
) STRICT;
CREATE INDEX chat_sessions_reuse ON chat_sessions (app_id, device_id, last_activity_at) WHERE status = 'active';
CREATE INDEX chat_sessions_idle ON chat_sessions (last_activity_at) WHERE status = 'active';
CREATE INDEX chat_sessions_app ON chat_sessions (app_id, id);
CREATE INDEX chat_sessions_device ON chat_sessions (app_id, device_id, id);

CREATE TABLE turns (
	id TEXT NOT NULL PRIMARY KEY,
	session_id TEXT NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
	app_id TEXT NOT NULL,
	key_id TEXT,
	request_id TEXT,
	input_hash TEXT,
	state TEXT NOT NULL,
	owner TEXT,
	fence INTEGER NOT NULL,
	model TEXT,
	error_code TEXT,
	error_message TEXT,
	finish_reason TEXT,
	text TEXT,
	result TEXT,
	last_seq INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	ended_at INTEGER
) STRICT;
CREATE UNIQUE INDEX turns_request ON turns (session_id, request_id);
CREATE UNIQUE INDEX turns_live ON turns (session_id) WHERE state = 'live';
CREATE INDEX turns_owner ON turns (owner) WHERE state = 'live';

CREATE TABLE messages (
	id TEXT NOT NULL PRIMARY KEY,
	session_id TEXT NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
	turn_id TEXT,
	position INTEGER NOT NULL,
	role TEXT NOT NULL,
	body TEXT NOT NULL,
	is_partial INTEGER NOT NULL,
	created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_position ON messages (session_id, position);
CREATE INDEX messages_turn ON messages (turn_id);

-- One row per call of a model. It outlives sessions and their content.
CREATE TABLE usage (
	id TEXT NOT NULL PRIMARY KEY,
	app_id TEXT NOT NULL,
	org_id TEXT,
	key_id TEXT,
	session_id TEXT,
	turn_id TEXT,
	model TEXT NOT NULL,
	provider TEXT,
	provider_model TEXT,
	input_tokens INTEGER NOT NULL,
	output_tokens INTEGER NOT NULL,
	cached_tokens INTEGER NOT NULL,
	is_estimated INTEGER NOT NULL,
	cost_micros INTEGER,
	created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_app ON usage (app_id, created_at);

INSERT INTO generations (name, value) VALUES ('keys', 1), ('probe', 1);
