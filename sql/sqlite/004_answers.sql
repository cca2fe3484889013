-- Answers of calls through the OpenAI-compatible routes whose clients wanted them kept, by the
-- key and the id of the request. The same as ../postgres/004_answers.sql.

CREATE TABLE answers (
	key_id TEXT NOT NULL,
	request_id TEXT NOT NULL,
	status INTEGER NOT NULL,
	content_type TEXT NOT NULL,
	body BLOB NOT NULL,
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX answers_request ON answers (key_id, request_id);
CREATE INDEX answers_expiry ON answers (expires_at);
