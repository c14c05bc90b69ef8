"""Who calls when several nodes want the same answer: whoever holds the lead, a Redis key with an end.

| key | type | what |
|---|---|---|
| `atp:cache:flight:<kind>:<sha256>` | string | token of the call that holds the lead, gone LEAD_MS after its node is |
"""

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

from service.cache.entry import Kind
from service.state.failover import Failover
from service.state.pipeline import Pipeline

SCRIPTS = Path(__file__).parent / "lua"
LEAD_MS = 10_000
# A third of it: two renewals may be lost before it ends.
RENEW_EVERY_S = 3.0
RENEWED_TOGETHER = 50


class LeadStore(Protocol):
    async def take(self, lead: str, token: str) -> str | None:
        """None when the lead is ours now, else the token of who holds it."""
        ...

    async def hold(self, lead: str, token: str) -> bool: ...

    async def release(self, lead: str, token: str) -> None: ...


class RedisLeads:
    """SET with NX, GET and PX (the first two together since Redis 7.0, https://redis.io/docs/latest/commands/set/).

    The scripts go as text: a pipeline cannot send one again when the server has lost its digest.
    """

    def __init__(self, redis: Pipeline) -> None:
        self._redis = redis
        self._hold, self._release = (SCRIPTS / "hold.lua").read_text(), (SCRIPTS / "release.lua").read_text()

    async def take(self, lead: str, token: str) -> str | None:
        holder = await self._redis.run(lambda p: p.set(lead, token, nx=True, get=True, px=LEAD_MS))
        return None if holder is None or holder == token.encode() else holder.decode(errors="replace")

    async def hold(self, lead: str, token: str) -> bool:
        return bool(await self._redis.run(lambda p: p.eval(self._hold, 1, lead, token, LEAD_MS)))

    async def release(self, lead: str, token: str) -> None:
        await self._redis.run(lambda p: p.eval(self._release, 1, lead, token))


class MemoryLeads:
    """While Redis is away every node leads; that one node calls once is the doing of its flights."""

    async def take(self, lead: str, token: str) -> str | None:
        return None

    async def hold(self, lead: str, token: str) -> bool:
        return True

    async def release(self, lead: str, token: str) -> None:
        return None


class Leads:
    """The leads this node holds; `run()` renews them and is owned by Background."""

    def __init__(self, store: Failover[LeadStore]) -> None:
        self._store = store
        self._held: dict[str, str] = {}

    async def take(self, lead: str, token: str) -> str | None:
        """None when the lead is ours, and renewed from now on; else the token of who holds it."""
        holder = await self._store.call(lambda store: store.take(lead, token))
        if holder is None:
            self._held[lead] = token
        return holder

    async def release(self, lead: str, token: str) -> None:
        """Give it up, if it is ours; one that Redis does not hear of ends by itself."""
        if self._held.get(lead) == token:
            del self._held[lead]
        await self._store.call(lambda store: store.release(lead, token))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            await self.renew()

    async def renew(self) -> None:
        """Hold on to all. One that another took meanwhile is left to it: both calls go on, and either may be kept."""
        held = list(self._held.items())
        for start in range(0, len(held), RENEWED_TOGETHER):
            if self._store.degraded:
                return
            await asyncio.gather(*(self._renew(*pair) for pair in held[start : start + RENEWED_TOGETHER]))

    async def _renew(self, lead: str, token: str) -> None:
        if self._held.get(lead) == token:
            await self._store.call(lambda store: store.hold(lead, token))


def lead_of(kind: Kind, key: str) -> str:
    return f"atp:cache:flight:{kind}:{key}"


def new_token(begun_ms: int) -> str:
    """It tells when its call began, so that others can see that a flush has made waiting for it pointless."""
    return f"{begun_ms}-{secrets.token_hex(8)}"


def begun_ms_of(token: str) -> int:
    """0 for a token that is not ours."""
    moment = token.partition("-")[0]
    return int(moment) if moment.isdecimal() else 0
