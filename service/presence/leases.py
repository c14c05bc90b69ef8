"""Which incarnations of nodes live, each by a lease, and the card each shows of itself.

| key | type | what |
|---|---|---|
| `atp:{presence:0}:leases` | zset | incarnation -> end of its lease in milliseconds of the server's clock |
| `atp:{presence:0}:nodes` | hash | incarnation -> its card, JSON |
"""

import json
from pathlib import Path
from typing import Any

from service.presence.sessions import Card
from service.state.redis import RedisState
from service.state.scripts import Script

SCRIPTS = Path(__file__).parent / "lua"
LEASES = "atp:{presence:0}:leases"
KEYS = [LEASES, "atp:{presence:0}:nodes"]
LEASE_MS = 10_000


class Leases:
    """Every call may raise StateUnavailable."""

    def __init__(self, redis: RedisState) -> None:
        self._redis = redis
        self._lease, self._end = Script(SCRIPTS / "lease.lua"), Script(SCRIPTS / "end.lua")
        self._leases, self._forget = Script(SCRIPTS / "leases.lua"), Script(SCRIPTS / "forget.lua")
        self._cards = Script(SCRIPTS / "cards.lua")

    async def begin(self, owner: str, card: Card) -> None:
        await self._hold(owner, card, begin=1)

    async def renew(self, owner: str, card: Card) -> bool:
        """False when the lease had ended or Redis has lost it: the incarnation is over."""
        return bool(await self._hold(owner, card, begin=0))

    async def _hold(self, owner: str, card: Card, begin: int) -> Any:
        arguments = [owner, LEASE_MS, begin, json.dumps(card)]
        return await self._redis.run("presence_lease", lambda r: self._lease.call(r, KEYS, arguments))

    async def end(self, owner: str) -> None:
        """Give the lease up now; what the owner holds is for anybody to reap."""
        await self._redis.run("presence_end_lease", lambda r: self._end.call(r, KEYS, [owner]))

    async def living(self) -> list[str]:
        names = await self._redis.run("presence_leases", lambda r: self._leases.call(r, [LEASES], []))
        return [name.decode() for name in names]

    async def forget_over(self) -> None:
        """Stop listing the incarnations whose lease has ended."""
        await self._redis.run("presence_forget", lambda r: self._forget.call(r, KEYS, []))

    async def cards(self) -> list[Card]:
        """Of those that live."""
        cards = await self._redis.run("presence_cards", lambda r: self._cards.call(r, KEYS, []))
        return [json.loads(card) for card in cards]
