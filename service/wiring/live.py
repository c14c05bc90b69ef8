"""The live side of a node: who is online, its sockets, and the bus that joins it to the other nodes."""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from service.background import unwatched
from service.http.handshake import SocketEndpoint
from service.http.ratelimit import Gate
from service.http.streams import Streams
from service.keys.blocks import Blocks
from service.keys.revocations import MemoryRevocations, RedisRevocations, Revocations
from service.keys.verifier import KeyVerifier
from service.limits.slots import Slots
from service.live.bus import Bus
from service.live.bus_redis import RedisBusLog
from service.live.dispatch import Dispatch
from service.live.hub import Hub
from service.live.key_sweep import KeySweep
from service.live.places import Caps, Places
from service.live.socket import Patience
from service.live.tickets import MemoryTickets, RedisTickets, Tickets, TicketStore
from service.live.watches import Watches
from service.presence.memory import MemoryPresence
from service.presence.redis import RedisPresence
from service.presence.sessions import Presence
from service.presence.tracker import Tracker
from service.routes.admission import Admission
from service.routes.answering import Answering
from service.routes.conversation import Conversations, Costs
from service.routes.session import SessionRoutes
from service.state.failover import Failover
from service.telemetry.socket_metrics import SocketMetrics
from service.telemetry.system import SystemStats
from service.wiring.ground import VERSION, Ground

# Sockets are let go within this much of the server's drain, so that requests have the rest.
DRAIN_SOCKETS_S = 12.0
DRAIN_RATE_LEAST = 200.0


def key_verifier(ground: Ground) -> KeyVerifier:
    shared, memory = RedisRevocations(ground.redis) if ground.redis else None, MemoryRevocations()
    verifier = KeyVerifier(ground.db, Failover[Revocations](ground.breaker, shared, memory), shared)
    if ground.breaker and shared:
        ground.breaker.on_recovery(lambda: memory.republish(shared))
        ground.breaker.on_recovery(verifier.forget_all)
    ground.work["revocations"] = verifier.run
    return verifier


class Live:
    """Made once, by `open_node`; `start()` when everything that it stands on is there."""

    def __init__(self, ground: Ground, heard_flush: Callable[[str | None, int], None]) -> None:
        self._ground, self._heard_flush = ground, heard_flush
        settings = ground.settings
        caps = Caps(settings.max_websocket_connections, settings.websockets_per_key, settings.websockets_per_address)
        self.metrics = SocketMetrics(ground.metrics)
        self.hub = Hub(Places(caps), self.metrics)
        ground.metrics.ws_limit.set(caps.node)
        ground.metrics.ws_queue.set_function(self.hub.queue_bytes)
        ground.metrics.ws_queue_messages.set_function(self.hub.queue_messages)
        self.streams = Streams()
        self.watches = Watches(lambda: self.hub.draining)
        self.system = SystemStats(ground.started)
        self.blocks = Blocks(ground.db, ran=ground.watched("blocks"))
        self.verifier = key_verifier(ground)
        self.tickets = tickets(ground)
        self._drift = 0.0
        self.tracker = tracker(ground, self.card, self._drifted)
        self.bus = self._bus()

    def _bus(self) -> Bus:
        ground = self._ground
        dispatch = Dispatch(ground.name, self.hub, self.blocks.heard, self._heard_flush, self.watches)
        shared = RedisBusLog(ground.redis, ground.waiting) if ground.redis and ground.waiting else None
        return Bus(dispatch.deliver, shared, ground.breaker, ground.metrics, on_gap=self._tell_gap)

    def _drifted(self, drift: float) -> None:
        self._drift = drift

    async def _tell_gap(self) -> None:
        self.watches.doubt()
        await self.hub.tell_gap(self.bus.position)

    def start(self) -> None:
        """Hook to the breaker, and register the background work."""
        ground = self._ground
        if ground.breaker:
            ground.breaker.on_recovery(self.tracker.begin)
            ground.breaker.on_recovery(self.bus.recovered)
        sweep = KeySweep([self.hub, self.streams], self.verifier.standings, ran=ground.watched("key-sweep"))
        self.verifier.on_change = sweep.changed
        self.hub.on_held = self.streams.on_held = sweep.held
        self.blocks.on_block = self.hub.block
        ground.work |= {
            "presence": self.tracker.run,
            "bus": self.bus.run,
            "bus-speaking": self.bus.speak,
            "blocks": self.blocks.run,
            "key-sweep": sweep.run,
        }
        ground.stack.push_async_callback(self.tracker.close)
        ground.stack.push_async_callback(self.bus.close)

    def session(self, gate: Gate, answering: Answering, slots: Slots) -> SocketEndpoint[Any]:
        """What serves `GET /ws/session`."""
        settings, observers = self._ground.settings, self._ground.observers
        admission = Admission(gate, self.hub, settings.websocket_origins)
        costs = Costs(gate, slots)
        conversations = Conversations(answering, costs, self.metrics, observers, lambda: self.hub.reached)
        patience = Patience(idle_s=settings.websocket_timeout)
        serving = SessionRoutes(self.hub, self.bus, self.tracker, conversations, self.metrics, patience)
        return SocketEndpoint(admission.admit, serving.serve, observers, self.metrics.handshake)

    def card(self) -> dict[str, Any]:
        """What the fleet table says of this node."""
        sample = self.system.sample()
        process, machine = sample["process"], sample["machine"]
        return {
            "node": self._ground.name,
            "version": VERSION,
            **self.hub.stats(),
            "cpu_percent": process["cpu_percent"],
            "rss_bytes": process["rss_bytes"],
            "uptime_s": process["uptime_s"],
            "load_1m": machine["load_1m"],
            "presence_drift": self._drift,
        }

    async def let_go(self) -> None:
        """End what follows tasks, and close every socket within DRAIN_SOCKETS_S, the chats under way last."""
        self.watches.end_all()
        await self.hub.let_go(max(DRAIN_RATE_LEAST, len(self.hub) / DRAIN_SOCKETS_S))


def tickets(ground: Ground) -> Tickets:
    shared = RedisTickets(ground.redis) if ground.redis else None
    return Tickets(Failover[TicketStore](ground.breaker, shared, MemoryTickets()))


def tracker(ground: Ground, card: Callable[[], dict[str, Any]], drift: Callable[[float], None]) -> Tracker:
    settings = ground.settings
    zone = ZoneInfo(settings.presence_zone)
    memory = MemoryPresence(zone)
    fleet = RedisPresence(ground.redis, zone, settings.presence_shards) if ground.redis else None
    presence = Failover[Presence](ground.breaker, fleet, memory)
    audited = ground.watched("presence-audit") if fleet else unwatched
    return Tracker(presence, memory, fleet, card=card, drift=drift, audited=audited)
