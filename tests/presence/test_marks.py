"""`degraded` says who answered: the fleet's counters, or this node alone."""

import pytest
import redis

from service.presence.tracker import Tracker
from tests.presence.nodes import Given, Nodes
from tests.servers import OwnValkey
from tests.waiting import eventually


async def marks(node: Tracker) -> list[bool]:
    """Of everything that can be asked."""
    asked = await node.sockets(), await node.online_page(), await node.nodes()
    return [(await node.get_stats())["degraded"], *(answered.degraded for answered in asked)]


async def test_without_redis_every_answer_is_of_this_node_alone(nodes: Nodes) -> None:
    assert await marks(await nodes.start()) == [True] * 4


async def test_the_first_answer_after_redis_fell_silent_is_marked(own_valkey: OwnValkey, nodes: Nodes) -> None:
    node = await nodes.start(own_valkey.url, Given(beat=False, watch=False), redis_request_timeout=0.3)
    await node.add_user("ana", "s1", "c")
    assert await marks(node) == [False] * 4
    own_valkey.freeze()
    stats = await node.get_stats()
    own_valkey.thaw()
    assert (stats["online_users"], stats["degraded"]) == (1, True)


@pytest.mark.usefixtures("quick")
async def test_an_idle_node_notices_that_redis_refuses_its_lease(own_valkey: OwnValkey, nodes: Nodes) -> None:
    node = await nodes.start(own_valkey.url)
    await node.add_user("ana", "s1", "c")
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
        await eventually(lambda: not nodes.breakers[node].closed)
        stats = await node.get_stats()
        assert (stats["online_users"], stats["nodes"], stats["degraded"]) == (1, 1, True)
        client.config_set("maxmemory", 0)

    async def whole() -> bool:
        stats = await node.get_stats()
        return (stats["online_users"], stats["nodes"], stats["degraded"]) == (1, 1, False)

    assert await eventually(whole, within_s=6) < 5.0
