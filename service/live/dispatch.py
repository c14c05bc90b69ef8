"""What a node does with each kind of message from the bus."""

from collections.abc import Callable

from service.live.bus_entries import Entry
from service.live.hub import Hub
from service.live.messages import Blocked, Disconnect, Push
from service.live.protocol import Close


class Dispatch:
    """`node` is this node's name; `heard_block(user_id, until_s, reason)` keeps a user out from now on."""

    def __init__(self, node: str, hub: Hub, heard_block: Callable[[str, float, str], None]) -> None:
        self._node, self._hub, self._heard_block = node, hub, heard_block

    async def deliver(self, entry: Entry) -> int:
        """Act on one entry; returns the hub's tick, for an entry that may come back."""
        message = entry.message
        if isinstance(message, Push):
            return await self._hub.push(message, entry.seq, entry.local_tick)
        if isinstance(message, Disconnect):
            self._hub.disconnect(message.user_id, message.session_id, Close.DISCONNECTED, message.reason)
        elif isinstance(message, Blocked):
            self._block(message)
        elif message.node == self._node and not message.expired():
            self._drain(message.rate)
        return self._hub.tick

    def _block(self, message: Blocked) -> None:
        self._heard_block(message.user_id, message.until_s, message.reason)
        if message.until_s:
            self._hub.block(message.user_id, message.reason)

    def _drain(self, rate: float) -> None:
        if rate:
            self._hub.start_draining(rate)
        else:
            self._hub.stop_draining()
