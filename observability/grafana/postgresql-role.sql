-- The role that Grafana reads usage with. As an owner of the tables, once, after the migrations:
--   psql -v password=… -f observability/grafana/postgresql-role.sql
-- It sees sums and public prefixes: no requests, no hashes' secrets, no users' names.
CREATE ROLE atp_grafana LOGIN PASSWORD :'password' CONNECTION LIMIT 8;
ALTER ROLE atp_grafana SET default_transaction_read_only = on;
ALTER ROLE atp_grafana SET statement_timeout = '10s';
ALTER ROLE atp_grafana SET lock_timeout = '1s';
GRANT SELECT ON usage_hourly TO atp_grafana;
GRANT SELECT (key_hash, prefix, name) ON api_keys TO atp_grafana;
