"""Where the slots of a caller are counted: in Redis for all nodes, or in this node's memory."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from service.limits.memory import alone
from service.state.redis import RedisState
from service.state.scripts import Script

LEASE_S = 30.0
SCRIPTS = Path(__file__).parent / "lua"
# Slots of one caller in one call; Lua takes a few thousand arguments.
CALL_SLOTS = 1000

Held = Mapping[str, set[str]]  # the slots of each subject


class SlotStore(Protocol):
    """Taking again what one has, and giving back what one has not, is harmless."""

    async def take(self, subject: str, slot: str, limit: int) -> bool: ...


class RedisSlots:
    """The fleet's, by lease: those of a dead node are free LEASE_S later. Every call may raise StateUnavailable."""

    def __init__(self, redis: RedisState, lease_s: float = LEASE_S) -> None:
        self._redis, self._lease_ms = redis, int(lease_s * 1000)
        self._take, self._renew = Script(SCRIPTS / "slot_take.lua"), Script(SCRIPTS / "slot_renew.lua")
        self._give = Script(SCRIPTS / "slot_give.lua")

    async def take(self, subject: str, slot: str, limit: int) -> bool:
        arguments = [slot, limit, self._lease_ms]
        return bool(await self._redis.run("slot_take", lambda r: self._take.call(r, [key_of(subject)], arguments)))

    async def renew(self, held: Held) -> None:
        """All of this node's, in one round trip."""
        calls = [([key_of(subject)], [self._lease_ms, *slots]) for subject, slots in parts(held)]
        if calls:
            await self._redis.run("slot_renew", lambda r: self._renew.call_each(r, calls))

    async def give(self, ended: Held) -> None:
        calls = [([key_of(subject)], slots) for subject, slots in parts(ended)]
        if calls:
            await self._redis.run("slot_give", lambda r: self._give.call_each(r, calls))


class MemorySlots:
    """This node's own: the limit divided by the last known number of nodes, rounded up."""

    def __init__(self, held: Held, nodes: Callable[[], int] = alone) -> None:
        self._held, self._nodes = held, nodes

    async def take(self, subject: str, slot: str, limit: int) -> bool:
        share = math.ceil(limit / max(1, self._nodes()))
        return len(self._held.get(subject, ())) < share


def key_of(subject: str) -> str:
    return f"atp:streams:{{{subject}}}"


def parts(slots: Held) -> list[tuple[str, list[str]]]:
    """Each subject's, at most CALL_SLOTS of it together."""
    found = [(subject, sorted(names)) for subject, names in slots.items()]
    return [(s, names[at : at + CALL_SLOTS]) for s, names in found for at in range(0, len(names), CALL_SLOTS)]
