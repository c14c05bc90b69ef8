"""The gate that every request with a key passes, before its body is read; and what it says of limits in the answer.

Headers follow draft-ietf-httpapi-ratelimit-headers-10; under /v1/ there are OpenAI's as well, which its clients read.
"""

import asyncio
import math
from dataclasses import dataclass
from weakref import WeakValueDictionary

from starlette.types import Scope

from service.errors import Blocked, RateLimited, Unauthorized
from service.http.address import Caller, Callers
from service.http.auth import Authenticator
from service.http.openai_errors import OPENAI_PATHS
from service.keys.blocks import Blocks
from service.keys.verifier import Identity
from service.limits.limiter import Decision, RateLimiter
from service.limits.policies import ADDRESS, AUTH, address_subject, subject_of
from service.telemetry.metrics import Metrics

# Keys that this node does not know, of one address, looked up at a time; the next learns first how those went.
STRANGERS_AT_ONCE = 8
RATE_HEADERS = (b"ratelimit", b"x-ratelimit-")


@dataclass(frozen=True, slots=True)
class Limiters:
    """`failures` counts refused keys; it is apart since it refuses whom it has no room for."""

    requests: RateLimiter
    failures: RateLimiter


class Gate:
    """`enter` says who may go on. In this order, so that who is kept out costs as little as possible:

    1. A blocked address: 403, whatever it brings.
    2. An address with too many refused keys: 429, before its key is looked at. A key that this node knows to be good
       passes: finding it is a look in memory, so an address that many share cannot be locked out by one of them, and
       196 random bits are not guessed. A key that is not known here has to wait, as has a ticket. While Redis is away
       one refused key is too many.
    3. Who is it? A key that is refused counts against its address, a request without one too, each by its own limit.
    4. A blocked key or user: 403.
    5. The key's limit for the policy: 429. Then the blocks once more: charging waits for Redis, and who was blocked
       meanwhile has no socket in the hub that the block could close.
    6. The scope: 403, last, so that a key without it is limited too.
    """

    def __init__(
        self, authenticator: Authenticator, limiters: Limiters, blocks: Blocks, callers: Callers, metrics: Metrics
    ) -> None:
        self._authenticator, self._blocks, self._callers = authenticator, blocks, callers
        self._requests, self._failures = limiters.requests, limiters.failures
        self._blocked = metrics.blocked_requests
        self.refused = authenticator.refused
        self._strangers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def enter(self, scope: Scope, needed: str, policy: str, ticket: str = "") -> Identity:
        """Raises Unauthorized, Forbidden, Blocked, RateLimited, DatabaseUnavailable."""
        caller = scope["atp.caller"] = self._callers.of(scope)
        try:
            self._blocks.check("address", caller.address)
            identity = await self._identify(scope, caller, ticket)
            await self.charge(scope, identity, policy)
            self._blocks.check("address", caller.address)
            self._authenticator.admit(identity)
        except Blocked as error:
            self._blocked.labels(error.extra["blocked"]).inc()
            raise
        self._authenticator.permit(identity, needed)
        return identity

    async def charge(self, scope: Scope, identity: Identity, policy: str, requests: int = 1, again: int = 0) -> None:
        """Count requests of a key, all or none; raises RateLimited."""
        if requests > 0:
            subject = subject_of(identity.key_hash)
            say(scope, await self._requests.hit(policy, subject, identity.limits, requests, again=again))

    async def charge_socket(self, identity: Identity) -> None:
        """Count a chat on an open socket, where no headers can tell; raises RateLimited."""
        identity = await self._authenticator.again(identity)
        decision = await self._requests.hit("chat", subject_of(identity.key_hash), identity.limits)
        if not decision.admitted:
            raise limited(decision)

    async def _identify(self, scope: Scope, caller: Caller, ticket: str) -> Identity:
        subject = address_subject(caller.group)
        if self._authenticator.recognizes(scope, ticket):
            return await self._looked_up(scope, subject, ticket)
        async with self._strangers.setdefault(subject, asyncio.Semaphore(STRANGERS_AT_ONCE)):
            if locked := self._failures.refused(AUTH, subject):
                self._failures.count(locked)
                say(scope, locked)
            return await self._looked_up(scope, subject, ticket)

    async def _looked_up(self, scope: Scope, subject: str, ticket: str) -> Identity:
        try:
            return await self._authenticator.identify(scope, ticket)
        except Unauthorized as error:
            if error.extra["reason"] == "missing":
                say(scope, await self._requests.hit(ADDRESS, subject))
            else:
                say(scope, await self._failures.hit(AUTH, subject))
            raise


def say(scope: Scope, decision: Decision) -> None:
    """Put a decision into the answer's headers; raises RateLimited when it is a refusal."""
    headers = scope["atp.headers"]
    headers[:] = [(name, value) for name, value in headers if not name.startswith(RATE_HEADERS)]
    headers += rate_headers(decision)
    if scope["path"].startswith(OPENAI_PATHS):
        headers += openai_headers(decision)
    if not decision.admitted:
        raise limited(decision)


def limited(decision: Decision) -> RateLimited:
    limit = decision.limit
    return RateLimited(
        f"At most {decision.enforced} requests in {limit.window_s} s.",
        retry_after_s=decision.wait_s,
        policy=limit.policy,
        limit=decision.enforced,
        window_s=limit.window_s,
    )


def rate_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """`t` is when there will be more: the whole quota again, or, when nothing is left, one request (Retry-After).

    `atp-degraded`, a parameter of our own, says that this node counts alone, with its part of the quota.
    """
    limit = decision.limit
    after_s = decision.reset_s if decision.remaining and decision.admitted else decision.wait_s or decision.reset_s
    own = ";atp-degraded" if decision.degraded else ""
    return [
        (b"ratelimit-policy", f'"{limit.policy}";q={decision.enforced};w={limit.window_s}{own}'.encode()),
        (b"ratelimit", f'"{limit.policy}";r={decision.remaining};t={math.ceil(after_s)}'.encode()),
    ]


def openai_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-requests", b"%d" % decision.enforced),
        (b"x-ratelimit-remaining-requests", b"%d" % decision.remaining),
        (b"x-ratelimit-reset-requests", f"{math.ceil(decision.reset_s * 10) / 10:g}s".encode()),
    ]
