"""What is limited, and how far: the settings' rates by policy, and a key's own where it has any."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from limits import parse

from service.settings import Settings

log = structlog.get_logger()

ADDRESS = "address"  # requests that bring no key, by client address
AUTH = "auth"  # keys and tickets that were refused, by client address
KEYED = ("chat", "api", "keys", "admin")  # by key; what an operation names
POLICIES = (*KEYED, ADDRESS, AUTH)
# What a key's own rates may name beyond this is somebody's mistake.
PARSED_RATES = 1024


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` requests in any `window_s` seconds, as the sliding window counts them."""

    policy: str
    amount: int
    window_s: int

    @property
    def window_ms(self) -> int:
        return self.window_s * 1000


class Caller(Protocol):
    """A key, as whoever identified it knows it: its SHA-256, and its own rates by policy."""

    @property
    def key_hash(self) -> bytes: ...

    @property
    def limits(self) -> Mapping[str, str]: ...


def subject_of(key_hash: bytes) -> str:
    """How a key is named in Redis: 128 bits of its hash, which say nothing of the secret."""
    return key_hash.hex()[:32]


def address_subject(address: str) -> str:
    """How a client address is named in Redis: not at all, it is personal data."""
    return hashlib.sha256(address.encode()).hexdigest()[:32]


class Policies:
    """`rates` by policy, as the `limits` library writes them: `30/minute`."""

    def __init__(self, rates: Mapping[str, str]) -> None:
        self._limits = {policy: limit_of(policy, rate) for policy, rate in rates.items()}
        self._own = functools.lru_cache(PARSED_RATES)(self._parsed)

    def limit(self, policy: str, own: Mapping[str, str]) -> Limit:
        """The limit of a policy for a caller with these rates of its own."""
        rate = own.get(policy) if own else None
        return self._own(policy, rate) if rate else self._limits[policy]

    def _parsed(self, policy: str, rate: str) -> Limit:
        try:
            return limit_of(policy, rate)
        except ValueError:  # written past the checks; nobody gets more for it
            log.warning("limits.malformed_rate", policy=policy, rate=str(rate)[:50])
            return self._limits[policy]


def limit_of(policy: str, rate: str) -> Limit:
    """Raises ValueError for what is no rate."""
    item = parse(rate)
    return Limit(policy, item.amount, item.get_expiry())


def rates(settings: Settings) -> dict[str, str]:
    return {
        "chat": settings.rate_limit_chat,
        "api": settings.rate_limit_api,
        "keys": settings.rate_limit_keys,
        "admin": settings.rate_limit_admin,
        ADDRESS: settings.rate_limit_address,
        AUTH: settings.rate_limit_auth_failures,
    }
