"""Forward-only SQL migrations: `migrations/NNNN_what.sql`, applied in order, each once, all or none.

1. Take a transaction-level advisory lock: a second process waits for the first and then finds nothing to do.
2. Bring the task engine's own tables up to date (`db/engine.py`).
3. Read which migrations the database has; refuse one whose text has changed since.
4. Run the rest and record them, all in the same transaction.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from service.db import engine
from service.db.pool import one_connection
from service.errors import AtpError, DatabaseUnavailable

FOLDER = Path(__file__).parent / "migrations"
# Any constant of ours will do; it only has to differ from other programs' locks in the same database.
LOCK = 0x617470
CONNECT_TIMEOUT_S = 5

CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
SELECT_LEDGER = "SELECT to_regclass('schema_migrations') IS NOT NULL"
SELECT_APPLIED = "SELECT version, checksum FROM schema_migrations"
INSERT_APPLIED = "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)"


class MigrationError(AtpError):
    """A migration that was applied has been edited; restore it and add a new one instead."""


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """The migrations of a folder by number."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return [Migration(int(file.name[:4]), file.stem[5:], file.read_text()) for file in files]


async def migrate(dsn: str, folder: Path = FOLDER) -> list[str]:
    """Bring the database up to date; returns the names of what was applied now.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
        MigrationError: an applied migration's text has changed.
    """
    try:
        async with await AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            made = await engine.migrate_engine(connection)
            return made + [await apply(connection, migration) for migration in await pending(connection, folder)]
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"cannot migrate: {str(error).splitlines()[0]}") from error


async def outstanding(dsn: str) -> int:
    """How many migrations the database lacks; changes nothing. Raises DatabaseUnavailable."""
    async with one_connection(dsn) as connection:
        ledger = await (await connection.execute(SELECT_LEDGER)).fetchone()
        found = await connection.execute(SELECT_APPLIED) if ledger and ledger[0] else None
        applied = {row[0] for row in await found.fetchall()} if found else set()
        of_engine = await engine.outstanding(connection)
    return of_engine + sum(migration.version not in applied for migration in migrations())


async def pending(connection: AsyncConnection[TupleRow], folder: Path) -> list[Migration]:
    await connection.execute(CREATE_LEDGER)
    applied: dict[int, str] = dict(await (await connection.execute(SELECT_APPLIED)).fetchall())
    for migration in migrations(folder):
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MigrationError(f"migration {migration.version:04} ({migration.name}) was edited after it was applied")
    return [migration for migration in migrations(folder) if migration.version not in applied]


async def apply(connection: AsyncConnection[TupleRow], migration: Migration) -> str:
    await connection.execute(migration.sql.encode())
    await connection.execute(INSERT_APPLIED, (migration.version, migration.name, migration.checksum))
    return migration.name
