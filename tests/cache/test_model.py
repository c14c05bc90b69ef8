"""Any order of questions, failures, torn values, flushes and outages over two nodes: never another's value, an error,
a torn value, or one that a flush has ended."""

import asyncio
import os
import time
from contextlib import AsyncExitStack

import hypothesis.strategies as st
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from service.cache.entry import digest, name_of
from service.cache.flushes import SKEW_MS
from service.errors import StateUnavailable, UpstreamError
from tests.cache.nodes import CacheNode, Call, cache_node
from tests.waiting import eventually

EXAMPLES = int(os.environ.get("ATP_MODEL_EXAMPLES", "25"))

keys, agents, picks = st.sampled_from("abc"), st.sampled_from(["sound", "coding"]), st.integers(0, 1)


class Questions(RuleBasedStateMachine):
    """An answer says what it answers, and its number twice, so that one which lost a byte shows: `a/sound/7/7.`

    `least` is the lowest number that no flush has ended.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner, self.stack, self.url = asyncio.Runner(), AsyncExitStack(), url
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        self.number = 0
        self.passed_at = 0.0
        self.least = {"sound": 0, "coding": 0}
        self.nodes = [self.start(), self.start()]
        self.cut = [False, False]

    def start(self) -> CacheNode:
        return self.runner.run(self.stack.enter_async_context(cache_node(self.url)))

    def question(self, key: str, agent: str) -> tuple[str, Call]:
        self.number += 1
        return f"{key}/{agent}", Call("piece", f"{key}/{agent}/{self.number}/{self.number}.")

    @rule(pick=picks, key=keys, agent=agents, readers=st.integers(1, 3))
    def ask(self, pick: int, key: str, agent: str, readers: int) -> None:
        asked, call = self.question(key, agent)
        node = self.nodes[pick]

        async def all_of_them() -> list[tuple[str, str]]:
            answers = await asyncio.gather(*(node.ask(asked, call, groups=(agent,)) for _ in range(readers)))
            await eventually(lambda: not node.flights._tasks)  # it is stored after it was answered
            return answers

        for answer, _ in self.runner.run(all_of_them()):
            said, number, again = answer.rsplit("/", 2)
            assert (said, f"{number}.") == (asked, again)
            assert int(number) >= self.least[agent]
        # Until a node's clock has passed the moment of a flush, nothing is kept, nor shared.
        assert call.begun <= (1 if time.monotonic() > self.passed_at else readers)

    @rule(pick=picks, key=keys, agent=agents)
    def ask_for_a_new_one(self, pick: int, key: str, agent: str) -> None:
        asked, call = self.question(key, agent)
        answer, source = self.runner.run(self.nodes[pick].ask(asked, call, groups=(agent,), read=False))
        assert (answer, source) == (f"{asked}/{self.number}/{self.number}.", "bypass")

    @rule(pick=picks, key=keys, agent=agents)
    def a_call_fails(self, pick: int, key: str, agent: str) -> None:
        asked, call = self.question(key, agent)
        call.failure = UpstreamError()

        async def attempt() -> str:
            try:
                return (await self.nodes[pick].ask(asked, call, groups=(agent,)))[0]
            except UpstreamError:
                return f"{asked}/-/-."

        assert self.runner.run(attempt()).rsplit("/", 2)[0] == asked

    @rule(pick=picks, key=keys, agent=agents, lost_bytes=st.integers(1, 20))
    def a_value_is_torn(self, pick: int, key: str, agent: str, lost_bytes: int) -> None:
        self.ask(pick, key, agent, 1)
        name = name_of("agent_response", digest(f"{key}/{agent}"))
        if value := self.client.get(name):
            self.client.set(name, value[:-lost_bytes], px=60_000)
        self.forget(name)
        self.ask(1 - pick, key, agent, 2)

    @rule(pick=picks, key=keys, agent=agents, place=st.integers(1, 100), change=st.integers(1, 7))
    def a_byte_of_a_value_changes(self, pick: int, key: str, agent: str, place: int, change: int) -> None:
        self.ask(pick, key, agent, 1)
        name = name_of("agent_response", digest(f"{key}/{agent}"))
        if value := bytearray(self.client.get(name) or b""):
            value[-min(place, len(value))] ^= change
            self.client.set(name, bytes(value), px=60_000)
        self.forget(name)
        self.ask(1 - pick, key, agent, 2)

    @rule(one=keys, other=keys, agent=agents)
    def a_value_lies_under_anothers_name(self, one: str, other: str, agent: str) -> None:
        names = [name_of("agent_response", digest(f"{key}/{agent}")) for key in (one, other)]
        self.client.copy(*names, replace=True) if one != other else None
        self.forget(names[1])

    @rule()
    def memories_are_lost(self) -> None:
        for key in "abc":
            for agent in self.least:
                self.forget(name_of("agent_response", digest(f"{key}/{agent}")))

    @rule(pick=picks, agent=st.sampled_from(["sound", "coding", None]))
    def flush(self, pick: int, agent: str | None) -> None:
        moment = self.runner.run(self.nodes[pick].flushes.flush(agent)).before_ms
        for node in self.nodes:
            node.flushes.heard(agent, moment)
        self.passed_at = time.monotonic() + 2 * SKEW_MS / 1000
        for name in [agent] if agent else list(self.least):
            self.least[name] = self.number + 1

    @rule(pick=picks)
    def a_node_loses_redis(self, pick: int) -> None:
        self.nodes[pick].ground.breaker.closed = False
        self.cut[pick] = True

    @rule(pick=picks)
    def a_node_has_redis_again(self, pick: int) -> None:
        self.nodes[pick].ground.breaker.closed = True
        self.runner.run(self.read_moments(self.nodes[pick]))

    async def read_moments(self, node: CacheNode) -> None:
        try:
            await node.flushes.recovered()
        except StateUnavailable:
            return

    @rule()
    def redis_is_emptied(self) -> None:
        self.client.flushall()

    def forget(self, name: str) -> None:
        for node in self.nodes:
            node.cache.drop_near(name)

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.client.close()


def test_no_order_of_events_serves_what_it_should_not(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: Questions(redis_url),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
