-- Answers of calls through the OpenAI-compatible routes whose clients wanted them kept, by the
-- key and the id of the request. The same as ../sqlite/004_answers.sql.

CREATE TABLE answers (
	key_id text NOT NULL,
	request_id text NOT NULL,
	status bigint NOT NULL,
	content_type text NOT NULL,
	body bytea NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX answers_request ON answers (key_id, request_id);
CREATE INDEX answers_expiry ON answers (expires_at);
