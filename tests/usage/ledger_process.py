"""A ledger at full speed in processes that are killed: `python -m tests.usage.ledger_process DSN SPOOL ROUNDS`.

Each round forks a process that records rows from sixteen callers, and kills it with SIGKILL once it has acknowledged
some. Prints the id of every acknowledged row, a line each. Forked and not started anew: imports would be most of it.
"""

import asyncio
import os
import random
import signal
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from tests.usage.parts import ROW, Parts, open_parts

CALLERS = 16
ID_BYTES = 16


async def record_for_ever(dsn: str, spool_dir: Path, said: int) -> None:
    async with open_parts(dsn, spool_dir, node=f"node-{os.getpid()}", limit_bytes=100_000_000) as parts:
        await asyncio.gather(*(caller(parts, said) for _ in range(CALLERS)))


async def caller(parts: Parts, said: int) -> None:
    while True:
        row = replace(ROW, id=uuid.uuid4(), timestamp=datetime.now(UTC))
        await parts.ledger.record(row)
        os.write(said, row.id.bytes)


def one_round(dsn: str, spool_dir: Path) -> list[uuid.UUID]:
    """What a process acknowledged before it was killed."""
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        asyncio.run(record_for_ever(dsn, spool_dir, said))
    os.close(said)
    wanted, data = ID_BYTES * random.randrange(1, 400), b""
    while piece := os.read(heard, 65_536):
        data += piece
        if len(data) >= wanted:
            os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(heard)
    return [uuid.UUID(bytes=data[at : at + ID_BYTES]) for at in range(0, len(data), ID_BYTES)]


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    dsn, spool_dir, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    for _ in range(rounds):
        print(*one_round(dsn, spool_dir), sep="\n", flush=True)


if __name__ == "__main__":
    main()
