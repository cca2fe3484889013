-- What a model call was like beside its tokens, sums of usage by day, and money that is
-- reserved for calls in progress. The same as ../sqlite/002_budgets.sql.

ALTER TABLE usage ADD COLUMN
	outcome text;
ALTER TABLE usage ADD COLUMN
	attempts bigint;
ALTER TABLE usage ADD COLUMN
	first_ms bigint;
ALTER TABLE usage ADD COLUMN
	total_ms bigint;

-- What the rows of usage add up to; written with them. day counts from 1970, in UTC;
-- without a key key_id is ''.
CREATE TABLE usage_days (
	app_id text NOT NULL,
	key_id text NOT NULL,
	model text NOT NULL,
	day bigint NOT NULL,
	calls bigint NOT NULL,
	failed_calls bigint NOT NULL,
	input_tokens bigint NOT NULL,
	output_tokens bigint NOT NULL,
	cached_tokens bigint NOT NULL,
	cost_micros bigint NOT NULL
);
CREATE UNIQUE INDEX usage_days_row ON usage_days (day, app_id, key_id, model);
CREATE INDEX usage_days_app ON usage_days (app_id, day);
CREATE INDEX usage_days_key ON usage_days (key_id, day);

INSERT INTO usage_days (app_id, key_id, model, day, calls, failed_calls, input_tokens,
output_tokens, cached_tokens, cost_micros)
SELECT app_id, coalesce(key_id, ''), model, to_ms(created_at) / 86400000, count(*), 0, sum(input_tokens),
sum(output_tokens), sum(cached_tokens), sum(coalesce(cost_micros, 0))
FROM usage GROUP BY 1, 2, 3, 4;

-- One row per call under a budget until its usage is written; id is that usage's.
CREATE TABLE budget_holds (
	id text NOT NULL PRIMARY KEY,
	app_id text NOT NULL,
	org_id text,
	key_id text,
	session_id text,
	turn_id text,
	model text NOT NULL,
	day bigint NOT NULL,
	input_tokens bigint NOT NULL,
	output_tokens bigint NOT NULL,
	cost_micros bigint NOT NULL,
	created_at timestamptz NOT NULL,
	lapses_at timestamptz NOT NULL
);
CREATE INDEX budget_holds_app ON budget_holds (app_id, day, cost_micros);
CREATE INDEX budget_holds_key ON budget_holds (key_id, day, cost_micros);
CREATE INDEX budget_holds_lapse ON budget_holds (lapses_at);
