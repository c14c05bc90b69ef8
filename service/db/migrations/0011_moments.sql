-- When something last happened is asked every ten seconds.
CREATE INDEX idx_admin_audit_action ON admin_audit (action, at);

-- Each good backup leaves a row, once it lies where it is kept: whoever makes it inserts it, and the fleet's
-- `atp_fleet_last_backup_timestamp_seconds` tells of it.
CREATE TABLE backups (
    at    timestamptz PRIMARY KEY DEFAULT now(),
    bytes bigint      NOT NULL CHECK (bytes > 0),
    place text        NOT NULL
);
