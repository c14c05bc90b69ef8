#!/bin/sh
# The role that Grafana reads usage with, once the tables are there. Harmless a second time.
# PGHOST, PGUSER and PGDATABASE say where; the passwords are files in $SECRETS.
set -eu
PGPASSWORD=$(cat "$SECRETS/postgres")
export PGPASSWORD
if [ "$(psql -tAc "SELECT count(*) FROM pg_roles WHERE rolname = 'atp_grafana'")" = 1 ]; then
    echo "the role atp_grafana is there"
    exit 0
fi
psql -q -v ON_ERROR_STOP=1 --single-transaction -v password="$(cat "$SECRETS/grafana_reader")" -f "$ROLE_SQL"
psql -q -v ON_ERROR_STOP=1 -c "GRANT CONNECT ON DATABASE \"$PGDATABASE\" TO atp_grafana"
echo "made the role atp_grafana"
