-- Usage by month, and its rollups. api_usage becomes partitioned by the month (UTC) of "timestamp", so that old months
-- are dropped whole; the rows there are keep their place. A replayed row carries the same id and the same timestamp.

ALTER TABLE api_usage RENAME TO api_usage_before;
ALTER INDEX api_usage_pkey RENAME TO api_usage_before_pkey;
DROP INDEX idx_api_usage_key_hash, idx_api_usage_timestamp;

CREATE TABLE api_usage (
    id         uuid             NOT NULL,
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
    duration_s double precision NOT NULL,
    cost_usd   numeric          NOT NULL DEFAULT 0,
    PRIMARY KEY (id, "timestamp")
) PARTITION BY RANGE ("timestamp");
CREATE INDEX idx_api_usage_key_hash ON api_usage (key_hash);
CREATE INDEX idx_api_usage_timestamp ON api_usage ("timestamp");
-- Takes what no month is there for, such as a row that was replayed long after its day.
CREATE TABLE api_usage_default PARTITION OF api_usage DEFAULT;

-- Make the partition of the month that `month` is the first day of; false when it is there. Rows of that month which
-- the default partition has taken move into it. ATTACH lets inserts into the other partitions go on.
CREATE FUNCTION make_usage_partition(month date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := to_char(month, '"api_usage_"YYYY"_"MM');
    first timestamptz := month::timestamp AT TIME ZONE 'UTC';
    beyond timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE api_usage INCLUDING DEFAULTS)', partition);
    EXECUTE format('WITH strays AS (DELETE FROM api_usage_default WHERE "timestamp" >= %L AND "timestamp" < %L'
                   ' RETURNING *) INSERT INTO %I SELECT * FROM strays', first, beyond, partition);
    EXECUTE format('ALTER TABLE api_usage ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, first, beyond);
    RETURN true;
END $$;

-- Drop the partitions of the months before `month`, and what the default partition has of them; the dropped ones' names.
CREATE FUNCTION drop_usage_partitions(month date) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    partition text;
BEGIN
    FOR partition IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'api_usage'::regclass AND relname ~ '^api_usage_\d{4}_\d{2}$'
          AND relname < to_char(month, '"api_usage_"YYYY"_"MM') COLLATE "C"
        ORDER BY relname
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        RETURN NEXT partition;
    END LOOP;
    DELETE FROM api_usage_default WHERE "timestamp" < month::timestamp AT TIME ZONE 'UTC';
END $$;

-- This month and the next two, and each that has rows already.
SELECT make_usage_partition(month) FROM (
    SELECT generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'),
                           date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', '1 month')::date
    UNION
    SELECT date_trunc('month', "timestamp" AT TIME ZONE 'UTC')::date FROM api_usage_before
) AS months (month);

-- The sums of the rows of an hour, or a day (UTC), that agree in everything else; reports read nothing but these.
-- `shard` is of the node that wrote, so that nodes do not wait for one another's row locks. errors: status >= 400 but
-- 499, which is cancelled. durations: how many requests fell into each bucket of duration_bucket(), not cumulative.
CREATE TABLE usage_sums (
    span       text        NOT NULL,
    start      timestamptz NOT NULL,
    key_hash   bytea       NOT NULL,
    user_id    text        NOT NULL,
    agent      text        NOT NULL,
    model      text        NOT NULL,
    shard      smallint    NOT NULL,
    requests   bigint      NOT NULL,
    errors     bigint      NOT NULL,
    cancelled  bigint      NOT NULL,
    cached     bigint      NOT NULL,
    tokens_in  bigint      NOT NULL,
    tokens_out bigint      NOT NULL,
    cost_usd   numeric     NOT NULL,
    durations  integer[]    NOT NULL,
    PRIMARY KEY (user_id, start, key_hash, agent, model, shard, span)
) PARTITION BY LIST (span);
CREATE INDEX idx_usage_sums_start ON usage_sums (start);
-- Room on each page for a row's next version, so that adding to it touches no index.
CREATE TABLE usage_hourly PARTITION OF usage_sums FOR VALUES IN ('hour') WITH (fillfactor = 70);
CREATE TABLE usage_daily PARTITION OF usage_sums FOR VALUES IN ('day') WITH (fillfactor = 70);

-- 0 to 26, for the 26 bounds in seconds: five a decade from 1 ms to 63 s, then 120 s. Bucket i is [bound i-1, bound i).
CREATE FUNCTION duration_bucket(duration_s double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN width_bucket(duration_s, ARRAY[
        0.001, 0.0016, 0.0025, 0.004, 0.0063, 0.01, 0.016, 0.025, 0.04, 0.063, 0.1, 0.16, 0.25, 0.4, 0.63,
        1, 1.6, 2.5, 4, 6.3, 10, 16, 25, 40, 63, 120]::double precision[]);

-- Of bucket numbers 0 to 26: how many of each, 27 counts.
CREATE FUNCTION bucket_counts(buckets integer[]) RETURNS integer[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    counts integer[] := array_fill(0, ARRAY[27]);
    bucket integer;
BEGIN
    FOREACH bucket IN ARRAY buckets LOOP
        counts[bucket + 1] := counts[bucket + 1] + 1;
    END LOOP;
    RETURN counts;
END $$;

CREATE FUNCTION add_counts(a integer[], b integer[]) RETURNS integer[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    FOR i IN 1..27 LOOP
        IF b[i] > 0 THEN
            a[i] := a[i] + b[i];
        END IF;
    END LOOP;
    RETURN a;
END $$;

-- Insert rows, given as a JSON array of objects with api_usage's columns (key_hash in hexadecimal), and add those that
-- were not there to the sums. Returns how many those were: a row that comes again changes nothing.
--
-- A function, because its plan is kept with the connection: planned anew, the statement costs more than it takes.
-- Locks are taken in one order everywhere (rows as given, then sums by key), so that two nodes never deadlock.
CREATE FUNCTION store_usage(given json, node_shard smallint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    stored bigint;
BEGIN
    WITH new AS (
        INSERT INTO api_usage (id, request_id, "timestamp", key_hash, user_id, agent, model, tokens_in, tokens_out,
                               cached, status, duration_s, cost_usd)
        SELECT id, request_id, "timestamp", decode(key_hash, 'hex'), user_id, agent, model, tokens_in, tokens_out,
               cached, status, duration_s, coalesce(cost_usd, 0)
        FROM json_to_recordset(given) AS row (
            id uuid, request_id text, "timestamp" timestamptz, key_hash text, user_id text, agent text, model text,
            tokens_in integer, tokens_out integer, cached boolean, status smallint, duration_s double precision,
            cost_usd numeric)
        ON CONFLICT (id, "timestamp") DO NOTHING
        RETURNING *
    ), summed AS (
        INSERT INTO usage_sums AS old
        SELECT span, date_trunc(span, "timestamp", 'UTC'), key_hash, user_id, agent, model, node_shard,
               count(*), count(*) FILTER (WHERE status >= 400 AND status <> 499), count(*) FILTER (WHERE status = 499),
               count(*) FILTER (WHERE cached), sum(tokens_in), sum(tokens_out), sum(cost_usd),
               bucket_counts(array_agg(duration_bucket(duration_s)))
        FROM new CROSS JOIN (VALUES ('hour'), ('day')) AS spans (span)
        GROUP BY 1, 2, 3, 4, 5, 6
        ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT (user_id, start, key_hash, agent, model, shard, span) DO UPDATE SET
            requests = old.requests + excluded.requests, errors = old.errors + excluded.errors,
            cancelled = old.cancelled + excluded.cancelled, cached = old.cached + excluded.cached,
            tokens_in = old.tokens_in + excluded.tokens_in, tokens_out = old.tokens_out + excluded.tokens_out,
            cost_usd = old.cost_usd + excluded.cost_usd, durations = add_counts(old.durations, excluded.durations)
    )
    SELECT count(*) INTO stored FROM new;
    RETURN stored;
END $$;

INSERT INTO api_usage SELECT *, 0 FROM api_usage_before;
INSERT INTO usage_sums
SELECT span, date_trunc(span, "timestamp", 'UTC'), key_hash, user_id, agent, model, 0,
       count(*), count(*) FILTER (WHERE status >= 400 AND status <> 499), count(*) FILTER (WHERE status = 499),
       count(*) FILTER (WHERE cached), sum(tokens_in), sum(tokens_out), sum(cost_usd),
       bucket_counts(array_agg(duration_bucket(duration_s)))
FROM api_usage CROSS JOIN (VALUES ('hour'), ('day')) AS spans (span)
GROUP BY 1, 2, 3, 4, 5, 6;
DROP TABLE api_usage_before;
