"""What administrators are answered. `degraded`: counted or done on this node alone so far, since Redis is away."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from service.devices import Device
from service.keys.block_store import Kind
from service.presence.stats import OnlineUsers
from service.telemetry.system import MachineStats, ProcessStats

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class HubStats(TypedDict):
    """The sockets of the node that answers; `limit` is the most it takes."""

    node: str
    sockets: int
    users: int
    devices: dict[Device, int]
    limit: int
    draining: bool


class Card(TypedDict):
    """What a node last said of itself, within the last 10 s."""

    node: str
    version: str
    sockets: int
    users: int
    devices: dict[Device, int]
    limit: int
    draining: bool
    cpu_percent: float
    rss_bytes: int
    uptime_s: float
    load_1m: float
    presence_drift: float


class PoolStats(TypedDict):
    """Connections to PostgreSQL, and callers that wait for one."""

    idle: int
    used: int
    max: int
    pending: int


class RedisStats(TypedDict, total=False):
    """Empty on a node without Redis."""

    memory_used_bytes: int
    memory_max_bytes: int


class SystemAnswer(TypedDict):
    """The node that answers, and the cards of all; `redis` is null while it is away."""

    node: str
    process: ProcessStats
    machine: MachineStats
    database: PoolStats
    redis: RedisStats | None
    fleet: list[Card]
    degraded: bool


class WebSocketAnswer(TypedDict):
    """The fleet's sockets, this node's, and every node's card."""

    sockets: int
    devices: dict[Device, int]
    node: HubStats
    nodes: list[Card]
    degraded: bool


class DashboardAnswer(TypedDict):
    at: Moment
    node: str
    online_users: OnlineUsers
    system: SystemAnswer
    websocket: WebSocketAnswer


class OnlineUser(TypedDict):
    user_id: str
    sockets: int
    rest_sessions: int


class OnlineUsersPage(TypedDict):
    """Go on with `next_cursor` until it is null."""

    users: list[OnlineUser]
    next_cursor: str | None
    degraded: bool


class BroadcastAnswer(TypedDict):
    """`id` and `expires_at` are null for a dry run; `repeated`: this Idempotency-Key was used before."""

    id: str | None
    recipients: int
    audience: str
    dry_run: bool
    degraded: bool
    expires_at: Moment | None
    repeated: bool


class DisconnectAnswer(TypedDict):
    """`sockets` is how many there were; `id` is null for a dry run."""

    id: str | None
    user_id: str
    sockets: int
    blocked_until: Moment | None
    dry_run: bool
    degraded: bool


class LiftAnswer(TypedDict):
    id: str
    user_id: str
    degraded: bool


class DrainAnswer(TypedDict):
    """`rate` is in sockets a second; 0: the drain is over."""

    id: str
    node: str
    rate: float
    degraded: bool


class LiftedBlockAnswer(TypedDict):
    """`subject` in its shortest form."""

    id: str
    kind: Kind
    subject: str
    degraded: bool


class BlockAnswer(LiftedBlockAnswer):
    until: Moment


class BlockItem(TypedDict):
    """Who is kept out, until when, why and by whom; `at` is when it was said."""

    kind: Kind
    subject: str
    until: Moment
    reason: str
    blocked_by: str
    at: Moment


class BlocksPage(TypedDict):
    """Go on with `next_cursor` until it is null."""

    blocks: list[BlockItem]
    next_cursor: str | None


class FlushAnswer(TypedDict):
    """`agent` is null when all were flushed."""

    id: str
    agent: str | None
    degraded: bool
