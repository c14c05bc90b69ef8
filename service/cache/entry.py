"""A cached answer, its name, and the envelope in which it lies in Redis."""

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["agent_response", "query", "function"]

# The envelope: magic, CRC-32 of all that follows, then begun_ms, stored_ms, ttl_ms, and the bytes of name, groups and
# value, each followed by itself. Big-endian. Another layout gets another magic: what nodes of an older version left
# is a miss then.
MAGIC = b"ATP1"
SEAL = struct.Struct(">4sI")
SIZES = struct.Struct(">QQQHII")
SEPARATOR = "\n"  # between groups; no agent's id has one


@dataclass(frozen=True, slots=True)
class Entry:
    """`begun_ms` is when the call that gave the value began, `stored_ms` when it was stored; both Unix milliseconds.

    `groups` are the agents it is from: flushing any of them makes it a miss.
    """

    value: bytes
    ttl_s: float
    begun_ms: int
    stored_ms: int
    groups: tuple[str, ...] = ()

    def age_s(self, now_ms: int) -> float:
        return max(0, now_ms - self.stored_ms) / 1000


class CacheStore(Protocol):
    """Where entries lie, by their whole name. Putting twice is harmless."""

    async def get(self, name: str) -> Entry | None: ...

    async def put(self, name: str, entry: Entry) -> None: ...

    async def get_or_lead(self, name: str, token: str) -> Entry | bool:
        """The entry; where there is none, whether the lead of the call for it is ours now (leads.py).

        False for an entry that is torn or foreign too: its lead was not asked for.
        """
        ...

    async def put_and_release(self, name: str, entry: Entry, token: str) -> None:
        """Put it, then give the lead up."""
        ...


def digest(*parts: Any) -> str:
    """SHA-256 of JSON values, as 64 hex digits: the key of whatever they alone decide.

    Prompts are personal: only digests become names of Redis keys. Raises TypeError or ValueError for what is no JSON.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(kind: Kind, key: str) -> str:
    """`key` is a digest."""
    return f"atp:cache:{kind}:{key}"


def pack(name: str, entry: Entry) -> bytes:
    """The name goes in too: a value that lies under another's name is not taken for its own."""
    named, groups = name.encode(), SEPARATOR.join(entry.groups).encode()
    ttl_ms = int(entry.ttl_s * 1000)
    sizes = SIZES.pack(entry.begun_ms, entry.stored_ms, ttl_ms, len(named), len(groups), len(entry.value))
    body = b"".join((sizes, named, groups, entry.value))
    return SEAL.pack(MAGIC, zlib.crc32(body)) + body


def unpack(name: str, data: bytes) -> Entry | None:
    """None for what was torn, is not ours, or is another's."""
    if len(data) < SEAL.size + SIZES.size:
        return None
    magic, checksum = SEAL.unpack_from(data)
    body = data[SEAL.size :]
    if magic != MAGIC or zlib.crc32(body) != checksum:
        return None
    begun_ms, stored_ms, ttl_ms, named, grouped, valued = SIZES.unpack_from(body)
    groups_at = SIZES.size + named
    value_at = groups_at + grouped
    if len(body) != value_at + valued or body[SIZES.size : groups_at] != name.encode():
        return None
    groups = body[groups_at:value_at].decode()
    return Entry(body[value_at:], ttl_ms / 1000, begun_ms, stored_ms, tuple(groups.split(SEPARATOR)) if groups else ())
