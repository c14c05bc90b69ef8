"""Who is kept out, by heart: a key or user costs a dictionary look-up, an address one for each length of prefix."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from service.keys.block_store import Subject

# A network as (4 or 6, length of its prefix, the prefix).
Prefix = tuple[int, int, int]
MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Block:
    deadline: float  # on the monotonic clock
    reason: str


class BlockTable:
    """`table[who]` is its Block or None; setting None lifts it."""

    def __init__(self) -> None:
        self._blocks: dict[Subject, Block] = {}
        self._networks: dict[Prefix, Subject] = {}
        # How many networks there are of each (version, length): an address is looked up once for each of these.
        self._lengths: Counter[tuple[int, int]] = Counter()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, who: Subject) -> bool:
        return who in self._blocks

    def __iter__(self) -> Iterator[Subject]:
        return iter(self._blocks)

    def get(self, who: Subject) -> Block | None:
        return self._blocks.get(who)

    def put(self, who: Subject, block: Block) -> None:
        if who.kind == "address" and who not in self._blocks:
            prefix = prefix_of(who.subject)
            self._networks[prefix] = who
            self._lengths[prefix[:2]] += 1
        self._blocks[who] = block

    def drop(self, who: Subject) -> None:
        if self._blocks.pop(who, None) and who.kind == "address":
            prefix = prefix_of(who.subject)
            del self._networks[prefix]
            self._lengths[prefix[:2]] -= 1
            self._lengths += Counter()  # those at 0 go

    def around(self, address: str) -> Iterator[Subject]:
        """The blocked networks that an address lies in; none for what is no address."""
        if not self._lengths:
            return
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return
        number, bits = int(found), found.max_prefixlen
        for version, length in self._lengths:
            if version == found.version and (who := self._networks.get((version, length, number >> (bits - length)))):
                yield who


def prefix_of(network: str) -> Prefix:
    found = ipaddress.ip_network(network)
    return found.version, found.prefixlen, int(found.network_address) >> (found.max_prefixlen - found.prefixlen)


def canonical(address: str) -> str:
    """The shortest form of an address or network, by which it is known: `192.0.2.1`, `2001:db8::/32`.

    IPv4 written as IPv6 (RFC 4291 section 2.5.5.2) becomes IPv4, as callers' addresses do. Raises ValueError, which
    says what it must be, for what is neither, for a network with bits set behind its prefix, and for one of IPv6
    around all of IPv4: it would keep nobody of IPv4 out.
    """
    try:
        network = ipaddress.ip_network(address.strip())
    except ValueError:
        raise ValueError("an address, or a network such as 192.0.2.0/24") from None
    if network.version == 6 and MAPPED.subnet_of(network) and network != MAPPED:
        raise ValueError(f"less wide: it has {MAPPED} in it, which is IPv4 and is blocked as 0.0.0.0/0")
    network = unmapped(network)
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if network.version == 6 and network.subnet_of(MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - MAPPED.prefixlen))
    return network


def covers(network: str, address: str) -> bool:
    """Whether an address lies in a network; False for what is no address."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network)
    except ValueError:
        return False
