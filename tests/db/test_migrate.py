"""Migrations: in order, once, all or none, one process at a time."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from service.db.migrate import MigrationError, migrate, migrations, outstanding
from service.db.pool import one_connection
from service.errors import DatabaseUnavailable

GUIDE_INDEXES = {
    "idx_users_email",
    "idx_users_username",
    "idx_users_role",
    "idx_api_keys_user_id",
    "idx_api_usage_key_hash",
    "idx_api_usage_timestamp",
}


async def names(dsn: str, sql: str) -> set[str]:
    async with one_connection(dsn) as connection:
        return {row[0] for row in await (await connection.execute(sql.encode())).fetchall()}


async def test_an_empty_database_gets_the_guides_tables_and_indexes(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == ["task_engine"] + [migration.name for migration in migrations()]
    tables = await names(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables >= {"users", "api_keys", "api_usage", "schema_migrations"}
    indexes = await names(empty_database_url, "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")
    assert indexes >= GUIDE_INDEXES


async def test_a_second_run_does_nothing(database_url: str) -> None:
    assert await migrate(database_url) == []


async def test_what_is_outstanding_is_counted_step_by_step(empty_database_url: str) -> None:
    assert await outstanding(empty_database_url) == 1 + len(migrations())
    await migrate(empty_database_url)
    assert await outstanding(empty_database_url) == 0
    async with one_connection(empty_database_url) as connection:
        await connection.execute("DELETE FROM schema_migrations WHERE version = 6")
        await connection.execute(
            "DELETE FROM engine_migrations WHERE name IN (SELECT max(name) FROM engine_migrations)"
        )
    assert await outstanding(empty_database_url) == 2


async def test_two_processes_at_once_apply_each_migration_once(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_slow.sql").write_text("SELECT pg_sleep(0.5); CREATE TABLE slow (id int);")
    results = await asyncio.gather(*(migrate(empty_database_url, tmp_path) for _ in range(4)))
    assert sorted(results) == [[], [], [], ["task_engine", "slow"]]


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (id int);")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE bad (id int); SELECT nonsense;")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        await migrate(empty_database_url, tmp_path)
    assert await names(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == set()


async def test_an_edited_migration_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "0001_first.sql"
    file.write_text("CREATE TABLE first (id int);")
    await migrate(empty_database_url, tmp_path)
    file.write_text("CREATE TABLE other (id int);")
    with pytest.raises(MigrationError, match=r"0001 \(first\) was edited"):
        await migrate(empty_database_url, tmp_path)


async def test_an_unreachable_database_is_said_in_one_line() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot migrate: "):
        await migrate("postgresql://nobody@127.0.0.1:1/none")


def test_the_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
