"""`GET /ws/session`: one socket from its acceptance to its end; and the tickets that browsers open it with."""

import time

from pydantic_core import to_json
from starlette.responses import Response
from starlette.websockets import WebSocket
from typing_extensions import TypedDict

from service.http.contract import answers
from service.http.operation import Call
from service.live.bus import Bus
from service.live.bus_entries import Seq
from service.live.hub import Hub
from service.live.protocol import Close, Gap, Ready, frame_of
from service.live.socket import Patience, Socket
from service.live.tickets import TICKET_S, Tickets
from service.presence.tracker import Tracker
from service.routes.admission import Visit
from service.routes.conversation import Conversation, Conversations
from service.telemetry.socket_metrics import SocketMetrics


class TicketAnswer(TypedDict):
    ticket: str
    expires_in_s: float


class TicketRoutes:
    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    @answers(TicketAnswer, status=201)
    async def create(self, call: Call[None]) -> Response:
        """A ticket opens one WebSocket, within 30 s, as the owner of this key."""
        ticket = await self._tickets.issue(call.identity.key_hash)
        answer = TicketAnswer(ticket=ticket, expires_in_s=TICKET_S)
        return Response(to_json(answer), 201, {"cache-control": "no-store"}, media_type="application/json")


class SessionRoutes:
    """Accept, count, welcome, converse, and leave nothing behind."""

    def __init__(
        self,
        hub: Hub,
        bus: Bus,
        tracker: Tracker,
        conversations: Conversations,
        metrics: SocketMetrics,
        patience: Patience,
    ) -> None:
        self._hub, self._bus, self._tracker, self._conversations = hub, bus, tracker, conversations
        self._metrics, self._patience = metrics, patience

    async def serve(self, websocket: WebSocket, visit: Visit) -> None:
        """Nothing is awaited between the last check of the admission and the hub: who is blocked, disconnected or
        drained from there on is found by it."""
        guest = visit.guest
        if full := self._hub.places.take(guest.key_hash, guest.address):
            self._metrics.handshake(full.result)
            await refuse(websocket, full.code, full.reason)
            return
        socket = Socket(guest, websocket.scope["state"]["link"], self._patience, self._metrics.rtt)
        self._hub.add(socket)
        try:
            await websocket.accept()
            self._metrics.handshake("accepted")
            await self._stay(websocket, socket, visit)
        finally:
            self._hub.leave(socket)
            self._hub.places.give(guest.key_hash, guest.address)
            await socket.end()

    async def _stay(self, websocket: WebSocket, socket: Socket, visit: Visit) -> None:
        guest, started, code = socket.guest, time.monotonic(), "cut"
        conversation = self._conversations.begin(socket, visit)
        try:
            await self._tracker.add_user(guest.user_id, guest.session_id, visit.client_id, guest.device)
            if socket.open():
                self._welcome(socket)
            code = await listen(websocket, socket, conversation)
        except Exception:
            code = "1011"  # said by whoever handles it
            raise
        finally:
            self._metrics.ended(socket.ended_by, code, time.monotonic() - started)
            try:
                await conversation.end()
            finally:
                await self._tracker.remove_user(guest.session_id)

    def _welcome(self, socket: Socket) -> None:
        """Join, say so, and hand over what was missed: in one turn of the loop, so that nothing falls between."""
        guest = socket.guest
        frames = self._missed(socket) if guest.last_seq else []
        self._hub.join(socket)
        position = self._bus.position or None
        ready = Ready(
            type="ready",
            session_id=guest.session_id,
            user_id=guest.user_id,
            device=guest.device,
            seq=position,
            resumed=bool(guest.last_seq) and frames is not None,
            idle_timeout_s=self._patience.idle_s,
        )
        self._say(socket, "ready", frame_of(ready))
        if frames is None:
            self._say(socket, "gap", frame_of(Gap(type="gap", seq=position)))
            return
        if guest.last_seq:
            socket.floor = Seq.parse(guest.last_seq)
        for type_, frame in frames:
            self._say(socket, type_, frame)

    def _say(self, socket: Socket, type_: str, frame: bytes) -> None:
        socket.push(frame)
        self._metrics.sent(type_, 1, len(frame))

    def _missed(self, socket: Socket) -> list[tuple[str, bytes]] | None:
        """What was pushed since the client's last seq, each with its type; None where that is unknown, or more than may
        wait for a slow reader: it has to fetch afresh."""
        missed = self._bus.missed(socket.guest.last_seq)
        if missed is None:
            return None
        frames, left_bytes = list[tuple[str, bytes]](), self._patience.queue_bytes // 2
        for entry in missed:
            if self._hub.is_for(socket, entry.message):
                frame = self._hub.frame(entry.message, entry.seq)
                frames.append((entry.message.type, frame))
                left_bytes -= len(frame)
                if left_bytes < 0:
                    return None
        return frames


async def refuse(websocket: WebSocket, code: Close, reason: str) -> None:
    """A close code can only be told on an open socket."""
    await websocket.accept()
    await websocket.close(code, reason)


async def listen(websocket: WebSocket, socket: Socket, conversation: Conversation) -> str:
    """Take what the client sends until it is over; the close code, as the server learnt it."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return str(message.get("code", 1006))
        socket.heard()
        await conversation.take(message.get("text"))
