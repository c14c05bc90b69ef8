"""One metered request, as the ledger, the spool and PostgreSQL have it."""

import uuid
from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)  # frozen would take twice as long to make
class UsageRow:
    """Its fields are api_usage's columns. `status` is HTTP's; 499: the client left."""

    id: uuid.UUID
    request_id: str
    timestamp: datetime
    key_hash: str  # hexadecimal
    user_id: str
    agent: str
    model: str
    tokens_in: int
    tokens_out: int
    cached: bool
    status: int
    duration_s: float
    cost_usd: float = 0.0
