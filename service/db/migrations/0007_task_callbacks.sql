-- Callbacks of tasks: whether the receiver at callback_url has been told of the task's last end, and how often that was
-- tried. A task may be begun again, and end anew.

ALTER TABLE tasks
    ADD COLUMN callback_status   text CHECK (callback_status IN ('pending', 'delivered', 'failed')),
    ADD COLUMN callback_attempts smallint NOT NULL DEFAULT 0,
    ADD COLUMN callback_turn     integer;  -- see service/tasks/turns.py; the priority of the callback's job is minus this
-- What is still to be told, and where the next of a user's callbacks stands.
CREATE INDEX idx_tasks_callbacks ON tasks (user_id, callback_turn) WHERE callback_status = 'pending';
