"""The one breaker that watches Redis: it opens in under a second and notices recovery in under five.

A call's failure and a failed probe count alike, so that an idle node learns of an outage too. While open nothing is
sent to Redis but the probe; callers use memory at once instead of waiting for a timeout each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from service.errors import StateUnavailable

log = structlog.get_logger()

# Worst case until open: one interval, then two probes of REDIS_REQUEST_TIMEOUT each: 0.25 + 2 * 0.3 = 0.85 s.
PROBE_EVERY_S = 0.25
FAILURES_TO_OPEN = 2
SUCCESSES_TO_CLOSE = 2
HOOK_TIMEOUT_S = 5.0

Probe = Callable[[], Awaitable[None]]
Hook = Callable[[], Awaitable[None]]


class Gauge(Protocol):
    def set(self, value: float) -> None: ...


class Breaker:
    """Closed: Redis is used. Open: memory stands in.

    1. FAILURES_TO_OPEN failures in a row, of calls or probes, open it.
    2. SUCCESSES_TO_CLOSE probes in a row close it, so new calls go to Redis again; then every recovery hook runs
       (re-register, republish). It counts as degraded until they are done; a hook that fails opens it again.
    """

    def __init__(self, probe: Probe, up: Gauge, degraded: Gauge, every_s: float = PROBE_EVERY_S) -> None:
        self._probe, self._up, self._degraded, self._every_s = probe, up, degraded, every_s
        self._hooks: list[Hook] = []
        self._failures = self._successes = 0
        self.closed = True
        up.set(1)
        degraded.set(0)

    def on_recovery(self, hook: Hook) -> None:
        """Run `hook` each time Redis is back; it must be safe to repeat."""
        self._hooks.append(hook)

    def failed(self, reason: str) -> None:
        """Count one failed call or probe."""
        self._failures += 1
        self._successes = 0
        if self.closed and self._failures >= FAILURES_TO_OPEN:
            self._open(reason)

    def succeeded(self) -> None:
        """Count one answered call."""
        self._failures = 0

    async def run(self) -> None:
        """Probe for ever; owned by the composition root."""
        while True:
            await self.probe()
            if self._failures != 1:  # the first failure is checked again at once
                await asyncio.sleep(self._every_s)

    async def probe(self) -> None:
        """Ask Redis once and act on the answer."""
        try:
            await self._probe()
        except StateUnavailable as error:
            self.failed(str(error))
            return
        self.succeeded()
        if not self.closed:
            self._successes += 1
            if self._successes >= SUCCESSES_TO_CLOSE:
                await self._recover()

    def _open(self, reason: str) -> None:
        self.closed = False
        self._up.set(0)
        self._degraded.set(1)
        log.error("redis.degraded", reason=reason, mode="memory")

    async def _recover(self) -> None:
        self.closed = True
        self._successes = 0
        try:
            async with asyncio.timeout(HOOK_TIMEOUT_S):
                for hook in self._hooks:
                    await hook()
        except (StateUnavailable, TimeoutError) as error:
            self._open(f"recovery failed: {error or type(error).__name__}")
            return
        self._up.set(1)
        self._degraded.set(0)
        log.info("redis.recovered")
