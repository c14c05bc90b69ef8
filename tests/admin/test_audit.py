"""The audit trail: a row before the deed, one row for a key however often it is sent, nothing without a row."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from service.admin.audit import Action, Actor, Audit
from service.db.pool import Database
from service.errors import Conflict, DatabaseUnavailable, NotFound
from service.settings import load
from service.telemetry.metrics import Metrics
from tests.servers import OwnPostgres

ANA = Actor(user_id="usr_ana", key_prefix="aaaaaaaa", request_id="request-1")
ACTION = Action(ANA, "broadcast", "everyone", {"message": "hello"})
KEYED = replace(ACTION, idempotency_key="k1", body_digest=b"\1" * 32)


@asynccontextmanager
async def trail(dsn: str) -> AsyncIterator[Audit]:
    settings = load(database_url=dsn, db_pool_size=1, db_max_overflow=9, db_timeout=0.5)
    async with Database(settings, Metrics()) as db:
        yield Audit(db)


def rows(dsn: str, columns: str = "count(*)") -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"SELECT {columns} FROM admin_audit".encode()).fetchall()  # noqa: S608


async def test_an_action_is_committed_with_who_what_and_on_what(database_url: str) -> None:
    async with trail(database_url) as audit:
        recorded = await audit.record(ACTION)
        columns = "id, user_id, key_prefix, action, target, details, request_id, idempotency_key, body_digest"
        row = (recorded.id, "usr_ana", "aaaaaaaa", "broadcast", "everyone", {"message": "hello"}, "request-1")
        assert rows(database_url, columns) == [(*row, None, None)]
        assert rows(database_url, "at BETWEEN now() - interval '1 minute' AND now()") == [(True,)]
    assert recorded.first


async def test_actions_without_a_key_are_each_their_own(database_url: str) -> None:
    async with trail(database_url) as audit:
        first, second = await audit.record(ACTION), await audit.record(ACTION)
    assert first.id != second.id
    assert rows(database_url) == [(2,)]


async def test_the_same_key_again_gives_the_stored_row(database_url: str) -> None:
    async with trail(database_url) as audit:
        first = await audit.record(KEYED)
        again = await audit.record(replace(KEYED, details={"message": "hello", "expires_at_ms": 9}))
    assert first.id == uuid.UUID("35671b2d-006e-56e7-9a75-883ed295ae0b")
    assert (first.first, again.first) == (True, False)
    assert (again.id, again.details) == (first.id, {"message": "hello"})
    assert rows(database_url) == [(1,)]


async def test_of_many_at_once_with_one_key_one_is_first(database_url: str) -> None:
    async with trail(database_url) as audit:
        recorded = await asyncio.gather(*(audit.record(KEYED) for _ in range(8)))
    assert sorted(each.first for each in recorded) == [False] * 7 + [True]
    assert len({each.id for each in recorded}) == 1


@pytest.mark.parametrize("other", [{"body_digest": b"\2" * 32}, {"action": "drain"}], ids=["body", "action"])
async def test_another_request_under_the_same_key_is_a_conflict(database_url: str, other: dict[str, Any]) -> None:
    async with trail(database_url) as audit:
        await audit.record(KEYED)
        with pytest.raises(Conflict, match="This Idempotency-Key was used with another body"):
            await audit.record(replace(KEYED, **other))
    assert rows(database_url) == [(1,)]


async def test_two_administrators_may_choose_the_same_key(database_url: str) -> None:
    async with trail(database_url) as audit:
        first = await audit.record(KEYED)
        second = await audit.record(replace(KEYED, by=replace(ANA, user_id="usr_ben")))
    assert second.first
    assert first.id != second.id


async def test_a_deed_in_the_same_transaction_that_fails_leaves_no_row(database_url: str) -> None:
    async with trail(database_url) as audit:
        with pytest.raises(NotFound):
            async with audit.recording(ACTION):
                raise NotFound()
    assert rows(database_url) == [(0,)]


async def test_what_cannot_be_audited_is_refused(own_postgres: OwnPostgres) -> None:
    async with trail(own_postgres.dsn) as audit:
        await audit.record(ACTION)
        await own_postgres.kill()
        with pytest.raises(DatabaseUnavailable) as refusal:
            await audit.record(ACTION)
    assert refusal.value.status == 503
