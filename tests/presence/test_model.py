"""Any order of joins, heartbeats, deaths, flushes, outages and clock jumps: once healed, the counts are exact."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from service.presence.leases import LEASES
from service.presence.tracker import Tracker
from tests.presence.nodes import Clocks, Given, Nodes, pass_in_redis

EXAMPLES = int(os.environ.get("ATP_MODEL_EXAMPLES", "40"))
NODES_MAX = 4
TTL_S = 60
# Two of them end a REST session, one does not.
PASSING_S = 31

users = st.sampled_from(["ana", "bob", "cid"])
# A REST client's device is told by its name, so that the truth does not depend on which node spoke last.
rest_names = st.sampled_from(["mobile", "tablet"])
devices = st.sampled_from(["mobile", "tablet", "desktop", "unknown"])
picks = st.integers(0, 1000)
Rest = tuple[str, str]


@dataclass(eq=False)
class Living:
    """A node, and what the model knows of it. `heard`: REST session -> its end."""

    tracker: Tracker
    wall_offset: list[float]
    sockets: dict[str, tuple[str, str]] = field(default_factory=dict)
    heard: dict[Rest, float] = field(default_factory=dict)
    cut: bool = False
    lost: bool = False

    def in_memory(self, now: float) -> tuple[int, int]:
        """Online users and sessions as this node alone knows them."""
        rest = [name for name, ends in self.heard.items() if ends > now]
        online = {user for user, _ in self.sockets.values()} | {user for user, _ in rest}
        return len(online), len(self.sockets) + len(rest)


class Fleet(RuleBasedStateMachine):
    """`known`: the REST sessions that Redis has been told of, with their ends on the model's clock."""

    def __init__(self, url: str, shards: int) -> None:
        super().__init__()
        self.url, self.shards, self.now, self.number = url, shards, 1000.0, 0
        self.runner, self.stack = asyncio.Runner(), AsyncExitStack()
        self.nodes = Nodes(self.stack)
        self.living: list[Living] = []
        self.known: dict[Rest, float] = {}
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        self.start_node()

    def run(self, work: Coroutine[None, None, object]) -> object:
        return self.runner.run(work)

    def node(self, pick: int) -> Living:
        return self.living[pick % len(self.living)]

    @precondition(lambda self: len(self.living) < NODES_MAX)
    @rule()
    def start_node(self) -> None:
        offset = [0.0]
        clocks = Clocks(lambda: time.time() + offset[0], lambda: self.now)
        given = Given(self.shards, beat=False, watch=False, clocks=clocks)
        self.living.append(Living(self.runner.run(self.nodes.start(self.url, given)), offset))

    @precondition(lambda self: self.living)
    @rule(pick=picks)
    def kill_node(self, pick: int) -> None:
        """It says nothing more, and its lease ends."""
        dead = self.living.pop(pick % len(self.living))
        self.client.zadd(LEASES, {dead.tracker._owner: 1}, xx=True)

    @precondition(lambda self: self.living)
    @rule(pick=picks, coming=st.lists(st.tuples(users, devices), min_size=1, max_size=4))
    def connect(self, pick: int, coming: list[tuple[str, str]]) -> None:
        node, calls = self.node(pick), list[Coroutine[None, None, None]]()
        for user, device in coming:
            self.number += 1
            node.sockets[f"s{self.number}"] = (user, device)
            calls.append(node.tracker.add_user(user, f"s{self.number}", "c", device))
        self.run(together(calls))

    @precondition(lambda self: any(node.sockets for node in self.living))
    @rule(pick=picks, count=st.integers(1, 3))
    def drop(self, pick: int, count: int) -> None:
        node = [node for node in self.living if node.sockets][pick % sum(bool(node.sockets) for node in self.living)]
        leaving = list(node.sockets)[:count]
        for name in leaving:
            del node.sockets[name]
        self.run(together([node.tracker.remove_user(name) for name in leaving]))

    @precondition(lambda self: self.living)
    @rule(pick=picks, user=users, name=rest_names)
    def heartbeat(self, pick: int, user: str, name: str) -> None:
        node, ends = self.node(pick), self.now + TTL_S
        node.heard[user, name] = ends
        if not node.cut:
            self.known[user, name] = ends
        self.run(node.tracker.heartbeat(user, name, "c", name))

    @precondition(lambda self: self.living)
    @rule(pick=picks, user=users, name=rest_names)
    def end_heartbeat(self, pick: int, user: str, name: str) -> None:
        node = self.node(pick)
        node.heard.pop((user, name), None)
        if not node.cut:
            self.known.pop((user, name), None)
        self.run(node.tracker.end_heartbeat(name, user))

    @rule()
    def flush(self) -> None:
        self.client.flushall()
        self.known.clear()
        for node in self.living:
            node.lost = True

    @precondition(lambda self: self.living)
    @rule(pick=picks)
    def outage(self, pick: int) -> None:
        node = self.node(pick)
        self.nodes.cut(node.tracker)
        node.cut = True

    @rule()
    def time_passes(self) -> None:
        self.now += PASSING_S
        for shard in range(self.shards):
            pass_in_redis(self.client, shard, PASSING_S)

    @precondition(lambda self: self.living)
    @rule(pick=picks, jump_s=st.sampled_from([3600, -3600]))
    def clock_jumps(self, pick: int, jump_s: int) -> None:
        self.node(pick).wall_offset[0] += jump_s

    @precondition(lambda self: self.living)
    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        node = self.node(pick)
        self.run(node.tracker.beat())
        if node.lost and not node.cut:
            self.has_begun(node)

    @rule()
    def heal(self) -> None:
        """Redis is back for everybody and each node beats; then the fleet is what the model says."""
        if not self.living:
            self.start_node()
        for node in self.living:
            if node.cut:
                stats = self.runner.run(node.tracker.get_stats())
                assert (stats["online_users"], stats["sessions"]) == node.in_memory(self.now)
            self.run(self.nodes.mend(node.tracker))
            self.run(node.tracker.beat())
            if node.cut or node.lost:
                self.has_begun(node)
        self.run(together([node.tracker.beat() for node in self.living]))
        self.known = {name: ends for name, ends in self.known.items() if ends > self.now}
        self.run(self.compare())

    def has_begun(self, node: Living) -> None:
        """What it remembers is told to Redis again."""
        node.cut = node.lost = False
        for name, ends in node.heard.items():
            if ends > self.now:
                self.known[name] = max(ends, self.known.get(name, 0))

    async def compare(self) -> None:
        sockets = [socket for node in self.living for socket in node.sockets.values()]
        numbers = Counter(user for user, _ in sockets), Counter(user for user, _ in self.known)
        by_device = Counter([device for _, device in sockets] + [name for _, name in self.known])
        for node in self.living:
            stats = await node.tracker.get_stats()
            assert stats["online_users"] == len({*numbers[0], *numbers[1]})
            assert (stats["sessions"], stats["sockets"]) == (len(sockets) + len(self.known), len(sockets))
            assert {device: number for device, number in stats["devices"].items() if number} == by_device
            assert (stats["nodes"], stats["degraded"]) == (len(self.living), False)
            assert [await node.tracker.audit(), await node.tracker.audit()] == [0, 0]
            page = (await node.tracker.online_page()).result
            expected = [(user, numbers[0][user], numbers[1][user]) for user in {*numbers[0], *numbers[1]}]
            assert sorted(page.users) == sorted(expected)

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.run(self.stack.aclose())
            self.runner.close()
            self.client.close()


async def together(calls: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*calls)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shards", [1, 3])
def test_whatever_happened_the_healed_fleet_is_exact(redis_url: str, shards: int) -> None:
    run_state_machine_as_test(
        lambda: Fleet(redis_url, shards),  # type: ignore[arg-type]
        settings=settings(
            max_examples=EXAMPLES // 2,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
