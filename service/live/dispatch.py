"""What a node does with each kind of message from the bus."""

from collections.abc import Callable
from typing import Literal

from service.live.bus_entries import Entry
from service.live.hub import Hub
from service.live.messages import Blocked, Disconnect, Flush, Push
from service.live.protocol import Close
from service.live.watches import Watches

Kind = Literal["key", "user", "address"]


class Dispatch:
    """`node` is this node's name; `heard_block(kind, subject, until_s, reason)` keeps somebody out from now on, and
    `heard_flush(group, before_ms)` makes what was cached until then a miss."""

    def __init__(
        self,
        node: str,
        hub: Hub,
        heard_block: Callable[[Kind, str, float, str], None],
        heard_flush: Callable[[str | None, int], None],
        watches: Watches,
    ) -> None:
        self._node, self._hub, self._heard_block, self._heard_flush = node, hub, heard_block, heard_flush
        self._watches = watches

    async def deliver(self, entry: Entry) -> int:
        """Act on one entry; returns the hub's tick, for an entry that may come back."""
        message = entry.message
        if isinstance(message, Push):
            self._watches.heard(entry, message)  # before anything waits: what the bus remembers, a watch has heard
            return await self._hub.push(message, entry.seq, entry.local_tick)
        if isinstance(message, Disconnect):
            self._hub.disconnect(message.user_id, message.session_id, Close.DISCONNECTED, message.reason)
        elif isinstance(message, Blocked):
            self._block(message)
        elif isinstance(message, Flush):
            self._heard_flush(message.group, message.before_ms)
        elif message.node == self._node and not message.expired():
            self._drain(message.rate)
        return self._hub.tick

    def _block(self, message: Blocked) -> None:
        self._heard_block(message.blocked, message.subject, message.until_s, message.reason)
        if message.until_s:
            self._hub.block(message.blocked, message.subject, message.reason)

    def _drain(self, rate: float) -> None:
        if rate:
            self._hub.start_draining(rate)
            self._watches.end_all()
        else:
            self._hub.stop_draining()
