-- A day's sum in parts, each written by others, so that the calls of one key do not wait for each
-- other's commits. The same as ../sqlite/005_usage_parts.sql.

ALTER TABLE usage_days ADD COLUMN
	part bigint NOT NULL DEFAULT 0;
DROP INDEX usage_days_row;
CREATE UNIQUE INDEX usage_days_row ON usage_days (day, app_id, key_id, model, part);
