-- The record, as PostgreSQL keeps it: the same tables, columns and indexes as
-- ../sqlite/001_init.sql (a test compares the two). The runner of migrations
-- holds the lock and the transaction.
--
-- Ids are text, not uuid: their prefix says of what they are ("sess_.."), they sort
-- by time as they stand, and they are the same in logs, in URLs and here. Times are
-- timestamptz. What a client or a model gets back as it was given (tools, messages,
-- results) is json, which keeps the order of members: models follow that order in
-- the schema of a tool. What only we look into is jsonb.

-- Operations say times as milliseconds since 1970, in both databases
-- (in SQLite these two are functions of the program).
CREATE OR REPLACE FUNCTION from_ms(bigint) RETURNS timestamptz
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	AS $$ SELECT to_timestamp($1 / 1000.0) $$;
CREATE OR REPLACE FUNCTION to_ms(timestamptz) RETURNS bigint
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	AS $$ SELECT round(extract(epoch FROM $1) * 1000)::bigint $$;

CREATE TABLE schema_migrations (
	version integer NOT NULL PRIMARY KEY,
	name text NOT NULL,
	applied_at timestamptz NOT NULL
);

-- Numbers that tell others that something has changed ("keys").
CREATE TABLE generations (
	name text NOT NULL PRIMARY KEY,
	value bigint NOT NULL
);

CREATE TABLE apps (
	id text NOT NULL PRIMARY KEY,
	org_id text NOT NULL,
	name text NOT NULL,
	settings jsonb,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL
);

-- Apps of the configuration are not in the store: app_id refers to no table.
CREATE TABLE keys (
	id text NOT NULL PRIMARY KEY,
	kind text NOT NULL,
	app_id text,
	device_id text,
	name text,
	hash bytea NOT NULL,
	limits jsonb,
	created_at timestamptz NOT NULL,
	expires_at timestamptz,
	revoked_at timestamptz
);
CREATE UNIQUE INDEX keys_hash ON keys (hash);
CREATE INDEX keys_app ON keys (app_id, id);

CREATE TABLE chat_sessions (
	id text NOT NULL PRIMARY KEY,
	app_id text NOT NULL,
	device_id text,
	status text NOT NULL,
	model text,
	system text,
	tools json,
	metadata jsonb,
	created_at timestamptz NOT NULL,
	last_activity_at timestamptz NOT NULL,
	closed_at timestamptz,
	erased_at timestamptz
);
CREATE INDEX chat_sessions_reuse ON chat_sessions (app_id, device_id, last_activity_at) WHERE status = 'active';
CREATE INDEX chat_sessions_idle ON chat_sessions (last_activity_at) WHERE status = 'active';
CREATE INDEX chat_sessions_app ON chat_sessions (app_id, id);
CREATE INDEX chat_sessions_device ON chat_sessions (app_id, device_id, id);

CREATE TABLE turns (
	id text NOT NULL PRIMARY KEY,
	session_id text NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
	app_id text NOT NULL,
	key_id text,
	request_id text,
	input_hash text,
	state text NOT NULL,
	owner text,
	fence bigint NOT NULL,
	model text,
	error_code text,
	error_message text,
	finish_reason text,
	text text,
	result json,
	last_seq bigint NOT NULL,
	created_at timestamptz NOT NULL,
	ended_at timestamptz
);
CREATE UNIQUE INDEX turns_request ON turns (session_id, request_id);
CREATE UNIQUE INDEX turns_live ON turns (session_id) WHERE state = 'live';
CREATE INDEX turns_owner ON turns (owner) WHERE state = 'live';

CREATE TABLE messages (
	id text NOT NULL PRIMARY KEY,
	session_id text NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
	turn_id text,
	position bigint NOT NULL,
	role text NOT NULL,
	body json NOT NULL,
	is_partial boolean NOT NULL,
	created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX messages_position ON messages (session_id, position);
CREATE INDEX messages_turn ON messages (turn_id);

-- One row per call of a model. It outlives sessions and their content.
CREATE TABLE usage (
	id text NOT NULL PRIMARY KEY,
	app_id text NOT NULL,
	org_id text,
	key_id text,
	session_id text,
	turn_id text,
	model text NOT NULL,
	provider text,
	provider_model text,
	input_tokens bigint NOT NULL,
	output_tokens bigint NOT NULL,
	cached_tokens bigint NOT NULL,
	is_estimated boolean NOT NULL,
	cost_micros bigint,
	created_at timestamptz NOT NULL
);
CREATE INDEX usage_app ON usage (app_id, created_at);

INSERT INTO generations (name, value) VALUES ('keys', 1), ('probe', 1);
