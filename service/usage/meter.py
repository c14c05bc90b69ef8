"""What one request has used so far."""

import random
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.usage.row import UsageRow


def new_id() -> uuid.UUID:
    """Of version 4 (RFC 9562). It need not be a secret, and uuid4() asks the kernel each time."""
    return uuid.UUID(int=random.getrandbits(128), version=4)


@dataclass
class Meter:
    """Begins at `started`, when the request's head (on a socket: its message) had come, by time.perf_counter(); `row()`
    is its entry in the ledger."""

    request_id: str
    key_hash: bytes
    user_id: str
    agent: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    cached: bool = False
    started: float = field(default_factory=time.perf_counter)
    id: uuid.UUID = field(default_factory=new_id)
    timestamp: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.timestamp = datetime.now(UTC) - timedelta(seconds=time.perf_counter() - self.started)

    def add(self, tokens_in: int, tokens_out: int, cost_usd: float = 0.0) -> None:
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.cost_usd += cost_usd

    def row(self, status: int) -> UsageRow:
        return UsageRow(
            id=self.id,
            request_id=self.request_id,
            timestamp=self.timestamp,
            key_hash=self.key_hash.hex(),
            user_id=self.user_id,
            agent=self.agent,
            model=self.model,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            cached=self.cached,
            status=status,
            duration_s=time.perf_counter() - self.started,
            cost_usd=self.cost_usd,
        )
