"""A scrape of a process that exports as much as one may: how long it takes, and how long the event loop stands still.

Every metric that is bounded has all that it may have, and each bucket of them an exemplar. While the real
route answers in OpenMetrics, a timer of 1 ms tells how late the loop is.

Run: python -m bench.scrape_load [seconds]
"""

import asyncio
import json
import statistics
import sys
import time

import httpx2
import uvloop
from starlette.applications import Starlette

from service.routes.health import PrivateRoutes
from service.serving import tune_interpreter
from service.telemetry.metrics import Metrics

TICK_S = 0.001
SECONDS = 4.0
ACCEPT = {"accept": "application/openmetrics-text"}
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c"}

Figures = dict[str, float]


def filled(values: int) -> Metrics:
    """A process's metrics after so many routes, operations and models; 100 of each are more than are kept apart."""
    metrics = Metrics()
    for number in range(values):
        for child in (
            *(metrics.http_durations("GET", f"/{number}", status) for status in (200, 404, 503)),
            metrics.db_durations("redis", f"operation-{number}"),
            metrics.model_durations("chat", "openai", f"model-{number}", ""),
            metrics.model_token_counts("chat", "openai", f"model-{number}", "input"),
            metrics.model_first_chunks("openai", f"model-{number}"),
        ):
            for le in child._upper_bounds:
                child.observe(le, TRACE)
    return metrics


class Stall:
    """The longest that a timer was late while it was watched, in ms."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)  # the timer that is watched
            self.longest_ms = max(self.longest_ms, 1000 * (loop.time() - due))


async def scrapes(metrics: Metrics, seconds: float) -> Figures:
    app = Starlette(routes=PrivateRoutes(metrics, lambda: False, dict).routes())
    stall, took_ms, stalls_ms, body = Stall(), [], [], ""
    watching = asyncio.create_task(stall.watch())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://node") as http:
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            await asyncio.sleep(0.05)  # what the last scrape left to the collector is not this one's
            stall.longest_ms, began = 0.0, time.perf_counter()
            body = (await http.get("/metrics", headers=ACCEPT)).text
            took_ms.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(2 * TICK_S)  # a tick that was under way is late only now
            stalls_ms.append(stall.longest_ms)
    watching.cancel()
    series = sum(not line.startswith("#") for line in body.splitlines())
    return {"series": series, "ms": statistics.median(took_ms), "stall_ms": max(stalls_ms)}


async def measure(seconds: float) -> Figures:
    figures: Figures = {}
    for name, values in (("least", 0), ("most", 100)):
        found = await scrapes(filled(values), seconds / 2)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures


if __name__ == "__main__":
    tune_interpreter()
    print(json.dumps(uvloop.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))))
