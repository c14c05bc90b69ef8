"""Who calls when several nodes want the same answer: whoever holds the lead, a Redis key with an end.

| key | type | what |
|---|---|---|
| `atp:cache:flight:{<the entry's name>}` | string | token of the call that leads, gone LEAD_MS after its node is |
"""

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

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
    """The leads this node holds, or asks for; `run()` renews them and is owned by Background."""

    def __init__(self, store: Failover[LeadStore]) -> None:
        self._store = store
        self._held: dict[str, str] = {}  # by token

    def begin(self, lead: str, begun_ms: int) -> str:
        """A token to ask for the lead with; what it gets is renewed from now on."""
        token = new_token(begun_ms)
        self._held[token] = lead
        return token

    async def take(self, lead: str, token: str) -> str | None:
        """None when the lead is ours; else the token of who holds it."""
        return await self._store.call(lambda store: store.take(lead, token))

    def end(self, token: str) -> None:
        """Redis knows already that it holds nothing."""
        self._held.pop(token, None)

    async def release(self, token: str) -> None:
        """Give up what it holds, unless it has ended; one that Redis does not hear of ends by itself."""
        if lead := self._held.pop(token, None):
            await self._store.call(lambda store: store.release(lead, token))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            await self.renew()

    async def renew(self) -> None:
        """Hold on to all. One that another took meanwhile is left to it: both calls go on, and either may be kept."""
        held = list(self._held)
        for start in range(0, len(held), RENEWED_TOGETHER):
            if self._store.degraded:
                return
            await asyncio.gather(*map(self._renew, held[start : start + RENEWED_TOGETHER]))

    async def _renew(self, token: str) -> None:
        if lead := self._held.get(token):
            await self._store.call(lambda store: store.hold(lead, token))


def lead_of(name: str) -> str:
    """Of an entry; the hash tag puts both into one slot of a cluster, so that one script may touch them."""
    return f"atp:cache:flight:{{{name}}}"


def new_token(begun_ms: int) -> str:
    """It tells when its call began, so that others can see that a flush has made waiting for it pointless."""
    return f"{begun_ms}-{secrets.token_hex(8)}"


def begun_ms_of(token: str) -> int:
    """0 for a token that is not ours."""
    moment = token.partition("-")[0]
    return int(moment) if moment.isdecimal() else 0
