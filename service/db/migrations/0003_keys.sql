-- What a key may do more or less than the settings say: {"chat": "300/minute"}, by policy.
ALTER TABLE api_keys ADD COLUMN rate_limits jsonb NOT NULL DEFAULT '{}';
