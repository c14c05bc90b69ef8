"""Where a request comes from: the peer, or what proxies that are trusted say of it."""

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.types import Scope

from service.errors import SettingsError
from service.keys.block_table import unmapped

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# A chain of proxies is a few links long; a longer one costs time and is somebody's trick.
MOST_PROXIES = 32
# What one subscriber of IPv6 is given at the least (RFC 6177): capping single addresses of it would cap nothing.
SUBSCRIBER_BITS = 64
# Remembered callers, and the longest X-Forwarded-For that is: 2 MB in all at the most.
KNOWN_CALLERS, KNOWN_BYTES = 4096, 256


def networks(names: Sequence[str]) -> list[Network]:
    """The networks of TRUSTED_PROXIES, `10.0.0.0/8` or a single address; raises SettingsError, a line per fault.

    IPv4 written as IPv6 becomes IPv4, as addresses do.
    """
    found, faults = [], []
    for name in names:
        try:
            found.append(unmapped(ipaddress.ip_network(name)))
        except ValueError as error:
            faults.append(f"TRUSTED_PROXIES: {error}")
    if faults:
        raise SettingsError("\n".join(faults))
    return found


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from: the client's address, and what counts as one client with it."""

    address: str
    group: str


class Callers:
    """`of(scope)`, remembered: the same few addresses ask again and again."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._known = functools.lru_cache(KNOWN_CALLERS)(self._found)

    def of(self, scope: Scope) -> Caller:
        peer = scope["client"][0] if scope.get("client") else ""
        said: tuple[bytes, ...] = ()
        if self._trusted:
            said = tuple(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        if sum(map(len, said)) > KNOWN_BYTES:
            return self._found(peer, said)
        return self._known(peer, said)

    def _found(self, peer: str, said: tuple[bytes, ...]) -> Caller:
        scope = {"client": (peer, 0), "headers": [(b"x-forwarded-for", value) for value in said]}
        address = client_address(scope, self._trusted)
        return Caller(address, cap_group(address))


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The client's address, without a port; empty where there is no peer (a Unix socket).

    1. A peer that is not trusted is the client, whatever it says in X-Forwarded-For.
    2. Else walk that header from the right, where the nearest proxy wrote: the first address that is not trusted is
       the client, for whatever stands to its left the client may have made up (RFC 7239 section 5.2; nginx calls
       this `real_ip_recursive`). Where all are trusted it is the left-most.
    3. Something on the way that is no address: the peer.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    address = parsed(peer)
    if address is None or not within(address, trusted):
        return str(address or peer)
    nearest = address
    for said in reversed(forwarded(scope)):
        link = parsed(said)
        if link is None:
            return str(address)
        nearest = link
        if not within(link, trusted):
            break
    return str(nearest)


def cap_group(address: str) -> str:
    """What is counted as one client: an IPv4 address, or an IPv6 address's /64."""
    found = parsed(address)
    if not isinstance(found, IPv6Address):
        return str(found or address)
    return str(IPv6Network((int(found), SUBSCRIBER_BITS), strict=False))


def forwarded(scope: Scope) -> list[str]:
    """The last entries of X-Forwarded-For; several such headers are one list (RFC 9110 section 5.3)."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(values).rsplit(",", MOST_PROXIES)[-MOST_PROXIES:] if values else []


def parsed(text: str) -> Address | None:
    """`192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`; an IPv4 address inside IPv6 as IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def within(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
