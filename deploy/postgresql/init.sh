#!/bin/sh
# Run once by the image of PostgreSQL, on an empty data folder: ATP's own role, which owns its database and no more.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$(cat "${SECRETS:-/run/secrets}/atp")" --username postgres --dbname postgres <<'SQL'
CREATE ROLE atp LOGIN PASSWORD :'password';
CREATE DATABASE atp OWNER atp;
REVOKE CONNECT ON DATABASE atp FROM PUBLIC;
SQL
