"""How many sockets a node, a key and an address may hold; a place is taken before the handshake is answered."""

import random
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeVar

from service.live.protocol import Close

Name = TypeVar("Name", bytes, str)


@dataclass(frozen=True)
class Caps:
    """The most sockets on this node: in all, for one API key, from one address."""

    node: int = 10_000
    key: int = 100
    address: int = 1_000


@dataclass(frozen=True)
class Full:
    """Why there is no place, as a close code and its reason."""

    code: Close
    reason: str
    result: str  # the label of atp_ws_handshakes_total


class Places:
    """Take one per handshake and give it back when the socket is gone."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.taken = 0
        self._keys: Counter[bytes] = Counter()
        self._addresses: Counter[str] = Counter()

    def take(self, key_hash: bytes, address: str) -> Full | None:
        """None when the place is yours."""
        if self.taken >= self.caps.node:
            return Full(Close.TRY_LATER, f"this node is full; retry_ms={random.randrange(1_000, 10_000)}", "full")  # noqa: S311
        if self._keys[key_hash] >= self.caps.key:
            return Full(Close.POLICY, f"a key may hold {self.caps.key} sockets on a node", "key_limit")
        if self._addresses[address] >= self.caps.address:
            return Full(Close.POLICY, f"an address may hold {self.caps.address} sockets on a node", "address_limit")
        self.taken += 1
        self._keys[key_hash] += 1
        self._addresses[address] += 1
        return None

    def keys(self) -> set[bytes]:
        """The hashes of the keys that hold a place."""
        return set(self._keys)

    def holds(self, key_hash: bytes) -> bool:
        return key_hash in self._keys

    def give(self, key_hash: bytes, address: str) -> None:
        self.taken -= 1
        less(self._keys, key_hash)
        less(self._addresses, address)


def within(address: str, network: IPv4Network | IPv6Network) -> bool:
    """False for a peer that has no address (a Unix socket)."""
    try:
        return ip_address(address) in network
    except ValueError:
        return False


def less(counter: Counter[Name], name: Name) -> None:
    """One fewer; a name with none left is forgotten."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
