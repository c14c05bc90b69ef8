"""Limits as callers meet them: headers, refusals before the body, refused keys, outages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from service.commands import announce
from service.db.pool import one_connection
from service.http.operation import Call, Operation
from service.http.ratelimit import openai_headers, rate_headers
from service.keys import token
from service.limits.limiter import Decision
from service.limits.policies import Limit
from tests.live.clients import refusal, socket
from tests.nodes import RunningNode, node_settings, running
from tests.servers import OwnValkey
from tests.upstream import Upstream
from tests.waiting import eventually

MODELS = "/api/v1/models"
Start = Callable[..., Any]


@pytest.fixture
def start(database_url: str, redis_url: str, model_server: Upstream) -> Start:
    """`async with start(rate_limit_api="3/minute") as node`."""

    @asynccontextmanager
    async def started(**limits: Any) -> AsyncIterator[RunningNode]:
        async with running(
            node_settings(database_url, limits.pop("redis_url", redis_url), model_server, **limits)
        ) as n:
            yield n

    return started


async def get(node: RunningNode, key: str, **headers: str) -> httpx2.Response:
    return await node.http.get(MODELS, headers={"x-api-key": key, **headers})


def limits_of(response: httpx2.Response) -> tuple[str, str]:
    return response.headers["ratelimit-policy"], response.headers["ratelimit"]


async def test_every_answer_says_what_is_left_and_the_429_when_to_come_back(start: Start) -> None:
    async with start(rate_limit_api="3/minute") as node:
        answers = [await get(node, node.key) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert {limits_of(answer)[0] for answer in answers} == {'"api";q=3;w=60'}
        assert [limits_of(answer)[1].rpartition(";")[0] for answer in answers] == [
            *('"api";r=2', '"api";r=1', '"api";r=0', '"api";r=0'),
        ]
        refused = answers[3]
        problem = refused.json()
        assert {name: problem[name] for name in ("type", "policy", "limit", "window_s", "detail")} == {
            "type": "urn:atp:problem:rate-limited",
            "policy": "api",
            "limit": 3,
            "window_s": 60,
            "detail": "At most 3 requests in 60 s.",
        }
        retry_after = refused.headers["retry-after"]
        assert (problem["retry_after_s"], limits_of(refused)[1]) == (int(retry_after), f'"api";r=0;t={retry_after}')
        assert 59 <= int(retry_after) <= 61
        assert await node.metric('atp_ratelimit_decisions_total{decision="limited",policy="api"}') == 1
        assert await node.metric('atp_ratelimit_decisions_total{decision="allowed",policy="api"}') == 3
        assert await node.metric("atp_ratelimit_check_duration_seconds_count") == 4


async def test_whoever_waits_as_told_is_admitted(start: Start) -> None:
    async with start(rate_limit_api="3/second") as node:
        while (answer := await get(node, node.key)).status_code == 200:
            pass
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(1)
        assert (await get(node, node.key)).status_code == 200


async def test_a_problem_of_an_admitted_request_has_the_headers_too(start: Start) -> None:
    async with start(rate_limit_chat="3/minute") as node:
        response = await node.http.post("/api/v1/chat", json={"agent": "nobody", "task": "x"})
        assert response.status_code in (404, 422)
        assert limits_of(response)[0] == '"chat";q=3;w=60'


async def test_a_key_may_have_limits_of_its_own(start: Start) -> None:
    async with start(rate_limit_api="3/minute") as node:
        key = await node.new_key("read")
        async with one_connection(node.dsn) as connection:
            await connection.execute(
                "UPDATE api_keys SET rate_limits = %s::jsonb WHERE prefix = %s", ('{"api": "5/hour"}', key[9:17])
            )
        assert limits_of(await get(node, key)) == ('"api";q=5;w=3600', '"api";r=4;t=3601')


async def test_two_nodes_count_together(start: Start) -> None:
    async with start(rate_limit_api="4/minute") as one, start(rate_limit_api="4/minute") as two:
        key = await one.new_key("read")
        statuses = [(await get(node, key)).status_code for node in (one, two, one, two, one, two)]
        assert statuses == [200, 200, 200, 200, 429, 429]


async def test_a_429_comes_although_the_body_never_does(start: Start) -> None:
    async with start(rate_limit_chat="1/hour") as node:
        body = {"agent": "reasoning", "task": "x", "model": "good"}
        assert (await node.http.post("/api/v1/chat", json=body)).status_code == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
        head = f"POST /api/v1/chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {node.key}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n".encode())
        started = time.monotonic()
        assert (await reader.readline()) == b"HTTP/1.1 429 \r\n"
        assert time.monotonic() - started < 1
        writer.close()


async def test_a_websocket_handshake_counts_as_a_request(start: Start) -> None:
    async with start(rate_limit_api="1/minute") as node:
        assert (await refusal(node))[0] == 101
        status, problem = await refusal(node)
        assert (status, problem["type"], problem["policy"]) == (429, "urn:atp:problem:rate-limited", "api")
        assert await node.metric('atp_ws_handshakes_total{result="rate-limited"}') == 1


async def test_an_open_socket_follows_its_keys_limits_as_they_are_changed(start: Start) -> None:
    async with start() as node:
        key = await node.new_key("chat")
        await give_limits(node, key, '{"chat": "1/hour"}')
        async with socket(node, key) as client:

            async def answered() -> bool:
                await client.say("chat", id="c", agent="reasoning", task="?", model="good")
                last = (await client.until("done", "error"))[-1]
                if last["type"] == "error":
                    assert (last["problem"]["status"], last["problem"]["policy"]) == (429, "chat")
                return bool(last["type"] == "done")

            assert [await answered(), await answered()] == [True, False]
            await give_limits(node, key, '{"chat": "3/hour"}')
            await eventually(answered)
            assert [await answered(), await answered()] == [True, False]


async def give_limits(node: RunningNode, key: str, limits: str) -> None:
    """As an administrator would, in the table; then every node is told."""
    async with one_connection(node.dsn) as connection:
        sql = "UPDATE api_keys SET rate_limits = %s::jsonb WHERE prefix = %s"
        await connection.execute(sql, (limits, key[9:17]))
    assert await announce(token.digest(key), node.settings)


async def test_refused_keys_are_limited_by_address_and_known_ones_go_on(start: Start) -> None:
    async with start(rate_limit_auth_failures="3/minute") as node:
        known, fresh = await node.new_key("read"), await node.new_key("read")
        assert (await get(node, known)).status_code == 200
        answers = [await get(node, token.mint().text) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert answers[4].json()["policy"] == "auth"
        looks = 'db_client_operation_duration_seconds_count{operation="select_key",system="postgresql"}'
        assert await node.metric(looks) == 4  # the known one, and three: the fourth was not looked for
        assert (await get(node, fresh)).status_code == 429  # it might be a guess: this node has never seen it
        assert [(await get(node, known)).status_code for _ in range(5)] == [200] * 5
        limited = 'atp_ratelimit_decisions_total{decision="limited",policy="auth"}'
        assert await node.metric(limited) == 3  # two guesses and the fresh key
        assert (await refusal(node, key="", ticket="wst_x"))[0] == 429
        assert (await refusal(node, key=known))[0] in (101, 403)


async def test_a_flood_of_unknown_keys_of_one_address_waits_its_turn_and_is_refused_once_some_were_wrong(
    start: Start,
) -> None:
    async with start(rate_limit_auth_failures="3/minute", db_timeout=10) as node:
        known = await node.new_key("read")
        assert (await get(node, known)).status_code == 200
        async with one_connection(node.dsn) as connection:  # nothing can be looked up until this ends
            await connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            flood = [asyncio.create_task(get(node, token.mint().text)) for _ in range(40)]
            await eventually(lambda: under_way(node, 40))
            await eventually(lambda: eight_looks_wait(node))
            assert (await get(node, known)).status_code == 200
        statuses = sorted([(await answer).status_code for answer in flood])
        assert statuses == [401] * 3 + [429] * 37
        looks = 'db_client_operation_duration_seconds_count{operation="select_key",system="postgresql"}'
        assert 1 + 8 <= await node.metric(looks) <= 1 + 12  # a few begin before the third failure is counted


async def under_way(node: RunningNode, requests: int) -> bool:
    return await node.metric("http_server_active_requests") == requests


async def eight_looks_wait(node: RunningNode) -> bool:
    """For a lock in this test's database."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return await node.rows(sql) == [(8,)]


async def test_good_keys_do_not_count_as_failures(start: Start) -> None:
    async with start(rate_limit_auth_failures="3/minute") as node:
        assert [(await get(node, node.key)).status_code for _ in range(6)] == [200] * 6
        assert (await get(node, token.mint().text)).status_code == 401


async def test_requests_without_a_key_have_a_limit_of_their_own(start: Start) -> None:
    async with start(rate_limit_address="2/minute") as node, httpx2.AsyncClient(base_url=node.url) as nobody:
        answers = [await nobody.get(MODELS) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert answers[2].json()["policy"] == "address"
        assert (await get(node, token.mint().text)).status_code == 401
        assert (await get(node, node.key)).status_code == 200


async def test_addresses_behind_a_trusted_proxy_are_told_apart(start: Start) -> None:
    async with start(rate_limit_auth_failures="1/minute", trusted_proxies="127.0.0.1") as node:
        guess = token.mint().text
        one, two = {"x-forwarded-for": "2001:db8::1"}, {"x-forwarded-for": "2001:db8:0:1::1"}
        neighbour = {"x-forwarded-for": "2001:db8::ffff"}  # of the same /64
        statuses = [(await get(node, guess, **said)).status_code for said in (one, neighbour, two)]
        assert statuses == [401, 429, 401]


async def test_while_redis_is_away_limits_hold_on_this_node_and_the_answer_says_so(
    start: Start, own_valkey: OwnValkey
) -> None:
    async with start(redis_url=own_valkey.url, rate_limit_api="4/minute") as node:
        await own_valkey.kill()
        started = time.monotonic()
        answers = [await get(node, node.key) for _ in range(5)]
        assert time.monotonic() - started < 1
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
        assert limits_of(answers[0])[0] == '"api";q=4;w=60;atp-degraded'


async def test_while_redis_is_away_the_first_refused_key_shuts_its_address_to_keys_that_are_not_known(
    start: Start, own_valkey: OwnValkey
) -> None:
    proxied = {"trusted_proxies": "127.0.0.1", "rate_limit_auth_failures": "20/minute"}
    one, two = {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "192.0.2.2"}
    async with start(redis_url=own_valkey.url, **proxied) as node:
        known, *fresh = [await node.new_key("read") for _ in range(4)]
        assert (await get(node, known, **one)).status_code == 200
        assert [(await get(node, token.mint().text, **one)).status_code for _ in range(3)] == [401] * 3
        await own_valkey.kill()
        assert (await get(node, fresh[0], **one)).status_code == 200  # good keys are no failures
        guess = await get(node, token.mint().text, **one)
        assert (guess.status_code, limits_of(guess)[0]) == (401, '"auth";q=1;w=60;atp-degraded')
        shut = await get(node, fresh[1], **one)
        assert (shut.status_code, shut.json()["policy"]) == (429, "auth")
        assert shut.headers["retry-after"] in ("60", "61")  # a millisecond more than a minute is 61 whole seconds
        assert [(await get(node, key, **one)).status_code for key in (known, fresh[0])] == [200, 200]
        assert (await get(node, fresh[2], **two)).status_code == 200
        await own_valkey.restart()

        async def open_again() -> bool:
            return (await get(node, fresh[1], **one)).status_code == 200

        await eventually(open_again, within_s=6)


async def test_without_a_redis_refused_keys_have_their_whole_limit(start: Start) -> None:
    async with start(redis_url="", rate_limit_auth_failures="2/minute") as node:
        guesses = [(await get(node, token.mint().text)).status_code for _ in range(4)]
        assert guesses == [401, 401, 429, 429]


async def test_while_redis_is_away_each_of_two_nodes_has_half_of_the_limit(
    start: Start, own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.wiring.limits.COUNT_NODES_EVERY_S", 0.05)
    limits = {"redis_url": own_valkey.url, "rate_limit_api": "4/minute"}
    async with start(node_name="one", **limits) as one, start(node_name="two", **limits) as two:

        async def both_are_known() -> bool:
            return len((await one.http.get("/api/admin/stats/system")).json()["fleet"]) == 2

        await eventually(both_are_known)
        for node in (one, two):
            before = await looks(node)
            await eventually(lambda node=node, before=before: looked_twice(node, before))  # type: ignore[misc]
        await own_valkey.kill()
        answers = [await get(node, one.key) for node in (one, two) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429] * 2
        assert {limits_of(answer)[0] for answer in answers} == {'"api";q=2;w=60;atp-degraded'}


async def looks(node: RunningNode) -> float:
    """How often the node has asked who is in the fleet."""
    return await node.metric('db_client_operation_duration_seconds_count{operation="presence_cards",system="redis"}')


async def looked_twice(node: RunningNode, before: float) -> bool:
    return await looks(node) >= before + 2


async def test_a_batch_is_charged_for_as_a_whole_or_not_at_all(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler of a table of one line, in place of the service's own."""
    from starlette.responses import JSONResponse

    import service.wiring

    async def batch(call: Call[None]) -> JSONResponse:
        """Charges for as many as are asked."""
        await call.charge(int(call.request.query_params["n"]) - 1)
        return JSONResponse({})

    table = [Operation("GET", "/v1/batch", batch, "read")]
    monkeypatch.setattr(service.wiring, "operations", lambda handlers: table)
    async with start(rate_limit_api="10/minute") as node:

        async def ask(n: int) -> tuple[int, str, str]:
            response = await node.http.get("/v1/batch", params={"n": n})
            left = response.headers.get_list("ratelimit")
            assert len(left) == 1
            return response.status_code, left[0].split(";")[1], response.headers["x-ratelimit-remaining-requests"]

        assert await ask(4) == (200, "r=6", "6")
        assert await ask(7) == (429, "r=5", "5")  # the request itself is counted, the rest is not
        assert await ask(5) == (200, "r=0", "0")
        response = await node.http.get("/v1/batch", params={"n": 12})
        assert response.headers["x-ratelimit-limit-requests"] == "10"


def decision(**changes: Any) -> Decision:
    known = {"admitted": True, "enforced": 30, "remaining": 12, "wait_s": 0.0, "reset_s": 33.21, "degraded": False}
    return Decision(Limit("chat", 30, 60), **known | changes)


def test_headers_are_as_the_draft_writes_them() -> None:
    assert rate_headers(decision()) == [
        (b"ratelimit-policy", b'"chat";q=30;w=60'),
        (b"ratelimit", b'"chat";r=12;t=34'),
    ]
    spent = decision(admitted=False, remaining=0, wait_s=2.5)
    assert rate_headers(spent)[1] == (b"ratelimit", b'"chat";r=0;t=3')
    alone = decision(degraded=True, enforced=15)
    assert rate_headers(alone)[0] == (b"ratelimit-policy", b'"chat";q=15;w=60;atp-degraded')


def test_openais_headers_are_as_its_clients_read_them() -> None:
    assert openai_headers(decision(reset_s=1.13)) == [
        (b"x-ratelimit-limit-requests", b"30"),
        (b"x-ratelimit-remaining-requests", b"12"),
        (b"x-ratelimit-reset-requests", b"1.2s"),
    ]
