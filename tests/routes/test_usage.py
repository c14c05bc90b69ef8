"""GET /api/v1/usage: literal sums, one's own only, admins everybody's, bounded, as JSON and CSV."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from pydantic_core import to_json

from service.db.pool import one_connection
from service.keys import issuing, token
from service.usage.row import UsageRow
from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnPostgres
from tests.upstream import Upstream
from tests.usage.parts import ROW
from tests.waiting import eventually

USAGE = "/api/v1/usage"
FIRST = datetime(2026, 10, 5, 9, 15, tzinfo=UTC)
OCTOBER = {"from": "2026-10-05", "to": "2026-10-08"}


class People:
    """Two users with a key each (`ana` has a second), and rows in their names."""

    def __init__(self, node: RunningNode) -> None:
        self.node, self.keys = node, dict[str, str]()
        self._rows = 0

    async def add(self, name: str, user: str) -> None:
        self.keys[name] = await self.node.new_key("read", user=user)

    def prefix(self, name: str) -> str:
        return self.keys[name].split("_")[2]

    def row(self, name: str, user: str, hours: int, **changes: Any) -> UsageRow:
        self._rows += 1
        key_hash = token.digest(self.keys[name]).hex() if name in self.keys else "cd" * 32
        when = FIRST + timedelta(hours=hours)
        row = replace(ROW, id=uuid.UUID(int=self._rows), timestamp=when, key_hash=key_hash, user_id=user)
        return replace(row, **changes)

    async def store(self, *rows: UsageRow) -> None:
        async with one_connection(self.node.dsn) as connection:
            await connection.execute("SELECT store_usage(%s::json, 1::smallint)", (to_json(rows).decode(),))

    async def get(self, name: str, **query: str) -> httpx2.Response:
        """As this key's holder; `admin` is the node's own."""
        headers = {"x-api-key": self.keys.get(name, self.node.key)}
        return await self.node.http.get(USAGE, params=OCTOBER | query, headers=headers)

    async def items(self, name: str, **query: str) -> list[dict[str, Any]]:
        response = await self.get(name, **query)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["items"]
        return found


@pytest.fixture
async def people(node: RunningNode) -> People:
    made = People(node)
    async with one_connection(node.dsn) as connection:
        for user in ("ana", "ben"):
            await issuing.create_user(connection, user, f"{user}@example.org")
    for name, user in (("ana", "ana"), ("ana2", "ana"), ("ben", "ben")):
        await made.add(name, await id_of(node, user))
    return made


async def id_of(node: RunningNode, username: str) -> str:
    ((user_id,),) = await node.rows(f"SELECT id FROM users WHERE username = '{username}'")  # noqa: S608 - a literal
    return str(user_id)


@pytest.fixture
async def ana(people: People) -> str:
    """Her id, once she has used five rows over two days, and Ben one."""
    ana, ben = await id_of(people.node, "ana"), await id_of(people.node, "ben")
    await people.store(
        people.row("ana", ana, 0),
        people.row("ana", ana, 0, status=502, tokens_out=0, duration_s=3.0),
        people.row("ana", ana, 5, agent="summary", cached=True, cost_usd=0.0),
        people.row("ana2", ana, 24, status=499, model="better"),
        people.row("gone", ana, 25, cost_usd=0.5),
        people.row("ben", ben, 1, tokens_in=1000),
    )
    return ana


def shown(items: Sequence[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(item[name] for name in names) for item in items]


async def test_a_report_by_day_has_literal_sums_and_the_bounds_that_hold(people: People, ana: str) -> None:
    report = (await people.get("ana")).json()
    assert {name: report[name] for name in ("from", "to", "interval", "group_by")} == {
        "from": "2026-10-05T00:00:00Z",
        "to": "2026-10-08T00:00:00Z",
        "interval": "day",
        "group_by": [],
    }
    assert report["items"] == [
        {
            "start": "2026-10-05T00:00:00Z",
            "requests": 3,
            "errors": 1,
            "cancelled": 0,
            "cached": 1,
            "tokens_in": 21,
            "tokens_out": 8,
            "cost_usd": 0.0002,
            "latency_s": {"p50": 0.3625, "p95": 3.775, "p99": 3.955},
        },
        {
            "start": "2026-10-06T00:00:00Z",
            "requests": 2,
            "errors": 0,
            "cancelled": 1,
            "cached": 0,
            "tokens_in": 14,
            "tokens_out": 8,
            "cost_usd": 0.5001,
            "latency_s": {"p50": 0.325, "p95": 0.3925, "p99": 0.3985},
        },
    ]
    assert report["totals"] == {
        "requests": 5,
        "errors": 1,
        "cancelled": 1,
        "cached": 1,
        "tokens_in": 35,
        "tokens_out": 16,
        "cost_usd": 0.5003,
        "latency_s": {"p50": 0.34375, "p95": 3.625, "p99": 3.925},
    }


async def test_it_is_grouped_by_hour_key_agent_and_model_in_that_order(people: People, ana: str) -> None:
    items = await people.items("ana", interval="hour", group_by="agent")
    assert shown(items, "start", "agent", "requests") == [
        ("2026-10-05T09:00:00Z", "reasoning", 2),
        ("2026-10-05T14:00:00Z", "summary", 1),
        ("2026-10-06T09:00:00Z", "reasoning", 1),
        ("2026-10-06T10:00:00Z", "reasoning", 1),
    ]
    items = await people.items("ana", interval="total", group_by="model,key")
    expected = [("better", people.prefix("ana2"), 1), ("good", people.prefix("ana"), 3), ("good", "unknown", 1)]
    assert sorted(shown(items, "model", "key", "requests")) == sorted(expected)
    assert "start" not in items[0]


CHOSEN: tuple[tuple[dict[str, str], int], ...] = (
    ({"agent": "summary"}, 1),
    ({"model": "better"}, 1),
    ({"model": "none"}, 0),
    ({"from": "2026-10-06", "to": "2026-10-07"}, 2),
    ({"from": "2026-10-05T23:30:00-10:00", "to": "2026-10-06T11:00:00Z", "interval": "hour"}, 2),
    ({"from": "2026-10-06T10:00:00Z", "to": "2026-10-06T10:30:00Z", "interval": "hour"}, 1),
)


async def test_filters_and_bounds_choose(people: People, ana: str) -> None:
    for query, requests in CHOSEN:
        report = (await people.get("ana", **query)).json()
        assert report["totals"]["requests"] == requests, query


async def test_a_key_is_chosen_by_its_prefix(people: People, ana: str) -> None:
    report = (await people.get("ana", key=people.prefix("ana2"))).json()
    assert report["totals"]["requests"] == 1
    report = (await people.get("ana", key=people.prefix("ben"))).json()
    assert (report["totals"]["requests"], report["items"]) == (0, [])


MODELS = ",".join(letter * 200 for letter in "abcdefgh")  # the longest name that a chat of eight agents can have


async def test_what_an_item_is_grouped_by_chooses_that_item_when_it_is_put_back_as_a_filter(people: People) -> None:
    ana = await id_of(people.node, "ana")
    await people.store(
        people.row("ana", ana, 0, agent="reasoning"),
        people.row("ana", ana, 0, agent="reasoning,summary"),
        people.row("ana", ana, 0, agent="summary,reasoning", model=MODELS),
        people.row("ana2", ana, 0, agent=""),
        people.row("ana2", ana, 0, model=""),
        people.row("gone", ana, 0),
    )
    grouped = {"interval": "total", "group_by": "key,agent,model,user"}
    items = await people.items("ana", **grouped)
    assert sorted(shown(items, "agent", "model", "requests")) == sorted(
        [
            ("reasoning", "good", 1),
            ("reasoning,summary", "good", 1),
            ("summary,reasoning", MODELS, 1),
            ("", "good", 1),
            ("reasoning", "", 1),
            ("reasoning", "good", 1),
        ]
    )
    for item in items:
        named = {name: item[name] for name in ("key", "agent", "model", "user")}
        assert await people.items("ana", **grouped, **named) == [item]


async def test_a_chat_of_several_agents_is_found_by_their_names_as_they_were_asked(node: RunningNode) -> None:
    body = {"agents": ["reasoning", "summary"], "task": "What is the capital of France?", "model": "good"}
    assert (await node.http.post("/api/v1/chat", json=body)).status_code == 200
    for agent, requests in (("reasoning,summary", 1), ("reasoning", 0), ("summary,reasoning", 0)):
        report = (await node.http.get(USAGE, params={"agent": agent})).json()
        assert report["totals"]["requests"] == requests, agent


async def test_a_chat_without_an_agent_is_found_by_the_empty_name(node: RunningNode) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    assert (await node.http.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await node.http.get(USAGE, params={"agent": ""})).json()["totals"]["requests"] == 1


async def test_nothing_used_is_zeros_and_no_latency(people: People) -> None:
    for interval in ("day", "hour", "total"):
        report = (await people.get("ben", interval=interval)).json()
        assert report["items"] == []
        assert report["totals"] == {
            **dict.fromkeys(("requests", "errors", "cancelled", "cached", "tokens_in", "tokens_out"), 0),
            "cost_usd": 0.0,
            "latency_s": {"p50": None, "p95": None, "p99": None},
        }


async def test_everybody_sees_only_their_own(people: People, ana: str) -> None:
    assert (await people.get("ben")).json()["totals"]["tokens_in"] == 1000
    assert (await people.get("ana", user=ana)).json()["totals"]["requests"] == 5
    for user in (ana, "*", "nobody"):
        refused = await people.get("ben", user=user)
        assert (refused.status_code, refused.json()["type"]) == (404, "urn:atp:problem:not-found")
    assert shown(await people.items("ben", group_by="user,key"), "key", "requests") == [(people.prefix("ben"), 1)]


async def test_admins_see_themselves_another_or_everybody(people: People, ana: str) -> None:
    assert (await people.get("admin")).json()["totals"]["requests"] == 0
    assert (await people.get("admin", user=ana)).json()["totals"]["requests"] == 5
    items = await people.items("admin", user="*", interval="total", group_by="user")
    assert {item["user"]: item["requests"] for item in items} == {ana: 5, await id_of(people.node, "ben"): 1}


async def test_times_in_json_and_csv_are_utc_whatever_postgresqls_own_zone_is(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with one_connection(database_url) as connection:
        await connection.execute(f"ALTER DATABASE {database_url.rpartition('/')[2]} SET timezone = 'Asia/Kolkata'")
    async with running(node_settings(database_url, redis_url, model_server)) as node:
        assert await node.rows("SHOW timezone") == [("Asia/Kolkata",)]
        people = People(node)
        await people.store(people.row("nobody", await id_of(node, "tester"), 0))
        for interval, start in (("hour", "2026-10-05T09:00:00Z"), ("day", "2026-10-05T00:00:00Z")):
            query = OCTOBER | {"interval": interval}
            csv = (await node.http.get(USAGE, params=query, headers={"accept": "text/csv"})).text
            assert csv.splitlines()[1].startswith(f"{start},1,0,0,0,7,4,")
            assert shown((await node.http.get(USAGE, params=query)).json()["items"], "start") == [(start,)]


async def test_csv_has_the_items_and_no_formula(people: People) -> None:
    ana = await id_of(people.node, "ana")
    await people.store(people.row("ana", ana, 0, agent='=cmd|"x"'), people.row("ana", ana, 0, agent="a,b"))
    headers = {"x-api-key": people.keys["ana"], "accept": "text/csv, */*;q=0.1"}
    response = await people.node.http.get(USAGE, params=OCTOBER | {"group_by": "agent"}, headers=headers)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert response.text == (
        "start,agent,requests,errors,cancelled,cached,tokens_in,tokens_out,cost_usd,"
        "latency_p50_s,latency_p95_s,latency_p99_s\r\n"
        '2026-10-05T00:00:00Z,"\'=cmd|""x""",1,0,0,0,7,4,0.0001,0.325,0.3925,0.3985\r\n'
        '2026-10-05T00:00:00Z,"a,b",1,0,0,0,7,4,0.0001,0.325,0.3925,0.3985\r\n'
    )


UNFIT: tuple[dict[str, str], ...] = (
    {"from": "yesterday"},
    {"from": "2026-10-05T09:00:00"},
    {"from": "2026-10-08", "to": "2026-10-08"},
    {"from": "2025-09-01", "to": "2026-10-08"},
    {"from": "2026-09-05", "to": "2026-10-08", "interval": "hour"},
    {"from": "0001-01-01", "to": "9999-12-31T23:59:59Z"},
    {"interval": "week"},
    {"group_by": "agent,colour"},
    {"key": ""},
    {"user": ""},
    {"agent": "x\0"},
    {"agent": "x" * 2001},
    {"colour": "red"},
)


async def test_what_does_not_fit_is_422(people: People) -> None:
    for query in UNFIT:
        response = await people.get("ana", **query)
        assert (response.status_code, response.json()["type"]) == (422, "urn:atp:problem:invalid"), query


async def test_a_parameter_that_is_given_twice_is_refused_and_not_overlooked(people: People) -> None:
    response = await people.get("ana", group_by=["agent", "model"])
    assert (response.status_code, response.json()["errors"]) == (
        422,
        [{"field": "group_by", "message": "is given more than once"}],
    )


async def test_more_than_ten_thousand_items_are_422_and_not_a_long_answer(people: People) -> None:
    ana = await id_of(people.node, "ana")
    await people.store(*(people.row("ana", ana, 0, agent=f"agent-{number}") for number in range(10_001)))
    refused = await people.get("ana", group_by="agent")
    assert refused.status_code == 422
    assert refused.json()["detail"] == "More than 10,000 items: narrow from and to, group by less, or filter."
    assert (await people.get("ana")).json()["totals"]["requests"] == 10_001


async def test_a_chat_is_in_the_report_as_soon_as_it_is_answered(node: RunningNode) -> None:
    body = {"agent": "reasoning", "task": "What is the capital of France?"}
    for number in (1, 2):
        assert (await node.http.post("/api/v1/chat", json=body)).status_code == 200
        report = (await node.http.get(USAGE, params={"group_by": "key,agent"})).json()
        assert shown(report["items"], "key", "agent", "requests") == [(node.key.split("_")[2], "reasoning", number)]
    assert report["totals"]["latency_s"]["p50"] > 0


async def test_while_postgresql_is_frozen_a_report_is_503_in_time_and_chats_go_on(
    own_postgres: OwnPostgres, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(own_postgres.dsn, redis_url, model_server, db_timeout=0.5)) as node:
        body = {"agent": "reasoning", "task": "What is the capital of France?"}
        for _ in range(100):  # longer than the verifier takes to join the log of revocations, which it begins anew
            assert (await node.http.post("/api/v1/chat", json=body)).status_code == 200
        own_postgres.freeze()
        response = await node.http.get(USAGE)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.elapsed.total_seconds() < 2
        assert (await node.http.post("/api/v1/chat", json=body)).status_code == 200
        own_postgres.thaw()


ASKING = """
SELECT count(*) = 0 FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%usage_daily%' AND state = 'active' AND pid <> pg_backend_pid()
  AND backend_type = 'client backend'"""


async def test_a_report_that_takes_too_long_is_ended_in_the_server_too(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    settings = node_settings(database_url, redis_url, model_server, db_timeout=0.5)
    async with running(settings) as node, one_connection(node.dsn) as other:
        await other.execute("LOCK TABLE usage_daily IN ACCESS EXCLUSIVE MODE")
        assert (await node.http.get(USAGE)).status_code == 503

        async def ended() -> bool:
            return await node.rows(ASKING) == [(True,)]  # in a transaction of its own: one sees the same for ever

        await eventually(ended)
