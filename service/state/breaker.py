"""The one breaker that watches Redis: it opens in under a second and notices recovery in under five.

A call's failure and a failed probe count alike, so that an idle node learns of an outage too. While open nothing is
sent to Redis but the probe; callers use memory at once instead of waiting for a timeout each.

A Redis that is full, or may not write to its disk, answers every ping and refuses every write. So a refused call has
the next probe try a write, and while open a write must be accepted before Redis is used again. One key of a wrong type
is refused too, but the probe's write is not: then the calls that need this key are alone in using memory.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from service.errors import StateRejected, StateUnavailable

log = structlog.get_logger()

# Worst case until open: one interval, then two probes of REDIS_REQUEST_TIMEOUT each: 0.25 + 2 * 0.3 = 0.85 s.
PROBE_EVERY_S = 0.25
# The pause doubles up to this after each refused write and each recovery that failed: both are a line in the log, and
# two answers this far apart are still under five seconds.
PROBE_SELDOM_S = 2.0
FAILURES_TO_OPEN = 2
SUCCESSES_TO_CLOSE = 2
HOOK_TIMEOUT_S = 5.0

Probe = Callable[[], Awaitable[None]]
Hook = Callable[[], Awaitable[None]]


class Gauge(Protocol):
    def set(self, value: float) -> None: ...


async def unwritten() -> None:
    """Where refusals are not looked into."""


class Breaker:
    """Closed: Redis is used. Open: memory stands in. `write` is a small write, tried when Redis has refused a call.

    1. FAILURES_TO_OPEN failures in a row, of calls or probes, open it; so does a refused write after a refused call.
    2. SUCCESSES_TO_CLOSE probes in a row, each with its write, close it, so new calls go to Redis again; then every
       recovery hook runs (re-register, republish). It counts as degraded until they are done; a hook that Redis does
       not answer opens it again. One that it refuses concerns one capability, and the others do not wait for it.
    """

    def __init__(
        self, probe: Probe, up: Gauge, degraded: Gauge, every_s: float = PROBE_EVERY_S, *, write: Probe = unwritten
    ) -> None:
        self._probe, self._write, self._up, self._degraded = probe, write, up, degraded
        self._every_s = self._pause_s = every_s
        self._hooks: list[Hook] = []
        self._failures = self._successes = 0
        self._doubted = False  # whether it takes writes
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

    def rejected(self) -> None:
        """Redis answered a call with an error: the next probe finds out whether it refuses all writes."""
        self._doubted = True

    def succeeded(self) -> None:
        """Count one answered call. A read that was answered says nothing of writes."""
        self._failures = 0

    async def run(self) -> None:
        """Probe for ever; owned by the composition root."""
        while True:
            await self.probe()
            if self._failures != 1:  # the first failure is checked again at once
                await asyncio.sleep(self._pause_s)

    async def probe(self) -> None:
        """Ask Redis once and act on the answer."""
        try:
            await self._probe()
            if self._doubted:
                await self._write()
        except StateRejected as error:
            self._refused(str(error))
        except StateUnavailable as error:
            self.failed(str(error))
        else:
            await self._answered()

    async def _answered(self) -> None:
        self.succeeded()
        if self.closed:
            self._settle()
            return
        self._successes += 1
        if self._successes >= SUCCESSES_TO_CLOSE:
            await self._recover()

    def _refused(self, reason: str) -> None:
        self._failures = self._successes = 0  # it did answer
        self._ask_less()
        if self.closed:
            self._open(reason)

    def _ask_less(self) -> None:
        self._pause_s = min(2 * self._pause_s, PROBE_SELDOM_S)

    def _settle(self) -> None:
        self._pause_s, self._doubted = self._every_s, False

    def _open(self, reason: str) -> None:
        self.closed, self._doubted = False, True
        self._up.set(0)
        self._degraded.set(1)
        log.error("redis.degraded", reason=reason, mode="memory")

    async def _recover(self) -> None:
        self.closed = True
        self._successes = 0
        self._doubted = False
        try:
            async with asyncio.timeout(HOOK_TIMEOUT_S):
                for hook in self._hooks:
                    await self._run_hook(hook)
        except (StateUnavailable, TimeoutError) as error:
            self._ask_less()
            self._open(f"recovery failed: {error or type(error).__name__}")
            return
        self._up.set(1)
        self._degraded.set(0)
        log.info("redis.recovered")

    async def _run_hook(self, hook: Hook) -> None:
        try:
            await hook()
        except StateRejected as error:
            self.rejected()  # should it refuse all writes again, the next probe says so
            log.warning("redis.recovery_rejected", reason=str(error))
