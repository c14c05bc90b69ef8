"""Acknowledged rows survive the death of their process, with PostgreSQL there or gone, and none is counted twice."""

import asyncio
import sys
import time
from pathlib import Path

import psycopg

from tests.servers import OwnPostgres
from tests.usage.parts import counted, open_parts
from tests.waiting import eventually


async def killed(dsn: str, spool_dir: Path, rounds: int) -> list[str]:
    """The ids that processes acknowledged before each was killed."""
    command = [sys.executable, "-m", "tests.usage.ledger_process", dsn, str(spool_dir), str(rounds)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    return output.decode().split()


def stored_ids(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT id::text FROM api_usage").fetchall()]


async def test_after_fifty_kills_under_load_every_acknowledged_row_is_stored_once(
    own_postgres: OwnPostgres, spool_dir: Path
) -> None:
    began = time.monotonic()
    acknowledged = await killed(own_postgres.dsn, spool_dir, 35)
    await own_postgres.kill()
    acknowledged += (spooled := await killed(own_postgres.dsn, spool_dir, 10))
    await own_postgres.restart()
    acknowledged += await killed(own_postgres.dsn, spool_dir, 5)
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        await eventually(lambda: not list(spool_dir.glob("*/*.seg")) and parts.spool.rows == 0, within_s=20)
    stored = stored_ids(own_postgres.dsn)
    lost, twice = set(acknowledged) - set(stored), len(stored) - len(set(stored))
    print(
        f"kill -9 x50: {len(acknowledged)} acknowledged, {len(stored)} stored, {len(lost)} lost, {twice} twice; ",
        end="",
    )
    print(f"{time.monotonic() - began:.0f} s")
    assert (len(acknowledged) > 5000, len(spooled) > 1000) == (True, True)
    assert (lost, twice) == (set(), 0)
    assert counted(own_postgres.dsn) == (len(stored), len(stored), len(stored))
