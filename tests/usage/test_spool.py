"""The spool: bounded, honest about the disk, replayed once however often it is read, adopted from the dead."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic_core import to_json

from service.errors import DatabaseUnavailable
from service.telemetry.metrics import Metrics
from service.usage.segments import Segments, framed
from service.usage.spool import Spool
from tests.servers import OwnPostgres
from tests.usage.parts import Parts, counted, files_in, open_parts, rows
from tests.usage.test_segments import files_of_at_most
from tests.waiting import eventually


@contextmanager
def left_behind(folder: Path, *data: bytes) -> Iterator[None]:
    """What a dead process has left, a segment each."""
    segments = Segments.create(folder)
    for segment in data:
        segments.append(segment)
        segments.seal()
    segments.close()
    yield


def spool_in(folder: Path, limit_bytes: int = 1_000_000) -> Spool:
    return Spool(folder, limit_bytes, Metrics())


async def test_a_full_spool_refuses_until_its_rows_are_replayed(spool_dir: Path) -> None:
    spool = spool_in(spool_dir, limit_bytes=5000)
    await spool.open()
    await spool.append(rows(20))
    assert not spool.usable
    with pytest.raises(DatabaseUnavailable):
        await spool.append(rows(1))
    waiting = await spool.oldest()
    assert waiting is not None
    assert waiting.rows == rows(20)
    await spool.drop(waiting)
    assert (spool.usable, spool.rows, spool.size_bytes) == (True, 0, 0)
    await spool.close()
    assert files_in(spool_dir) == []


async def test_a_disk_that_becomes_full_refuses_and_is_used_again_when_it_has_room(spool_dir: Path) -> None:
    spool = spool_in(spool_dir)
    await spool.open()
    await spool.append(rows(2))
    with files_of_at_most(1000):
        with pytest.raises(DatabaseUnavailable):
            await spool.append(rows(50))
        assert not spool.usable
        await spool.mend()
        assert not spool.usable
    await spool.mend()
    assert spool.usable
    await spool.append(rows(3, first=7))
    first = await spool.oldest()
    assert first is not None
    assert first.rows == rows(2)
    await spool.drop(first)
    second = await spool.oldest()
    assert second is not None
    assert second.rows == rows(3, first=7)
    await spool.close()


async def test_a_folder_that_cannot_be_made_leaves_the_spool_unusable_and_no_error(spool_dir: Path) -> None:
    make_file(spool_dir)
    spool = spool_in(spool_dir)
    await spool.open()
    assert not spool.usable
    assert await spool.adopt() == 0
    await spool.close()


async def test_what_a_dead_process_left_is_adopted_and_stored_once_by_one_of_two(
    database_url: str, spool_dir: Path
) -> None:
    data = framed(json_of(100)), framed(json_of(50, first=100))
    with left_behind(spool_dir, *data):
        async with (
            open_parts(database_url, spool_dir, node="a") as one,
            open_parts(database_url, spool_dir, node="b") as two,
        ):
            await eventually(lambda: one.count("replayed") + two.count("replayed") == 150)
            await eventually(lambda: one.spool.rows + two.spool.rows == 0)
    assert counted(database_url) == (150, 150, 150)
    assert files_in(spool_dir) == []


async def test_what_is_adopted_is_shown_and_takes_nothing_from_what_this_process_may_spool(
    own_postgres: OwnPostgres, spool_dir: Path
) -> None:
    data = framed(json_of(100))
    assert len(data) > 5000
    with left_behind(spool_dir, data):
        async with open_parts(own_postgres.dsn, spool_dir, limit_bytes=5000, replaying=False) as parts:
            await own_postgres.kill()
            assert await parts.spool.adopt() == 100
            assert (parts.spool.rows, parts.spool.size_bytes, parts.spool.usable) == (100, 0, True)
            assert parts.gauge("atp_usage_spool_bytes") == len(data)
            own = rows(1, first=100)
            await parts.ledger.record(own[0])
            assert parts.gauge("atp_usage_spool_bytes") == len(data) + len(framed(json_of(1, first=100)))
            await own_postgres.restart()
            await eventually(lambda: replayed(parts), within_s=10)
            assert (parts.spool.rows, parts.spool.size_bytes) == (0, 0)
            assert parts.gauge("atp_usage_spool_bytes") == 0
    assert counted(own_postgres.dsn) == (101, 101, 101)


async def replayed(parts: Parts) -> bool:
    await parts.replay.drain()
    return parts.spool.rows == 0


async def test_a_torn_tail_and_rows_that_are_none_cost_the_others_nothing(database_url: str, spool_dir: Path) -> None:
    torn = framed([*json_of(10), b'{"a row": "of another version"}', *json_of(10, first=10)])[:-5]
    with left_behind(spool_dir, torn):
        async with open_parts(database_url, spool_dir) as parts:
            await eventually(lambda: parts.spool.rows == 0 and parts.count("failed") == 1)
    assert counted(database_url) == (19, 19, 19)


async def test_a_row_that_postgresql_refuses_is_counted_and_does_not_hold_up_the_replay(
    database_url: str, spool_dir: Path
) -> None:
    bad = json_of(1)[0].replace(b'"tokens_in":7', b'"tokens_in":3000000000')
    with left_behind(spool_dir, framed([bad, *json_of(10, first=1)])):
        async with open_parts(database_url, spool_dir) as parts:
            await eventually(lambda: parts.count("replayed") == 10)
            assert parts.count("failed") == 1
            await eventually(lambda: parts.spool.rows == 0)
    assert counted(database_url) == (10, 10, 10)


async def test_replayed_twice_or_by_two_at_once_nothing_is_counted_twice(database_url: str, spool_dir: Path) -> None:
    async with open_parts(database_url, spool_dir, replaying=False) as parts:
        await parts.ledger.record(rows(1)[0])
        await asyncio.gather(*(parts.store.insert(rows(500)) for _ in range(4)))
        await parts.store.insert(list(reversed(rows(500))))
    assert counted(database_url) == (500, 500, 500)


def json_of(count: int, first: int = 0) -> list[bytes]:
    return [to_json(row) for row in rows(count, first)]


def make_file(path: Path) -> None:
    path.touch()


def a_file_among_the_folders(folder: Path) -> None:
    folder.mkdir()
    (folder / "2026-notes").touch()


async def test_what_is_no_folder_of_a_spool_stops_no_replay(own_postgres: OwnPostgres, spool_dir: Path) -> None:
    a_file_among_the_folders(spool_dir)
    async with open_parts(own_postgres.dsn, spool_dir) as parts:
        await own_postgres.kill()
        for row in rows(5):
            await parts.ledger.record(row)
        await own_postgres.restart()
        await eventually(lambda: parts.spool.rows == 0, within_s=10)
    assert counted(own_postgres.dsn) == (5, 5, 5)


async def test_what_lies_behind_a_damaged_record_is_kept_and_told(
    database_url: str, spool_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(framed(json_of(10)))
    second = 8 + int.from_bytes(data[:4], "little")
    data[second + 20] ^= 1
    with left_behind(spool_dir, bytes(data)):
        async with open_parts(database_url, spool_dir) as parts:
            await eventually(lambda: parts.count("replayed") == 1)
            await eventually(lambda: len(list(spool_dir.glob("*/*.bad"))) == 1)
    assert counted(database_url) == (1, 1, 1)
