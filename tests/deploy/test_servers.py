"""The rights that compose.yaml gives on PostgreSQL and Valkey, on real servers."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from service.db.migrate import migrate
from service.embedded.wheels import postgres_programs
from tests.deploy.test_compose import ROOT, make_secrets
from tests.live.clients import socket
from tests.nodes import node_settings, running
from tests.servers import OwnPostgres, OwnValkey, run
from tests.upstream import Upstream

SCRIPTS = ROOT / "deploy" / "postgresql"


def test_the_scripts_make_an_owner_and_a_reader(own_postgres: OwnPostgres, tmp_path: Path) -> None:
    admin = urlsplit(own_postgres.server.admin_dsn)
    with psycopg.connect(own_postgres.server.admin_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE atp WITH (FORCE)")
        connection.execute("DROP OWNED BY atp")
        connection.execute("DROP ROLE atp")
    make_secrets(tmp_path)
    secrets = tmp_path / "postgres"
    (secrets / "postgres").unlink()
    (secrets / "postgres").write_text(admin.password or "")
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(admin.port), "PGUSER": "postgres", "SECRETS": str(secrets)}
    where["ROLE_SQL"] = str(ROOT / "observability" / "grafana" / "postgresql-role.sql")
    where["PATH"] = f"{postgres_programs()}:{os.environ['PATH']}"

    def script(name: str, **more: str) -> str:
        given = os.environ | where | more
        done = subprocess.run([SCRIPTS / name], env=given, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dsn(user: str, file: str) -> str:
        return f"postgresql://{user}:{(secrets / file).read_text()}@127.0.0.1:{admin.port}/atp"

    script("init.sh", PGPASSWORD=admin.password or "")
    assert run(migrate(dsn("atp", "atp"))) != []
    assert script("grafana-role.sh", PGDATABASE="atp") == "made the role atp_grafana\n"
    assert script("grafana-role.sh", PGDATABASE="atp") == "the role atp_grafana is there\n"
    with psycopg.connect(dsn("atp_grafana", "grafana_reader"), autocommit=True) as reader:
        assert reader.execute("SELECT count(*) FROM usage_hourly").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("SELECT * FROM users")


async def test_a_node_lacks_nothing_with_the_rights_of_its_valkey_user(
    own_valkey: OwnValkey, database_url: str, model_server: Upstream, tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    rights = (tmp_path / "valkey" / "users.acl").read_text().splitlines()[1].split()
    assert rights[:2] == ["user", "atp"]
    own = urlsplit((tmp_path / "atp" / "redis_url").read_text())
    url = f"redis://atp:{own.password}@127.0.0.1:{urlsplit(own_valkey.url).port}/0"
    with redis.Redis.from_url(own_valkey.url) as admin, redis.Redis.from_url(url) as atp:
        admin.execute_command("ACL", "SETUSER", *rights[1:])
        async with running(node_settings(database_url, url, model_server)) as node:
            chat = {"agent": "reasoning", "task": "capital?", "model": "good"}
            assert (await node.http.post("/api/v1/chat", json=chat)).status_code == 200
            async with socket(node):
                assert (await node.http.get("/api/admin/stats/online-users")).json()["sockets"] == 1
            assert await node.metric('atp_dependency_up{dependency="redis"}') == 1
        assert admin.execute_command("ACL", "LOG") == []
        for command in (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["ACL", "LIST"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                atp.execute_command(*command)
