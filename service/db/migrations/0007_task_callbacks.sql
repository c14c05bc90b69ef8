-- Callbacks of tasks that ended: whether the receiver at callback_url has been told, and how often that was tried. A
-- task that is over has no other job than the one that tells, and `turn` is then that job's.

ALTER TABLE tasks
    ADD COLUMN callback_status text CHECK (callback_status IN ('pending', 'delivered', 'failed')),  -- NULL: not over
    ADD COLUMN callback_attempts smallint NOT NULL DEFAULT 0;
-- What is still to be told, and where the next of a user's callbacks stands.
CREATE INDEX idx_tasks_callbacks ON tasks (user_id, turn) WHERE callback_status = 'pending';
