"""Waiting for a condition, with a deadline; never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 5.0) -> float:
    """Poll until the condition holds; returns the seconds it took, fails after `within_s`."""
    started = time.monotonic()
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        took = time.monotonic() - started
        if held:
            return took
        assert took < within_s, f"the condition did not hold within {within_s} s"
        await asyncio.sleep(0.01)
