-- Tasks that wait are looked at each second by their deadline: what has not begun by then has failed.

CREATE INDEX idx_tasks_deadlines ON tasks (deadline) WHERE status = 'queued' AND deadline IS NOT NULL;
