"""`atp migrate | users | keys | backup-done | doctor`, as a person runs them."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from service.admin.store import select_moments
from service.db.pool import one_connection
from service.embedded.llm import Llm
from service.embedded.postgres import Postgres
from service.embedded.wheels import postgres_programs
from service.wiring.docs import api_document
from tests.commands.running import atp

MIGRATIONS = (
    "task_engine",
    "users_keys_usage",
    "admin",
    "keys",
    "blocks",
    "usage",
    "tasks",
    "task_callbacks",
    "task_oversight",
    "scheduled_tasks",
    "task_deadlines",
    "moments",
)


def test_help_names_every_command_and_where_settings_are() -> None:
    shown = atp("--help").stdout
    runs = ("serve", "worker", "alert-bridge", "dev")
    for command in (*runs, "migrate", "users", "keys", "backup-done", "doctor", "openapi"):
        assert re.search(rf"^ +{command}\s", shown, re.MULTILINE)
    assert "docs/settings.md" in shown


def test_from_an_empty_database_to_a_revoked_key(empty_database_url: str, redis_url: str) -> None:
    def run(*arguments: str) -> str:
        done = atp(*arguments, database_url=empty_database_url, redis_url=redis_url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("migrate") == "".join(f"applied {name}\n" for name in MIGRATIONS)
    assert run("migrate") == "the database is up to date\n"
    user = run("users", "create", "ana", "ana@example.org", "--role", "admin").strip()
    assert re.fullmatch(r"usr_[0-9A-Za-z]{12}", user)
    assert re.search(rf"{user}  ana +ana@example\.org  admin  True", run("users", "list"))
    key = run("keys", "create", "ana", "--name", "laptop", "--scope", "read", "--days", "30").strip()
    assert re.fullmatch(r"atp_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{39}", key)
    assert key[9:17] in run("keys", "list")
    rotated = run("keys", "rotate", key[9:17], "--grace", "60").strip()
    assert re.fullmatch(r"atp_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{39}", rotated)
    assert run("keys", "revoke", key[9:17]) == "revoked\n"
    assert re.search(rf"{key[9:17]}  laptop .* 20\d\d-", run("keys", "list", "--user", "ana"))
    assert run("users", "role", "ana", "user") == "ana is an active user\n"
    assert run("users", "deactivate", "ana") == "ana is an inactive user\n"
    assert run("users", "activate", user) == "ana is an active user\n"


def test_a_key_may_be_made_with_limits_of_its_own(database_url: str, redis_url: str) -> None:
    settings = {"database_url": database_url, "redis_url": redis_url}
    atp("users", "create", "ana", "ana@example.org", **settings)
    limits = ("--limit", "chat=300/minute", "--limit", "api=9/second")
    assert atp("keys", "create", "ana", *limits, **settings).returncode == 0
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT rate_limits FROM api_keys").fetchall()
    assert rows == [({"chat": "300/minute", "api": "9/second"},)]
    for wrong in ("chat=often", "fly=1/minute"):
        refused = atp("keys", "create", "ana", "--limit", wrong, **settings)
        assert refused.returncode == 2
        assert "argument --limit: " in refused.stderr


async def test_a_backup_that_was_made_is_what_the_fleet_tells_of(database_url: str) -> None:
    settings = {"database_url": database_url}
    started = time.time()
    done = atp("backup-done", "1048576", "s3://backups/atp.dump", **settings)
    assert done.returncode == 0, done.stderr
    recorded = r"backup of 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC recorded: 1048576 bytes at s3://backups/atp\.dump\n"
    assert re.fullmatch(recorded, done.stdout)
    async with one_connection(database_url) as connection:
        rows = await (await connection.execute("SELECT bytes, place FROM backups")).fetchall()
        broadcast, backup = await select_moments(connection)
    assert rows == [(1048576, "s3://backups/atp.dump")]
    assert broadcast == 0
    assert started - 1 <= backup <= time.time() + 1
    later = atp("backup-done", "2097152", "s3://backups/atp.dump", **settings)
    assert later.returncode == 0, later.stderr
    async with one_connection(database_url) as connection:
        assert (await select_moments(connection))[1] > backup


def test_a_dump_brings_back_what_was_lost_since(postgres_server: Postgres, database_url: str, tmp_path: Path) -> None:
    """The commands of docs/deploy.md; the dump is older than the row that tells of it."""
    settings, dump = {"database_url": database_url}, tmp_path / "atp.dump"
    user = atp("users", "create", "ana", "ana@example.org", **settings).stdout.strip()
    admin, database = urlsplit(postgres_server.admin_dsn), urlsplit(database_url).path[1:]
    where = {"PGHOST": admin.hostname or "", "PGPORT": str(admin.port), "PGPASSWORD": admin.password or ""}

    def run(program: str, *arguments: str) -> None:
        command = [postgres_programs() / program, "-U", admin.username or "", *arguments]
        done = subprocess.run(command, env=os.environ | where, capture_output=True, text=True, timeout=40, check=False)
        assert done.returncode == 0, done.stderr

    run("pg_dump", "-Fc", "-f", str(dump), database)
    assert atp("backup-done", str(dump.stat().st_size), str(dump), **settings).returncode == 0
    run("dropdb", "--force", database)
    run("pg_restore", "--create", "-d", "postgres", str(dump))
    assert atp("migrate", **settings).stdout == "the database is up to date\n"
    assert user in atp("users", "list", **settings).stdout
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM backups").fetchone() == (0,)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("0", "here"), "argument BYTES: must be at least 1"),
        (("much", "here"), "argument BYTES: invalid positive value: 'much'"),
        (("1", " "), "argument PLACE: must not be empty"),
        (("1",), "the following arguments are required: PLACE"),
    ],
)
def test_a_backup_without_size_or_place_is_none(database_url: str, said: tuple[str, ...], told: str) -> None:
    refused = atp("backup-done", *said, database_url=database_url)
    assert refused.returncode == 2
    assert told in refused.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM backups").fetchone() == (0,)


def test_a_backup_is_not_recorded_where_there_are_no_tables(empty_database_url: str) -> None:
    done = atp("backup-done", "1", "here", database_url=empty_database_url)
    assert (done.returncode, done.stderr) == (1, "atp: the database has no tables yet: run `atp migrate`\n")


def test_a_wrong_word_is_one_line_and_exit_code_1(database_url: str, redis_url: str) -> None:
    done = atp("keys", "create", "nobody", database_url=database_url, redis_url=redis_url)
    assert (done.returncode, done.stderr) == (1, "atp: There is no user 'nobody'.\n")


def test_openapi_prints_the_document_without_any_server() -> None:
    done = atp("openapi")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == api_document()


def test_wrong_settings_are_a_line_each_and_no_traceback() -> None:
    done = atp("serve", port="eighty", rate_limit_chat="often")
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" PORT", " RATE_LIMIT_CHAT"]


@pytest.mark.parametrize("command", [("serve",), ("serve", "--processes", "2"), ("worker",), ("doctor",)])
def test_a_place_for_callbacks_that_allows_nothing_stops_the_start(command: tuple[str, ...]) -> None:
    done = atp(*command, task_callback_urls="https://hooks.example/,hooks.example")
    assert (done.returncode, done.stderr) == (
        1,
        "atp: TASK_CALLBACK_URLS: each must look like https://host/path/, in ASCII, without user, query or fragment\n",
    )


def test_serve_refuses_a_database_that_was_not_migrated(empty_database_url: str, redis_url: str) -> None:
    for processes in ("1", "2"):
        done = atp("serve", "--processes", processes, database_url=empty_database_url, redis_url=redis_url)
        assert (done.returncode, done.stderr) == (1, "atp: the database lacks 12 migration(s): run `atp migrate`\n")
    listed = atp("users", "list", database_url=empty_database_url)
    assert listed.stderr == "atp: the database has no tables yet: run `atp migrate`\n"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_serve_refuses_a_faulty_agents_file_once(
    database_url: str, redis_url: str, tmp_path: Path, processes: str
) -> None:
    (tmp_path / "agents.toml").write_bytes(b"\xff\xfe not toml")
    settings = {"database_url": database_url, "redis_url": redis_url, "agents_file": tmp_path / "agents.toml"}
    done = atp("serve", "--processes", processes, **settings)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "AGENTS_FILE" in done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sentry_dsn", "garbage"),
        ("redis_url", "redis://h:abc/0"),
        ("trusted_proxies", "10.0.0.0/99"),
        ("host", "nope.invalid"),
    ],
)
def test_serve_refuses_what_it_cannot_use_in_one_line(
    database_url: str, redis_url: str, name: str, value: str, processes: str
) -> None:
    settings = {"database_url": database_url, "redis_url": redis_url, name: value}
    done = atp("serve", "--processes", processes, **settings)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert name.upper() in done.stderr


def test_doctor_finds_everything_well(database_url: str, redis_url: str, llm_server: Llm) -> None:
    done = atp(
        "doctor",
        database_url=database_url,
        redis_url=redis_url,
        openai_base_url=llm_server.base_url,
        openai_api_key=llm_server.api_key,
        openai_models=llm_server.model,
        task_callback_urls="https://hooks.example/atp/",
    )
    assert done.returncode == 0, done.stderr
    assert "1 beginning(s) of URLs allowed, NOT signed" in done.stdout
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "ok     PostgreSQL",
        "ok     Redis",
        "ok     agents",
        "ok     callbacks",
        "ok     models of openai",
    ]


def test_doctor_says_what_is_wrong_and_what_to_do(empty_database_url: str, llm_server: Llm) -> None:
    done = atp(
        "doctor",
        database_url=empty_database_url,
        redis_url="redis://127.0.0.1:1",
        openai_base_url=llm_server.base_url,
        openai_api_key="wrong",
        otel_exporter_otlp_endpoint="http://127.0.0.1:1",
        sentry_dsn="http://nohost",
    )
    assert done.returncode == 1
    assert "FAULT  PostgreSQL: 12 migration(s) not applied\n       -> run `atp migrate`" in done.stderr
    assert "FAULT  Redis: " in done.stderr
    assert "refuses the key (401)" in done.stderr
    assert "FAULT  OTLP: " in done.stderr
    assert "FAULT  Sentry: the DSN has no key, host or project" in done.stderr


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", "postgresql://nowhere.invalid/x"])
def test_doctor_survives_a_database_url_that_leads_nowhere(redis_url: str, llm_server: Llm, url: str) -> None:
    done = atp("doctor", database_url=url, redis_url=redis_url, openai_base_url=llm_server.base_url)
    assert done.returncode == 1
    assert "FAULT  PostgreSQL: " in done.stderr
    assert "Traceback" not in done.stderr
