-- Which results each worker has settled. The same as ../sqlite/009_webhook_settlers.sql.

-- The number of a worker's last write of results: one that is repeated, because it was not known
-- whether it was committed, counts once in its endpoints' figures.
CREATE TABLE webhook_settlers (
	id text NOT NULL PRIMARY KEY,
	number bigint NOT NULL,
	used_at timestamptz NOT NULL
);
