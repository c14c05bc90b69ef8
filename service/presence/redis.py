"""Presence of the fleet in Redis: counters that joins and leaves move, so that reading never scans.

Keys, all of one shard under one hash tag, so that a script may touch them and Redis Cluster may spread the shards:

| key | type | what |
|---|---|---|
| `atp:{presence:<shard>}:o:<owner>` | hash | a node's sessions: id -> device, since, client, user |
| `…:u` | hash | user -> number of sessions |
| `…:c` | hash | users, and sessions by device |
| `…:p` | hash | peaks of today and of all time |
| `…:d:<date>` | HyperLogLog | users seen that day |
| `atp:{presence:0}:leases` | zset | incarnation of a node -> end of its lease |

A node's sessions live as long as its lease; nothing is stored or sent for one that is merely connected.
"""

import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any

from service.devices import DEVICES
from service.presence.sessions import Counts, Peak, Session, moment
from service.state.redis import Client, RedisState
from service.state.scripts import Script

SCRIPTS = Path(__file__).parent / "lua"
LEASES = "atp:{presence:0}:leases"
LEASE_MS = 10_000
# A join that was on its way when its incarnation ended lands within a deadline; a minute is many of them.
FORGET_OVER_MS = 60_000
MONTH_DAYS = 30
BATCH = 200  # sessions in one round trip: a few milliseconds of the server's time
FIELD = "\x1f"


@dataclass(frozen=True)
class Leases:
    """The server's clock in milliseconds, how many incarnations live, and the names of those that are over."""

    now_ms: int
    alive: int
    over: list[str]


class RedisPresence:
    """Implements Presence for the fleet. `clock` gives Unix seconds, for naming days only."""

    def __init__(
        self, redis: RedisState, zone: tzinfo, shards: int = 1, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis, self._zone, self._shards, self._clock = redis, zone, shards, clock
        self._join, self._leave = Script(SCRIPTS / "join.lua"), Script(SCRIPTS / "leave.lua")
        self._counts = Script(SCRIPTS / "counts.lua")
        self._lease, self._leases = Script(SCRIPTS / "lease.lua"), Script(SCRIPTS / "leases.lua")

    async def join(self, owner: str, sessions: Iterable[Session]) -> None:
        today = self._day(0)
        for shard, batch in self._batches(sessions):
            base = key(shard)
            keys = [f"{base}:o:{owner}", f"{base}:u", f"{base}:c", f"{base}:p", f"{base}:d:{today}"]
            arguments: list[Any] = [today, (MONTH_DAYS + 1) * 86_400]
            for session in batch:
                arguments += session.session_id, packed(session), session.user_id, session.device
            await self._run("presence_join", partial(self._join.call, keys=keys, arguments=arguments))

    async def leave(self, owner: str, sessions: Iterable[Session]) -> None:
        for shard, batch in self._batches(sessions):
            ids = [session.session_id for session in batch]
            await self._leave_ids(owner, shard, ids)

    async def _leave_ids(self, owner: str, shard: int, ids: Sequence[str | bytes]) -> None:
        base = key(shard)
        keys = [f"{base}:o:{owner}", f"{base}:u", f"{base}:c"]
        await self._run("presence_leave", lambda r: self._leave.call(r, keys, ids))

    async def counts(self) -> Counts:
        shards = [await self._run("presence_counts", partial(self._read, shard=shard)) for shard in self._all()]
        alive = (await self.leases()).alive
        totals = sum((counters for counters, _, _ in shards), Counter[str]())
        peaks = shards[0][1] if len(shards) == 1 else {}
        return Counts(
            online_users=totals["users"],
            sessions={device: totals[device] for device in DEVICES},
            peak_today=self._today(peaks, totals["users"]),
            peak_all_time=Peak(int(peaks[b"all"]), moment(int(peaks[b"all_at"]))) if b"all" in peaks else Peak(),
            active_users={
                window: sum(seen[position] for _, _, seen in shards)
                for position, window in enumerate(("day", "week", "month"))
            },
            nodes=alive,
        )

    async def _read(self, client: Client, shard: int) -> tuple[Counter[str], dict[bytes, bytes], list[int]]:
        base = key(shard)
        days = [f"{base}:d:{self._day(back)}" for back in range(MONTH_DAYS)]
        counters, peaks, *seen = await self._counts.call(client, [f"{base}:c", f"{base}:p", *days], [])
        return Counter({name.decode(): int(value) for name, value in pairs(counters)}), dict(pairs(peaks)), seen

    def _today(self, peaks: dict[bytes, bytes], online: int) -> Peak:
        """The stored peak of today; after midnight, before anybody came, those who are still here."""
        if peaks.get(b"date", b"").decode() == self._day(0):
            return Peak(int(peaks[b"day"]), moment(int(peaks[b"day_at"])))
        return Peak(online, moment(self._clock()) if online else None)

    async def begin_lease(self, owner: str) -> None:
        await self._run("presence_lease", lambda r: self._lease.call(r, [LEASES], [owner, LEASE_MS, 1]))

    async def renew_lease(self, owner: str) -> bool:
        """False when the lease had ended or Redis has lost it: the incarnation is over."""
        held = await self._run("presence_lease", lambda r: self._lease.call(r, [LEASES], [owner, LEASE_MS, 0]))
        return bool(held)

    async def leases(self) -> Leases:
        now_ms, alive, *over = await self._run("presence_leases", lambda r: self._leases.call(r, [LEASES], []))
        return Leases(now_ms, alive, [name.decode() for name in over])

    async def end_lease(self, owner: str) -> None:
        """Give the lease up now; what is left of the owner's sessions is for anybody to reap."""
        now_ms = (await self.leases()).now_ms
        await self._run("presence_end_lease", lambda r: r.zadd(LEASES, {owner: now_ms - 1}, xx=True))

    async def forget(self, seen: Leases) -> None:
        """Stop listing the incarnations that had been over for long when `seen` was read; reap those first."""
        until = seen.now_ms - FORGET_OVER_MS
        await self._run("presence_forget", lambda r: r.zremrangebyscore(LEASES, "-inf", until))

    async def reap(self, owner: str) -> int:
        """Remove every session of an incarnation that is over, in small batches; how many there were."""
        reaped = 0
        for shard in self._all():
            name = f"{key(shard)}:o:{owner}"
            while ids := await self._run("presence_reap", partial(some_fields, name=name)):
                await self._leave_ids(owner, shard, ids)
                reaped += len(ids)
        return reaped

    async def _run(self, operation: str, call: Callable[[Client], Any]) -> Any:
        return await self._redis.run(operation, call)

    def _all(self) -> range:
        return range(self._shards)

    def _day(self, back: int) -> str:
        return (moment(self._clock()).astimezone(self._zone).date() - timedelta(days=back)).isoformat()

    def _batches(self, sessions: Iterable[Session]) -> Iterator[tuple[int, list[Session]]]:
        by_shard: dict[int, list[Session]] = defaultdict(list)
        for session in sessions:
            by_shard[zlib.crc32(session.user_id.encode()) % self._shards].append(session)
        for shard, group in by_shard.items():
            for start in range(0, len(group), BATCH):
                yield shard, group[start : start + BATCH]


async def some_fields(client: Client, name: str) -> list[bytes]:
    fields: list[bytes] = await client.hrandfield(name, BATCH)
    return fields


def pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """A script's list of name, value, name, value… as pairs."""
    return zip(flat[::2], flat[1::2], strict=True)


def key(shard: int) -> str:
    return f"atp:{{presence:{shard}}}"


def packed(session: Session) -> str:
    """leave.lua reads it back; the user comes last."""
    return FIELD.join([session.device, str(session.since_s), session.client_id, session.user_id])
