-- What administrators did. A row is committed before the deed is done, so that nothing happens without a trace.

CREATE TABLE admin_audit (
    id              uuid        PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT now(),
    user_id         text        NOT NULL,
    key_prefix      text        NOT NULL,
    action          text        NOT NULL,
    target          text        NOT NULL,
    details         jsonb       NOT NULL,
    request_id      text        NOT NULL,
    -- The caller's Idempotency-Key, and the SHA-256 of the body it came with.
    idempotency_key text,
    body_digest     bytea       CHECK (length(body_digest) = 32)
);
CREATE UNIQUE INDEX idx_admin_audit_idempotency_key ON admin_audit (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX idx_admin_audit_at ON admin_audit (at);

-- Users kept out until a moment. No foreign key: a user may be blocked before their first import.
CREATE TABLE user_blocks (
    user_id    text        PRIMARY KEY,
    until      timestamptz NOT NULL,
    reason     text        NOT NULL DEFAULT '',
    blocked_by text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);
-- Every node asks every few seconds for those that have not ended.
CREATE INDEX idx_user_blocks_until ON user_blocks (until);
