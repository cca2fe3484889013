-- Which hosts share this record and live, and what is left to be erased. The same as
-- ../sqlite/003_hosts.sql.

-- Leases begin and end by the clock of the database: those of hosts may differ.
CREATE OR REPLACE FUNCTION now_ms() RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL SAFE
	AS $$ SELECT to_ms(clock_timestamp()) $$;

-- One row per life of a host; id is what its turns' owners begin with. It renews expires_at; when
-- that is over its turns are lost. The oldest that lives does what is done once for all.
CREATE TABLE hosts (
	id text NOT NULL PRIMARY KEY,
	started_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL
);

-- Content goes in batches: between erased_at and emptied_at some of it may still be there.
ALTER TABLE chat_sessions ADD COLUMN
	emptied_at timestamptz;
CREATE INDEX chat_sessions_kept ON chat_sessions (closed_at) WHERE status <> 'active' AND erased_at IS NULL;
CREATE INDEX chat_sessions_erased ON chat_sessions (erased_at) WHERE erased_at IS NOT NULL AND emptied_at IS NULL;
