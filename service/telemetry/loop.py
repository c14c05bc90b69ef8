"""How late the event loop is: the first thing to look at when everything is slow."""

import asyncio

from service.telemetry.metrics import Metrics

EVERY_S = 0.5


async def watch_loop(metrics: Metrics) -> None:
    """Observe the lateness of a timer for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
