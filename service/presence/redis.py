"""Presence of the fleet in Redis: counters that joins and leaves move, so that reading never scans.

Keys, all of one shard under one hash tag, so that a script may touch them and Redis Cluster may spread the shards:

| key | type | what |
|---|---|---|
| `atp:{presence:<shard>}:o:<owner>` | hash | a node's sockets (of `rest`: REST sessions): id -> packed |
| `…:i` | set | the owners that hold sockets here, but `rest` |
| `…:x` | zset | REST session -> its end in milliseconds of the server's clock |
| `…:u` | hash | user -> sockets + REST_WEIGHT * REST sessions |
| `…:c` | hash | users; sessions by device; REST ones alone as `rest:<device>` |
| `…:p` | hash | peaks of today and of all time; of the whole fleet, on shard 0 |
| `…:d:<date>` | HyperLogLog | users seen that day |

A node's sockets live as long as its lease (see leases.py); nothing is stored or sent for one that is merely connected.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta, tzinfo
from functools import partial
from typing import Any

from service.devices import DEVICES, Device
from service.presence import shards
from service.presence.leases import SCRIPTS, Leases
from service.presence.pages import redis_place
from service.presence.sessions import (
    REST_SESSIONS_PER_USER,
    REST_TTL_S,
    REST_WEIGHT,
    Card,
    Change,
    Counts,
    Page,
    Peak,
    moment,
    socket_count,
    split_number,
)
from service.presence.shards import BATCH, REST, Recount, batches, key, pairs, shard_of, together
from service.state.redis import Client, RedisState
from service.state.scripts import Script

MONTH_DAYS = 30
NUMBERS = 1000  # users' numbers in one round trip


class RedisPresence:
    """Implements Presence for the fleet. `clock` gives Unix seconds, for naming days only."""

    def __init__(
        self, redis: RedisState, zone: tzinfo, shards: int = 1, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis, self._zone, self._shards, self._clock = redis, zone, shards, clock
        self.leases = Leases(redis)
        self._change, self._counts = Script(SCRIPTS / "change.lua"), Script(SCRIPTS / "counts.lua")
        self._raise_peak, self._recount = Script(SCRIPTS / "peak.lua"), Script(SCRIPTS / "recount.lua")

    async def change(self, owner: str, changes: Sequence[Change]) -> frozenset[str]:
        """One call for each shard and kind and BATCH; the shards at the same time."""
        groups: dict[tuple[int, str], list[Change]] = defaultdict(list)
        for change in sorted(changes, key=lambda change: change.lives_ms is not None):  # leaves first
            session = change.session
            groups[shard_of(session.user_id, self._shards), owner if session.kind == "socket" else REST].append(change)
        found = await together(self._change_group(shard, holder, group) for (shard, holder), group in groups.items())
        return frozenset().union(*found)

    async def _change_group(self, shard: int, owner: str, group: list[Change]) -> set[str]:
        refused: set[str] = set()
        for batch in batches(group, BATCH):
            texts = [text for change in batch for text in shards.arguments(change)]
            refused |= (await self._write(shard, owner, texts))[1]
        return refused

    async def _write(
        self, shard: int, owner: str, changes: Sequence[Any], end_at_most: int = 0
    ) -> tuple[int, set[str]]:
        """See change.lua for `changes`; how many left, and who was refused."""
        base, today, rest = key(shard), self._day(0), owner == REST
        keys = [f"{base}:o:{owner}", f"{base}:u", f"{base}:c", f"{base}:p", f"{base}:d:{today}", f"{base}:i"]
        head = [today, (MONTH_DAYS + 1) * 86_400, REST_WEIGHT if rest else 1, int(self._shards == 1)]
        arguments = [*head, end_at_most, REST_TTL_S * 1000, owner, REST_SESSIONS_PER_USER, *changes]
        keys += [f"{base}:x"] if rest else []
        left, *refused = await self._run("change", self._change, keys, arguments)
        return left, {name.decode() for name in refused}

    async def counts(self) -> Counts:
        living, *found = await together([self.leases.living(), *(self._read(shard) for shard in self._all())])
        totals = sum((counters for counters, _, _ in found), Counter[str]())
        peaks: dict[bytes, bytes] = found[0][1]
        return Counts(
            online_users=totals["users"],
            sessions={device: totals[device] for device in DEVICES},
            sockets=socket_count(totals),
            peak_today=self._peak_of(peaks, "day", totals["users"]),
            peak_all_time=self._peak_of(peaks, "all", totals["users"]),
            active_users={
                window: sum(days[position] for _, _, days in found)
                for position, window in enumerate(("day", "week", "month"))
            },
            nodes=len(living),
        )

    async def _read(self, shard: int) -> tuple[Counter[str], dict[bytes, bytes], list[int]]:
        base = key(shard)
        days = [f"{base}:d:{self._day(back)}" for back in range(MONTH_DAYS)]
        counters, peaks, *seen = await self._run("counts", self._counts, [f"{base}:c", f"{base}:p", *days], [])
        return shards.counter(counters), dict(pairs(peaks)), seen

    def _peak_of(self, peaks: dict[bytes, bytes], name: str, online: int) -> Peak:
        """The stored peak, unless it is of another day or more are online than when it was last sampled."""
        users, stale = int(peaks.get(name.encode(), -1)), peaks.get(b"date", b"").decode() != self._day(0)
        if users < online or (name == "day" and stale):
            return Peak(online, moment(self._clock()) if online else None)
        return Peak(users, moment(int(peaks[f"{name}_at".encode()])))

    async def sample_peak(self) -> None:
        """Raise the peaks to the users online now, where they are spread over shards; one shard keeps its own."""
        if self._shards == 1:
            return
        found = await together(self._field(f"{key(shard)}:c", "users") for shard in self._all())
        await self._run(
            "peak", self._raise_peak, [f"{key(0)}:p"], [self._day(0), sum(int(users or 0) for users in found)]
        )

    async def _field(self, name: str, field: str) -> Any:
        return await self._redis.run("presence_users", lambda r: r.hget(name, field))

    async def sockets(self, users: Collection[str] | None, devices: Collection[Device] | None) -> int:
        if users is not None:
            return await self._sockets_of(users)
        names = DEVICES if devices is None else devices
        found = await together(self._counters(shard) for shard in self._all())
        return sum(socket_count(counters, names) for counters in found)

    async def _counters(self, shard: int) -> Counter[str]:
        found = await self._redis.run("presence_sockets", lambda r: r.hgetall(f"{key(shard)}:c"))
        return shards.counter([part for pair in found.items() for part in pair])

    async def _sockets_of(self, users: Collection[str]) -> int:
        groups: dict[int, list[str]] = defaultdict(list)
        for user in users:
            groups[shard_of(user, self._shards)].append(user)
        parts = ((shard, batch) for shard, group in groups.items() for batch in batches(group, NUMBERS))
        numbers = await together(self._numbers(shard, batch) for shard, batch in parts)
        return sum(split_number(int(number or 0))[0] for batch in numbers for number in batch)

    async def _numbers(self, shard: int, users: Sequence[str]) -> list[Any]:
        found: list[Any] = await self._redis.run("presence_sockets", lambda r: r.hmget(f"{key(shard)}:u", users))
        return found

    async def online_page(self, cursor: str, limit: int) -> Page:
        """By HSCAN: a user may come twice while others come and go, and a page may be longer than `limit`."""
        shard, place = redis_place(cursor, self._shards)
        users: list[tuple[str, int, int]] = []
        while len(users) < limit:
            scan = partial(_scan, name=f"{key(shard)}:u", place=place, count=limit - len(users))
            place, found = await self._redis.run("presence_page", scan)
            users += [(user.decode(), *split_number(int(number))) for user, number in found.items()]
            if not place:
                shard += 1
                if shard == self._shards:
                    return Page(users, "")
        return Page(users, f"{shard}.{place}")

    async def cards(self, own: Card) -> list[Card]:
        return await self.leases.cards()

    async def reap_dead(self) -> int:
        """Remove the sockets of every incarnation without a lease; how many there were.

        Owners are read before leases: one that is new by then leased its name before it held anything.
        """
        owners = await together(self._owners(shard) for shard in self._all())
        living = set(await self.leases.living())
        dead = ((shard, owner) for shard, names in enumerate(owners) for owner in names - living)
        return sum(await together(self._reap_shard(shard, owner) for shard, owner in dead))

    async def _owners(self, shard: int) -> set[str]:
        names = await self._redis.run("presence_owners", lambda r: r.smembers(f"{key(shard)}:i"))
        return {name.decode() for name in names}

    async def reap(self, owner: str) -> int:
        """Remove every socket of an incarnation that is over, in small batches; how many there were."""
        return sum(await together(self._reap_shard(shard, owner) for shard in self._all()))

    async def _reap_shard(self, shard: int, owner: str) -> int:
        reaped, some = 0, partial(_some_fields, name=f"{key(shard)}:o:{owner}")
        while ids := await self._redis.run("presence_reap", some):
            reaped += (await self._write(shard, owner, [text for name in ids for text in (name, "", 0)]))[0]
        return reaped

    async def end_expired(self) -> int:
        """End the REST sessions whose time has come, in small batches; how many there were."""
        return sum(await together(self._end_expired(shard) for shard in self._all()))

    async def _end_expired(self, shard: int) -> int:
        ended = 0
        while more := (await self._write(shard, REST, [], end_at_most=BATCH))[0]:
            ended += more
        return ended

    async def recount(self) -> Recount:
        """Of every shard, at one moment each."""
        return sum(await together(self._recount_shard(shard) for shard in self._all()), Recount())

    async def _recount_shard(self, shard: int) -> Recount:
        base = key(shard)
        keys = [f"{base}:c", f"{base}:u", f"{base}:x", f"{base}:o:{REST}", f"{base}:i"]
        counters, users, ends, rest, *held = await self._run("recount", self._recount, keys, [f"{base}:o:"])
        return Recount.of(shards.counter(counters), users, ends, rest, shards.counter(held))

    async def _run(self, operation: str, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self._redis.run(f"presence_{operation}", lambda r: script.call(r, keys, arguments))

    def _all(self) -> range:
        return range(self._shards)

    def _day(self, back: int) -> str:
        return (moment(self._clock()).astimezone(self._zone).date() - timedelta(days=back)).isoformat()


async def _some_fields(client: Client, name: str) -> list[bytes]:
    fields: list[bytes] = await client.hrandfield(name, BATCH)
    return fields


async def _scan(client: Client, name: str, place: int, count: int) -> Any:
    return await client.hscan(name, place, count=count)
