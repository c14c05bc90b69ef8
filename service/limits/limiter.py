"""The limiter: one question per request, answered in one round trip that it shares with others."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from service.limits.gathered import Gathered
from service.limits.hits import Hit, Outcome, Windows
from service.limits.policies import POLICIES, Limit, Policies
from service.limits.refusals import Refusal, Refusals
from service.state.failover import Failover
from service.telemetry.metrics import Metrics
from service.telemetry.operations import observe

NONE: Mapping[str, str] = {}


class Decision(NamedTuple):
    """`enforced` is the limit's amount, or this node's part of it where `degraded`.

    `wait_s`: until one more request is admitted, if nobody else asks; None: so much at once never is. `reset_s`: until
    nothing counts any more.
    """

    limit: Limit
    admitted: bool
    enforced: int
    remaining: int
    wait_s: float | None
    reset_s: float
    degraded: bool


class RateLimiter:
    """`clock` is monotonic."""

    def __init__(
        self,
        windows: Failover[Windows],
        policies: Policies,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._windows, self._policies, self._clock = windows, policies, clock
        self._gathered = Gathered(lambda hits: windows.ask(lambda store: store.hit(hits)))
        self._refusals = Refusals()
        # Looking a child up costs more than counting with it.
        self._counts = {
            (policy, admitted): metrics.ratelimit_decisions.labels(policy, said)
            for policy in POLICIES
            for admitted, said in ((True, "allowed"), (False, "limited"))
        }
        self._duration = metrics.ratelimit_duration

    async def hit(
        self, policy: str, subject: str, own: Mapping[str, str] = NONE, cost: int = 1, again: int = 0
    ) -> Decision:
        """Count `cost` requests of a subject, unless they do not fit. `own` are the caller's own rates by policy.

        `subject` becomes part of the name of a key in Redis: no secret, and of bounded length.
        """
        started = self._clock()
        limit = self._policies.limit(policy, own)
        key = key_of(limit, subject)
        refusal = self._refusals.find(key, limit.amount, started)
        if refusal and refusal.degraded == self._windows.alone and cost + again == 1:
            decision = refused(limit, refusal, started)
        else:
            decision = await self._ask(limit, key, cost, again, started)
        self.count(decision)
        observe(self._duration, self._clock() - started)
        return decision

    def refused(self, policy: str, subject: str) -> Decision | None:
        """The refusal of a subject that this node knows of, without counting or asking; None: it may be admitted.

        What Redis refused holds while it is away; what this node refused alone holds until Redis is back.
        """
        now, limit = self._clock(), self._policies.limit(policy, NONE)
        refusal = self._refusals.find(key_of(limit, subject), limit.amount, now)
        holds = refusal and (self._windows.alone or not refusal.degraded)
        return refused(limit, refusal, now) if refusal and holds else None

    def count(self, decision: Decision) -> None:
        """Count a decision that `refused` gave, once it is acted upon."""
        self._counts[decision.limit.policy, decision.admitted].inc()

    async def close(self) -> None:
        await self._gathered.close()

    async def _ask(self, limit: Limit, key: str, cost: int, again: int, started: float) -> Decision:
        outcome, degraded = await self._gathered.hit(Hit(key, limit.amount, limit.window_ms, cost))
        decision = decided(limit, outcome, cost + again, degraded)
        if not decision.remaining:
            self._note(key, decision, outcome, started)
        return decision

    def _note(self, key: str, decision: Decision, outcome: Outcome, started: float) -> None:
        now, limit = self._clock(), decision.limit
        wait_s = (outcome.window.wait_ms(outcome.limit, limit.window_ms) or 0) / 1000
        until, reset_at = started + wait_s, now + decision.reset_s
        refusal = Refusal(limit.amount, outcome.limit, until, now + wait_s, reset_at, decision.degraded)
        self._refusals.note(key, refusal, now)


def key_of(limit: Limit, subject: str) -> str:
    return f"atp:limit:{{{subject}}}:{limit.policy}:{limit.window_s}"


def decided(limit: Limit, outcome: Outcome, cost: int, degraded: bool) -> Decision:
    window, enforced = outcome.window, outcome.limit
    wait_ms = window.wait_ms(enforced, limit.window_ms, 1 if outcome.admitted else cost)
    reset_ms = window.wait_ms(enforced, limit.window_ms, enforced) or 0
    remaining = max(0, enforced - window.used(limit.window_ms))
    wait_s = None if wait_ms is None else wait_ms / 1000
    return Decision(limit, outcome.admitted, enforced, remaining, wait_s, reset_ms / 1000, degraded)


def refused(limit: Limit, refusal: Refusal, now: float) -> Decision:
    wait_s, reset_s = refusal.admitted_at - now, max(0.0, refusal.clear_at - now)
    return Decision(limit, False, refusal.limit, 0, wait_s, reset_s, refusal.degraded)
