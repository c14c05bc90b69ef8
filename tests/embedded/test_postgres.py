import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from service.embedded.postgres import Postgres, start_postgres
from tests.servers import OwnPostgres, run


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def test_the_role_of_the_service_owns_its_database_and_is_no_superuser(postgres_server: Postgres) -> None:
    dsn = postgres_server.dsn.removesuffix("/atp") + "/template1"
    assert one(dsn, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'atp'") == "atp"
    assert one(dsn, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'atp'") is False


def test_what_is_acknowledged_is_on_disk(own_postgres: OwnPostgres) -> None:
    assert one(own_postgres.dsn, "SHOW fsync") == "on"
    assert one(own_postgres.dsn, "SHOW synchronous_commit") == "on"
    assert one(own_postgres.dsn, "SHOW data_checksums") == "on"


def test_a_frozen_server_with_an_open_session_is_killed_at_once(own_postgres: OwnPostgres) -> None:
    with psycopg.connect(own_postgres.dsn):
        own_postgres.freeze()
        begun = time.monotonic()
        run(own_postgres.kill())
    assert time.monotonic() - begun < 4
    run(own_postgres.restart())
    assert one(own_postgres.dsn, "SELECT 1") == 1


def test_a_wrong_password_is_refused(postgres_server: Postgres) -> None:
    dsn = postgres_server.dsn.replace(postgres_server.password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn)


def test_it_listens_on_loopback_tcp_and_nowhere_else(postgres_server: Postgres) -> None:
    assert one(postgres_server.admin_dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert one(postgres_server.admin_dsn, "SHOW unix_socket_directories") == ""


def test_a_lock_file_whose_number_a_stranger_got_does_not_block_the_start(own_postgres: OwnPostgres) -> None:
    lock = own_postgres.server.data / "postmaster.pid"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        left_behind = lock.read_text().splitlines()
        run(own_postgres.kill())
        lock.write_text("\n".join([str(stranger.pid), *left_behind[1:]]))
        run(own_postgres.restart())
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert one(own_postgres.dsn, "SELECT 1") == 1


def test_a_preparation_cut_short_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("half")
    postgres = run(start_postgres(tmp_path, fsync=False))
    assert one(postgres.dsn, "SELECT current_user") == "atp"
    run(postgres.stop())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up rights")
def test_root_becomes_nobody_where_the_kernel_forbids_a_namespace(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owner() -> int:
        return own_postgres.server.data.stat().st_uid

    assert owner() == 0
    for rights, uid in (("nobody", 65534), ("namespace", 0)):
        monkeypatch.setattr("service.embedded.postgres.rights_for_postgres", lambda rights=rights: rights)
        run(own_postgres.stop())
        run(own_postgres.restart())
        assert one(own_postgres.dsn, "SELECT 1") == 1
        assert owner() == uid


def test_the_suites_own_server_alone_does_without_fsync(postgres_server: Postgres) -> None:
    assert one(postgres_server.admin_dsn, "SHOW fsync") == "off"
