"""What becomes of a task is heard: on its owner's sockets on every node, and by whoever follows it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from service.live.bus_redis import FIELD, STREAM
from service.live.messages import Push, encode
from tests.live.clients import Client, socket
from tests.nodes import RunningNode, node_settings, running
from tests.routes.conftest import AGENTS
from tests.routes.test_tasks import ONE, TASKS, one, read, submit, until
from tests.servers import OwnPostgres, OwnValkey
from tests.tasks.following import following, names, text_of
from tests.tasks.workers import working
from tests.upstream import Upstream
from tests.waiting import eventually

STREAMED = {"model": "slow", "stream": True}
NOBODYS = "00000000-0000-4000-8000-000000000000"
FAR_MS = 4_000_000_000_000


@pytest.fixture
async def other_node(node: RunningNode) -> AsyncIterator[RunningNode]:
    async with running(node.settings) as other:
        yield other


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.task_events.LOOK_EVERY_S", 0.3)


async def news(client: Client, last: str) -> list[dict[str, Any]]:
    """Every `task` message up to the one with this event."""
    heard = [await client.hear("task")]
    while heard[-1]["event"] != last:
        heard.append(await client.hear("task"))
    return heard


async def test_the_owner_hears_on_another_node_and_a_stranger_hears_nothing(
    node: RunningNode, other_node: RunningNode
) -> None:
    await node.new_user("mallory")
    mallory = await node.new_key("chat", user="mallory")
    async with socket(other_node) as owner, socket(other_node, mallory) as stranger:
        task_id = await one(node)
        async with working(node.settings):
            heard = await news(owner, "done")
        assert [(told["event"], told["task"]["status"], told["task"]["attempts"]) for told in heard] == [
            ("queued", "queued", 0),
            ("started", "running", 1),
            ("done", "done", 1),
        ]
        assert {told["task"]["id"] for told in heard} == {task_id}
        await stranger.say("ping")
        assert [message["type"] for message in await stranger.until("pong")] == ["pong"]


async def test_a_batch_is_told_once_and_a_repeated_request_not_at_all(node: RunningNode) -> None:
    async with socket(node) as owner:
        body = {"tasks": [ONE] * 1000}
        made = (await submit(node, body, **{"idempotency-key": "monday"})).json()
        await submit(node, body, **{"idempotency-key": "monday"})
        single = await one(node)
        first, second = await owner.hear("task"), await owner.hear("task")
        assert (first["event"], first["batch_id"], first["count"]) == ("queued", made["batch_id"], 1000)
        assert (second["event"], second["task"]["id"]) == ("queued", single)


async def test_the_pieces_of_a_streamed_task_reach_the_owners_sockets(
    node: RunningNode, other_node: RunningNode
) -> None:
    async with socket(other_node) as owner, working(node.settings):
        task_id = await one(node, **STREAMED)
        heard = await news(owner, "done")
    pieces = [told for told in heard if told["event"] == "delta"]
    assert "".join(told["text"] for told in pieces) == "Paris is the capital."
    assert {(told["task"]["id"], told["task"]["attempts"], told["agent"]) for told in pieces} == {
        (task_id, 1, "reasoning")
    }


async def test_the_events_of_a_task_that_is_over_are_its_end(node: RunningNode) -> None:
    task_id = await one(node)
    await node.http.delete(f"{TASKS}/{task_id}")
    async with following(node, task_id) as reader:
        assert reader.response.headers["content-type"] == "text/event-stream"
        (told,) = await reader.rest()
    assert (told.name, told.data["event"], told.data["task"]["status"]) == ("cancelled", "cancelled", "cancelled")


async def test_a_task_is_followed_from_the_queue_through_its_answer_to_its_end(
    node: RunningNode, other_node: RunningNode
) -> None:
    task_id = await one(node, **STREAMED)
    async with following(other_node, task_id) as reader, working(node.settings):
        told = await reader.rest()
    assert names(told) == ["queued", "started", "delta", "done"]
    pieces = [event for event in told if event.name == "delta"]
    assert 2 <= len(pieces) <= 4  # the model wrote for 0.8 s
    result = (await read(node, task_id))["result"]
    assert text_of(told) == result["answer"] == "Paris is the capital."
    assert all(event.id for event in told[1:])  # the first has one if this node knows its place by then
    assert told[-1].data["task"]["attempts"] == 1


async def test_a_streamed_task_leaves_what_one_that_is_not_would_leave(node: RunningNode) -> None:
    ids = [await one(node, task="whole"), await one(node, task="aloud", stream=True)]
    async with working(node.settings):
        whole, aloud = [(await until(node, task_id, "done"))["result"] for task_id in ids]
        assert whole | {"id": ""} == aloud | {"id": ""}
        again = (await node.http.post("/api/v1/chat", json=ONE | {"task": "aloud"})).headers["x-cache"]
    assert again == "HIT"
    rows = await node.rows("SELECT agent, model, tokens_in, tokens_out, cached, status FROM api_usage WHERE NOT cached")
    assert rows == [("reasoning", "good", 7, 4, False, 200)] * 2


async def test_of_several_agents_each_is_told_and_one_may_fail(
    database_url: str, redis_url: str, model_server: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "agents.toml").write_text(AGENTS)
    settings = node_settings(database_url, redis_url, model_server, agents_file=tmp_path / "agents.toml")
    body = {"agents": ["broken", "sound"], "task": "Why?", "stream": True}
    async with running(settings) as node:
        task_id = (await submit(node, body)).json()["ids"][0]
        async with following(node, task_id) as reader, working(settings):
            told = await reader.rest()
        broken, sound = (await read(node, task_id))["result"]["answers"]
    assert names(told)[-2:] == ["delta", "done"]
    assert text_of(told, "sound") == "Paris is the capital."
    assert (broken["agent"], broken["error"]["status"]) == ("broken", 502)
    assert (sound["agent"], sound["answer"]) == ("sound", "Paris is the capital.")


async def test_an_answer_that_is_known_comes_without_pieces(node: RunningNode) -> None:
    settings = node.settings.model_copy(update={"node_tasks": 1})
    async with running(settings) as knowing:
        await knowing.http.post("/api/v1/chat", json=ONE)
        async with socket(knowing) as owner:
            await one(knowing, stream=True)
            assert [told["event"] for told in await news(owner, "done")] == ["queued", "started", "done"]


async def test_a_cancelled_task_is_heard_and_its_models_stream_closed(
    node: RunningNode, model_server: Upstream
) -> None:
    task_id = await one(node, model="stalls", stream=True)
    async with following(node, task_id) as reader, working(node.settings):
        await reader.until("delta")
        await node.http.delete(f"{TASKS}/{task_id}")
        assert names(await reader.rest()) == ["cancelled"]
        await eventually(lambda: model_server.open == 0)


async def test_a_run_that_breaks_midway_is_queued_again_and_begins_anew(node: RunningNode) -> None:
    task_id = await one(node, model="dies", stream=True)
    settings = node.settings.model_copy(update={"task_tries": 2, "task_backoff": 0.01})
    async with following(node, task_id) as reader, working(settings):
        told = await reader.rest()
    states = [(event.name, event.data["task"]["attempts"]) for event in told if event.name != "delta"]
    assert states == [("queued", 0), ("started", 1), ("queued", 1), ("started", 2), ("failed", 2)]
    assert all(event.data["at"] == 0 for event in told if event.name == "delta")


async def test_a_worker_that_stops_gives_the_task_back_and_says_so(node: RunningNode) -> None:
    async with socket(node) as owner:
        task_id = await one(node, model="silent")
        async with working(node.settings.model_copy(update={"worker_drain": 0.1})):
            await until(node, task_id, "running")
        heard = await news(owner, "started") + await news(owner, "queued")
    assert [(told["event"], told["task"]["attempts"]) for told in heard] == [
        ("queued", 0),
        ("started", 1),
        ("queued", 0),
    ]


async def test_who_comes_back_with_the_last_id_is_told_the_rest(node: RunningNode, other_node: RunningNode) -> None:
    task_id = await one(node, **STREAMED)
    async with working(node.settings):
        async with following(node, task_id) as reader:
            first = await reader.until("delta")
        await until(node, task_id, "done")
        async with following(other_node, task_id, last_id=first[-1].id) as reader:
            rest = await reader.rest()
    assert names(first + rest) == ["queued", "started", "delta", "done"]
    assert text_of(first + rest) == "Paris is the capital."
    async with following(node, task_id, last_id=first[0].id) as reader:
        assert names(await reader.rest()) == ["started", "delta", "done"]


@pytest.mark.parametrize("last_id", ["nonsense", "1-0", "99999999999999-0"])
async def test_where_what_was_missed_cannot_be_known_the_state_is_told(node: RunningNode, last_id: str) -> None:
    task_id = await one(node)
    async with following(node, task_id, last_id) as reader:
        told = await reader.next()
    assert told is not None
    assert (told.name, told.data["task"]["status"]) == ("queued", "queued")


async def test_who_comes_back_to_what_ended_unheard_is_told_the_end(
    node: RunningNode, database_url: str, model_server: Upstream
) -> None:
    task_id = await one(node)
    async with following(node, task_id) as reader:
        told = await reader.next()
    assert told is not None
    async with working(node_settings(database_url, "", model_server)):  # a worker without Redis
        await until(node, task_id, "done")
    async with following(node, task_id, told.id) as reader:
        assert names(await reader.rest()) == ["done"]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_with_redis_gone_midway_the_end_still_comes(
    impatient: None, database_url: str, own_valkey: OwnValkey, model_server: Upstream, how: str
) -> None:
    settings = node_settings(database_url, own_valkey.url, model_server)
    async with running(settings) as node, working(settings):
        task_id = await one(node, **STREAMED)
        async with following(node, task_id) as reader:
            await reader.until("started")
            if how == "killed":
                await own_valkey.kill()
            else:
                own_valkey.freeze()
            told = await reader.rest()
            done = await read(node, task_id)
    assert told[-1].name == "done"
    assert told[-1].data["task"]["id"] == task_id
    assert (done["attempts"], done["result"]["answer"]) == (1, "Paris is the capital.")


async def test_a_stream_outlives_postgresql(
    impatient: None, own_postgres: OwnPostgres, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(own_postgres.dsn, redis_url, model_server)) as node:
        task_id = await one(node)
        async with following(node, task_id) as reader:
            await reader.until("queued")
            await own_postgres.kill()
            assert await reader.line() == reader.COMMENT
            await own_postgres.restart()
            await eventually(lambda: cancelled(node, task_id), within_s=10)
            assert names(await reader.rest()) == ["cancelled"]


async def cancelled(node: RunningNode, task_id: str) -> bool:
    return (await node.http.delete(f"{TASKS}/{task_id}")).status_code == 200


async def test_a_quiet_stream_says_that_it_is_alive(impatient: None, node: RunningNode) -> None:
    task_id = await one(node)
    async with following(node, task_id) as reader:
        await reader.until("queued")
        assert await reader.line() == reader.COMMENT


async def test_a_revoked_key_ends_the_stream_with_a_word(node: RunningNode) -> None:
    key = await node.new_key("chat")
    task_id = await one(node)
    async with following(node, task_id, key=key) as reader:
        await reader.until("queued")
        assert (await node.http.delete(f"/api/v1/keys/{key[9:17]}")).status_code == 204
        (told,) = await reader.rest()
    assert (told.name, told.data["status"], told.data["reason"]) == ("error", 401, "revoked")


async def test_another_users_task_and_one_that_is_not_there_are_both_404(node: RunningNode) -> None:
    await node.new_user("mallory")
    mallory = await node.new_key("chat", user="mallory")
    for task_id in (await one(node), NOBODYS):
        async with following(node, task_id, key=mallory) as reader:
            assert reader.response.status_code == 404
            assert reader.response.headers["content-type"] == "application/problem+json"


async def test_it_counts_as_one_of_the_keys_streams_until_it_ends(
    database_url: str, redis_url: str, model_server: Upstream
) -> None:
    async with running(node_settings(database_url, redis_url, model_server, streams_per_key=1)) as node:
        task_id = await one(node)
        async with following(node, task_id) as reader:
            await reader.until("queued")
            async with following(node, task_id) as refused:
                assert refused.response.status_code == 429
        await eventually(lambda: follows(node, task_id))


async def follows(node: RunningNode, task_id: str) -> bool:
    async with following(node, task_id) as reader:
        return reader.response.status_code == 200


async def test_a_node_that_drains_ends_the_stream_so_that_the_client_goes_to_another(
    node: RunningNode, other_node: RunningNode
) -> None:
    task_id = await one(node)
    async with following(node, task_id) as reader:
        (told,) = await reader.until("queued")
        await node.parts.let_go()
        assert await reader.rest() == []
    async with following(node, task_id) as reader:  # it is told, and may not stay
        assert names(await reader.rest()) == ["queued"]
    async with following(other_node, task_id, told.id) as reader, working(node.settings):
        assert names(await reader.rest()) == ["started", "done"]


async def test_a_node_that_an_administrator_drains_ends_it_too(node: RunningNode) -> None:
    task_id = await one(node)
    async with following(node, task_id) as reader:
        await reader.until("queued")
        assert (await node.http.post("/api/admin/drain", params={"rate": 100})).status_code == 202
        assert await reader.rest() == []


def say(redis_url: str, owner: str, payload: dict[str, Any], times: int = 1) -> None:
    """On the bus, as another process would."""
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for _ in range(times):
            push = Push(type="task", users=frozenset({owner}), payload=payload, expires_at_ms=FAR_MS)
            pipeline.xadd(STREAM, {FIELD: encode(push)})
        pipeline.execute()


async def owner_of(node: RunningNode, task_id: str) -> str:
    ((owner,),) = await node.rows(f"SELECT user_id FROM tasks WHERE id = '{task_id}'")  # noqa: S608 - our own id
    return str(owner)


async def test_what_older_nodes_say_has_the_row_looked_at(node: RunningNode, redis_url: str) -> None:
    task_id = await one(node)
    async with following(node, task_id) as reader:
        await reader.until("queued")
        await node.rows(f"UPDATE tasks SET status = 'done' WHERE id = '{task_id}' RETURNING id")  # noqa: S608
        say(redis_url, await owner_of(node, task_id), {"task": {"id": task_id, "status": "done"}})
        assert names(await reader.rest()) == ["done"]


async def test_what_comes_late_from_the_queue_does_not_take_a_running_task_back(
    node: RunningNode, redis_url: str
) -> None:
    task_id = await one(node, model="silent")
    async with working(node.settings.model_copy(update={"worker_drain": 0.1})), following(node, task_id) as reader:
        await until(node, task_id, "running")
        owner, about = await owner_of(node, task_id), {"id": task_id, "status": "queued", "attempts": 0}
        say(redis_url, owner, {"event": "queued", "task": about})
        say(redis_url, owner, {"event": "delta", "task": {"id": task_id}, "agent": "a", "text": "t", "at": 0})
        told = await reader.until("delta")
    assert names(told)[-2:] == ["started", "delta"]


async def test_a_reader_that_is_too_slow_is_let_go_and_may_come_back(node: RunningNode, redis_url: str) -> None:
    task_id = await one(node)
    owner, text = await owner_of(node, task_id), "x" * 15_000
    async with following(node, task_id) as reader:
        await reader.until("queued")
        payload = {"event": "delta", "task": {"id": task_id}, "agent": "a", "text": text, "at": 0}
        await asyncio.to_thread(say, redis_url, owner, payload, 1000)  # more than all buffers between us take
        await eventually(lambda: received(node, 1000))
        told = await reader.rest()
    assert names(told) == ["delta"]
    assert len(told) < 1000
    async with following(node, task_id, told[-1].id) as reader:
        again = await reader.next()
    assert again is not None
    assert again.name == "delta"


async def received(node: RunningNode, messages: int) -> bool:
    return await node.metric('atp_bus_messages_total{direction="received"}') >= messages
