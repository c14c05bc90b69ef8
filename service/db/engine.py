"""The tables of the task engine, brought up to date by the SQL that procrastinate carries.

Its `sql/schema.sql` is the whole of its present release; `sql/migrations/` are the steps that led there, named so that
they sort. A database that has none of it gets the whole, and is noted to have every step; any other gets the steps that
it lacks (https://procrastinate.readthedocs.io/en/stable/howto/production/migrations.html).
"""

from importlib.util import find_spec
from pathlib import Path

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS engine_migrations (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
SELECT_LEDGER = "SELECT to_regclass('engine_migrations') IS NOT NULL"
SELECT_APPLIED = "SELECT name FROM engine_migrations"
INSERT_APPLIED = "INSERT INTO engine_migrations (name) VALUES (%s)"


def folder() -> Path:
    """Where the package keeps its SQL; found without importing it, which takes a tenth of a second."""
    spec = find_spec("procrastinate")
    assert spec is not None  # noqa: S101 - a dependency of ours; mypy cannot know
    assert spec.origin is not None  # noqa: S101 - as above
    return Path(spec.origin).parent / "sql"


def steps() -> list[Path]:
    return sorted((folder() / "migrations").glob("*.sql"))


async def lacking(connection: AsyncConnection[TupleRow]) -> list[Path]:
    """The steps that the database does not have. The ledger must be there."""
    applied = {row[0] for row in await (await connection.execute(SELECT_APPLIED)).fetchall()}
    return [step for step in steps() if step.stem not in applied]


async def outstanding(connection: AsyncConnection[TupleRow]) -> int:
    """How many steps the database lacks; one where it has none, for the whole is one."""
    ledger = await (await connection.execute(SELECT_LEDGER)).fetchone()
    return len(await lacking(connection)) if ledger and ledger[0] else 1


async def migrate_engine(connection: AsyncConnection[TupleRow]) -> list[str]:
    """Within the caller's transaction and lock; returns the names of what was applied now."""
    await connection.execute(CREATE_LEDGER)
    missing = await lacking(connection)
    if not missing:
        return []
    fresh = len(missing) == len(steps())
    for file in [folder() / "schema.sql"] if fresh else missing:
        await connection.execute(file.read_text().encode())
    for step in missing:
        await connection.execute(INSERT_APPLIED, (step.stem,))
    return ["task_engine"] if fresh else [f"task_engine_{step.stem}" for step in missing]
