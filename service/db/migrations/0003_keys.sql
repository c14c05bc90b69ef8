-- What a key may do more or less than the settings say: {"chat": "300/minute"}, by policy.
ALTER TABLE api_keys ADD COLUMN rate_limits jsonb NOT NULL DEFAULT '{}';

-- The prefix of the key that a rotation made in this one's place. A key is rotated once.
ALTER TABLE api_keys ADD COLUMN replaced_by text REFERENCES api_keys (prefix);

-- Lists are read page by page, the newest first.
CREATE INDEX idx_api_keys_created_at ON api_keys (created_at, prefix);
CREATE INDEX idx_users_created_at ON users (created_at, id);
-- The search by the beginning of a name: LIKE uses an index of this class whatever the database's collation is.
CREATE INDEX idx_users_username_prefix ON users (lower(username) text_pattern_ops);
CREATE INDEX idx_users_email_prefix ON users (lower(email) text_pattern_ops);
