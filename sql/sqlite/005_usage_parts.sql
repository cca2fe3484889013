-- A day's sum in parts, each written by others, so that the calls of one key do not wait for each
-- other's commits. Here one process writes and there is one part. The same as
-- ../postgres/005_usage_parts.sql.

ALTER TABLE usage_days ADD COLUMN
	part INTEGER NOT NULL DEFAULT 0;
DROP INDEX usage_days_row;
CREATE UNIQUE INDEX usage_days_row ON usage_days (day, app_id, key_id, model, part);
