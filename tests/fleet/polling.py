"""Asking nodes the same thing again and again while something else happens to them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from service.background import end
from tests.processes import NodeProcess

EVERY_S = 0.1


@dataclass(frozen=True)
class Polled:
    """One answer. `at` is when it was asked for, on the monotonic clock."""

    status: int
    body: Any
    at: float
    took_s: float


@asynccontextmanager
async def polled(nodes: Sequence[NodeProcess], path: str) -> AsyncIterator[list[Polled]]:
    """Ask each node until the block ends; a request that gets no answer fails the test."""
    answers: list[Polled] = []
    asking = [asyncio.create_task(ask(node, path, answers)) for node in nodes]
    try:
        yield answers
        for task in asking:
            assert not task.done(), task.exception()
    finally:
        await end(*asking)


async def ask(node: NodeProcess, path: str, answers: list[Polled]) -> None:
    while True:
        started = time.monotonic()
        answer = await node.http.get(path)
        answers.append(Polled(answer.status_code, answer.json(), started, time.monotonic() - started))
        await asyncio.sleep(EVERY_S)
