"""Redis lost by one node, or by all: who has a socket misses nothing, and the counts are right again soon."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.fleet.crowd import broadcast, crowd, on_each
from tests.fleet.polling import polled
from tests.live.proxy import Proxy, proxied
from tests.processes import Fleet, NodeProcess
from tests.servers import OwnValkey
from tests.waiting import eventually

EVERY_S = 1 / 150
AT_ONCE = 30
BURST = 30
NOTICED_S = 1.0  # from the loss of Redis until nodes say so


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with proxied(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def uneven_fleet(database_url: str, redis_url: str, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Three nodes, the last of which reaches Redis through the proxy."""
    fleet = Fleet(tmp_path / "fleet", database_url, [redis_url, redis_url, proxy.url])
    try:
        await fleet.start()
        async with fleet.in_use():
            yield fleet
    finally:
        await fleet.kill()


async def say(node: NodeProcess) -> tuple[str, bool]:
    """One broadcast: its id, and whether it was told as degraded."""
    said = await broadcast(node, expires_s=300)
    return said["id"], said["degraded"]


async def talk(nodes: list[NodeProcess], broadcasts: int) -> list[tuple[str, bool]]:
    """So many broadcasts from the nodes in turn, at a steady rate."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def say_in_turn(node: NodeProcess) -> tuple[str, bool]:
        async with turns:
            return await say(node)

    saying = []
    async with asyncio.TaskGroup() as group:
        for _, node in zip(range(broadcasts), itertools.cycle(nodes), strict=False):
            saying.append(group.create_task(say_in_turn(node)))
            await asyncio.sleep(EVERY_S)
    return [task.result() for task in saying]


async def burst(node: NodeProcess) -> "asyncio.Future[list[tuple[str, bool]]]":
    """BURST broadcasts at once, most of them under way when this returns."""
    saying = [asyncio.create_task(say(node)) for _ in range(BURST)]
    await asyncio.wait(saying, return_when=asyncio.FIRST_COMPLETED)
    return asyncio.gather(*saying)


def cut(proxy: Proxy) -> None:
    proxy.cut()


def swallow(proxy: Proxy) -> None:
    """The worst: Redis does what it is told, and the node never learns of it."""
    proxy.swallowing = True


@pytest.mark.parametrize(("fault", "outage_s", "broadcasts"), [(cut, 5.0, 1000), (swallow, 2.0, 400)])
async def test_a_node_without_redis_for_seconds_costs_no_socket_a_broadcast_and_doubles_none(
    uneven_fleet: Fleet, proxy: Proxy, fault: Callable[[Proxy], None], outage_s: float, broadcasts: int
) -> None:
    cut_off = uneven_fleet.nodes[2]
    user_id, key = await uneven_fleet.user("ana")
    disconnecting = f"/api/admin/users/{user_id}/disconnect"
    listeners = on_each(uneven_fleet.nodes, 4)
    async with crowd(*listeners, *on_each(uneven_fleet.nodes, 2, key)) as members:
        anas = members[12:]
        await uneven_fleet.until_counted(18, 3)
        started = time.monotonic()
        talking = asyncio.create_task(talk(uneven_fleet.nodes, broadcasts))
        await eventually(lambda: all(len(member.heard) >= 50 for member in listeners))

        under_way = await burst(cut_off)
        fault(proxy)
        cut_at = time.monotonic()
        await eventually(lambda: says_degraded(cut_off))
        answer = await cut_off.http.post(disconnecting, json={"reason": "from afar"})
        assert (answer.status_code, answer.json()["degraded"]) == (200, True)
        await asyncio.sleep(cut_at + outage_s - time.monotonic())  # the outage itself
        assert [member.ended for member in anas] == [None] * 4 + [(4002, "from afar")] * 2
        proxy.mend()
        mended_at = time.monotonic()

        await eventually(lambda: all(member.ended for member in anas))
        assert {member.ended for member in anas} == {(4002, "from afar")}
        closed_s = max(member.ended_at for member in anas) - mended_at
        told = [*await talking, *await under_way]
        said, degraded = [id_ for id_, _ in told], sum(degraded for _, degraded in told)
        talked_s = time.monotonic() - started
        await eventually(lambda: all(len(member.heard) >= len(said) for member in listeners), 15)
        lost = sum(len(set(said) - set(member.ids())) for member in listeners)
        doubled = sum(len(member.doubled()) for member in listeners)
        whole_s = max(message["at"] for member in listeners for message in member.heard) - mended_at
        repeated = await uneven_fleet.nodes[0].metric('atp_bus_messages_total{direction="duplicate"}')
        print(
            f"{len(said)} broadcasts in {talked_s:.1f} s, {degraded} without Redis, {repeated:.0f} said again: ", end=""
        )
        print(f"{lost} lost, {doubled} doubled; after the heal the last came in {whole_s:.1f} s, ", end="")
        print(f"the disconnect in {closed_s:.2f} s")
        assert (len(set(said)), lost, doubled) == (broadcasts + BURST, 0, 0)
        assert degraded >= broadcasts // 20
        assert closed_s < 5
        await uneven_fleet.until_counted(12, 10)


async def says_degraded(node: NodeProcess) -> bool:
    return bool((await node.online())["degraded"])


async def test_redis_gone_and_back_empty_is_no_error_for_rest_and_the_counts_are_exact_in_ten_seconds(
    fleet: Fleet, fleet_valkey: OwnValkey
) -> None:
    async with (
        crowd(*on_each(fleet.nodes, 20)) as members,
        polled(fleet.nodes, "/api/v1/models") as models,
        polled(fleet.nodes, "/api/admin/stats/online-users") as stats,
    ):
        await fleet.until_counted(60, 3)
        killed_at = time.monotonic()
        await fleet_valkey.kill()
        noticed = killed_at + NOTICED_S
        await eventually(lambda: sum(answer.at > noticed for answer in stats) >= 15)
        back_at = time.monotonic()
        await fleet_valkey.restart()
        took = await fleet.until_counted(60, 10)
        print(f"Redis back empty: three counts of 60 are exact after {took:.1f} s, ", end="")
        print(f"{len(models) + len(stats)} GETs meanwhile")
        said = await broadcast(fleet.nodes[1])
        await eventually(lambda: all(said["id"] in member.ids() for member in members))
        assert [member.ended for member in members if member.ended] == []
    assert {answer.status for answer in (*models, *stats)} == {200}
    away = [answer.body for answer in stats if answer.at > noticed and answer.at + answer.took_s < back_at]
    assert len(away) >= 10
    assert {(body["sockets"], body["degraded"]) for body in away} == {(20, True)}
