-- The guide's three tables. Times are UTC; ids that leave the system are text, so that imported ones keep theirs.

CREATE TABLE users (
    id         text        PRIMARY KEY,
    email      text        NOT NULL,
    username   text        NOT NULL,
    role       text        NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    active     boolean     NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX idx_users_email ON users (lower(email));
CREATE UNIQUE INDEX idx_users_username ON users (username);
CREATE INDEX idx_users_role ON users (role);

-- The secret is never stored: key_hash is the SHA-256 of the whole token, prefix its public name.
CREATE TABLE api_keys (
    key_hash   bytea       PRIMARY KEY CHECK (length(key_hash) = 32),
    prefix     text        NOT NULL,
    user_id    text        NOT NULL REFERENCES users (id),
    name       text        NOT NULL,
    scopes     text[]      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
-- The guide's idx_api_keys_key_hash is the primary key's own index.
CREATE UNIQUE INDEX idx_api_keys_prefix ON api_keys (prefix);
CREATE INDEX idx_api_keys_user_id ON api_keys (user_id);

-- One row per metered request. id is ours and unique, so that replaying a row cannot count it twice; request_id is
-- what the client was told (it may have chosen it, so it is not trusted to be unique).
CREATE TABLE api_usage (
    id         uuid             PRIMARY KEY,
    request_id text             NOT NULL,
    "timestamp" timestamptz     NOT NULL,
    key_hash   bytea            NOT NULL,
    user_id    text             NOT NULL,
    agent      text             NOT NULL,
    model      text             NOT NULL,
    tokens_in  integer          NOT NULL,
    tokens_out integer          NOT NULL,
    cached     boolean          NOT NULL,
    status     smallint         NOT NULL,
    duration_s double precision NOT NULL
);
CREATE INDEX idx_api_usage_key_hash ON api_usage (key_hash);
CREATE INDEX idx_api_usage_timestamp ON api_usage ("timestamp");
