-- Tasks: what was asked, how it goes, what came of it. The engine's job (procrastinate_jobs) only says that a worker
-- shall look at a task; it is made in the transaction that makes the task, and is gone when the task is over.

CREATE TABLE tasks (
    id           uuid        PRIMARY KEY,
    batch_id     uuid,
    user_id      text        NOT NULL,
    key_hash     bytea       NOT NULL,
    request      jsonb       NOT NULL,  -- agent or agents, task, model, parameters
    priority     smallint    NOT NULL,  -- 1 high, 0 normal, -1 low
    turn         integer     NOT NULL,  -- see service/tasks/turns.py; the job's priority is minus this
    not_before   timestamptz,
    deadline     timestamptz,
    callback_url text,
    request_id   text        NOT NULL,
    traceparent  text        NOT NULL,
    status       text        NOT NULL DEFAULT 'queued'
                 CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt      smallint    NOT NULL DEFAULT 0,
    job_id       bigint,                -- the engine's, while a worker has it
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    result       jsonb,
    error        jsonb                  -- a problem document (RFC 9457)
);
CREATE INDEX idx_tasks_user ON tasks (user_id, created_at DESC, id DESC);
CREATE INDEX idx_tasks_batch ON tasks (batch_id) WHERE batch_id IS NOT NULL;
-- What a user has in the queue, and where the next of his tasks stands.
CREATE INDEX idx_tasks_open ON tasks (user_id, priority, turn) WHERE status IN ('queued', 'running');
CREATE INDEX idx_tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

-- Answers to requests with an Idempotency-Key, of one user each, for a day.
CREATE TABLE task_submissions (
    user_id     text        NOT NULL,
    key         text        NOT NULL,
    body_digest bytea       NOT NULL,  -- SHA-256
    answer      jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idx_task_submissions_created ON task_submissions (created_at);
