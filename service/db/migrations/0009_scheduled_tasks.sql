-- A task that may not start yet has no job: the engine looks at every waiting job that stands before the one it takes,
-- and would step over a hundred thousand of them each time. It gets its job when its moment has come.

ALTER TABLE tasks ADD COLUMN scheduled boolean NOT NULL DEFAULT false;
CREATE INDEX idx_tasks_scheduled ON tasks (not_before) WHERE scheduled AND status = 'queued';
