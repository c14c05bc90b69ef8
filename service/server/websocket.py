"""Hypercorn's WebSocket class, with the holes closed that `tests/server/test_server_websocket.py` shows in it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, StringIO
from typing import Any, Protocol

import h11
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.events import CloseConnection, Message, Ping, Pong
from wsproto.events import Event as WSProtoEvent

from service.server.refusals import RequestRefused, refusal

ABNORMAL_CLOSURE = 1006
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
EVENTS_A_TURN = 64  # about 1 ms; 64 KB of the smallest frames are 10,000, and other clients waited 1 to 4 s for them
# Each of these frames is legal (RFC 6455, 5.4 and 5.5), also a pong that nobody asked for: it is their number that is
# not. Sane clients ping every few seconds; 100 a second are allowed. Fragments are counted while they are so small that
# a message of the largest size would need 1,000 of them; larger ones are bounded by that size.
CONTROL_COST, FRAGMENT_COST, COST_A_SECOND = 10, 1, 1_000
SMALL_FRAGMENT = 64  # bytes, or characters of text


class FrameSink(Protocol):
    """The connection under a WebSocket, as far as it is written to frame by frame."""

    def push(self, data: bytes) -> int: ...

    def unread(self) -> int: ...

    def abort(self) -> None: ...


class ClientGone(OSError):
    """Raised to an application that sends to a WebSocket which is closed (the ASGI specification asks for OSError)."""


def stream_arguments(protocol: H11Protocol) -> tuple[Any, ...]:
    return (
        protocol.app,
        protocol.config,
        protocol.context,
        protocol.task_group,
        protocol.ssl,
        protocol.client,
        protocol.server,
        protocol.stream_send,
        STREAM_ID,
    )


def wants_websocket(request: h11.Request) -> bool:
    """Whether `request` is a WebSocket handshake; raises RequestRefused where one has a header that is not ASCII."""
    if request.method != b"GET":
        return False
    fields = [(name, value) for name, value in request.headers if name in (b"upgrade", b"connection")]
    tokens = b",".join(value for name, value in fields if name == b"connection").lower().split(b",")
    upgrades = [value.strip().lower() for name, value in fields if name == b"upgrade"]
    if upgrades != [b"websocket"] or b"upgrade" not in (token.strip() for token in tokens):
        return False
    # Hypercorn decodes these as ASCII, and would end in a traceback.
    if not all(value.isascii() for name, value in request.headers if name.startswith(b"sec-") or name == b"connection"):
        raise RequestRefused(400)
    return True


def nothing() -> None:
    """Do nothing."""


class ByteBuffer(WebsocketBuffer):
    """One message being received; the limit is in bytes (hypercorn counts characters, after storing them)."""

    def extend(self, event: Message[Any]) -> None:
        data = event.data
        self.length += len(data) if isinstance(data, (bytes, bytearray)) or data.isascii() else len(data.encode())
        if self.length > self.max_length:
            raise FrameTooLargeError
        if self.value is None:
            self.value = StringIO() if isinstance(data, str) else BytesIO()
        self.value.write(data)


class FixedWindow:
    """A rate limit: `COST_A_SECOND` in each window of a second, the next beginning with what comes after it."""

    __slots__ = ("_ends_at", "_spent")

    def __init__(self) -> None:
        self._ends_at, self._spent = 0.0, 0

    def spend(self, cost: int, now: float) -> bool:
        """Whether `cost` still fits at `now`, seconds of a clock that only goes forward."""
        if now >= self._ends_at:
            self._ends_at, self._spent = now + 1.0, 0
        self._spent += cost
        return self._spent <= COST_A_SECOND


def is_small_fragment(message: Message[Any]) -> bool:
    """Whether a fragment other than the last of its message ends here, with hardly anything in it.

    A frame that comes in several reads is several events, of which only the last has the frame finished.
    """
    return message.frame_finished and not message.message_finished and len(message.data) < SMALL_FRAGMENT


class WebSocket(WSStream):
    """Hypercorn's WebSocket without compression, ended for good on oversize, telling the client's own close code.

    The application finds it as `scope["state"]["link"]`: `push`, `write`, `shut`, `abort` and `on_pong` are what ASGI
    has no words for. A frame for ten thousand clients is encoded once, where `websocket.send` would do it for each.
    """

    def __init__(self, protocol: H11Protocol, sink: FrameSink, count: Callable[[str], None]) -> None:
        super().__init__(*stream_arguments(protocol))
        self.buffer = ByteBuffer(self.config.websocket_max_message_size)
        self._code = ABNORMAL_CLOSURE
        self._sink = sink
        self._count = count
        self._window = FixedWindow()
        self.on_pong = nothing

    def push(self, frame: bytes) -> int:
        """Write whole frames (RFC 6455, 5.2; unmasked) without waiting; how many bytes the client has yet to take."""
        return self._sink.push(frame) if self.state is ASGIWebsocketState.CONNECTED else 0

    async def write(self, frame: bytes) -> None:
        """The same, waiting while the client is slow; raises ClientGone when it has left."""
        if self.closed or self.state is not ASGIWebsocketState.CONNECTED:
            raise ClientGone("the WebSocket is closed")
        await self.send(Data(STREAM_ID, frame))

    def unread(self) -> int:
        """Bytes that the client has yet to take; 0 once the connection is over. Any thread may ask."""
        sink: FrameSink | None = vars(self).get("_sink")
        return sink.unread() if sink and self.state is ASGIWebsocketState.CONNECTED else 0

    def abort(self) -> None:
        """Cut the connection: nothing more is sent, not even a close frame."""
        self._sink.abort()

    async def shut(self, code: int, reason: str) -> None:
        """Close from our side; the application is told `code` at once, whatever the client answers."""
        self._code = code
        if self.state is ASGIWebsocketState.CONNECTED:
            self.state = ASGIWebsocketState.CLOSED
            await self._send_wsproto_event(CloseConnection(code, reason))
        elif self.state is ASGIWebsocketState.HANDSHAKE:
            self.state = ASGIWebsocketState.HTTPCLOSED
            await self._send_error_response(503)
        await self.send(StreamClosed(STREAM_ID))

    def release(self) -> None:
        """The connection is over: keep no cycle alive."""
        self.on_pong = nothing
        self.app_put = None
        self.scope["state"].clear()
        for back in ("send", "_sink"):
            vars(self).pop(back, None)

    async def handle(self, event: StreamEvent) -> None:
        if self.closed:
            return
        if isinstance(event, Request):
            await self._open(event)
        elif isinstance(event, StreamClosed):
            self.closed = True
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": self._code})
        elif isinstance(event, Body | Data) and not self.handshake.accepted:
            await self._send_error_response(400)
            await self.send(StreamClosed(STREAM_ID))
        else:
            await super().handle(event)

    async def app_send(self, message: Any) -> None:
        if self.closed and message is not None and message["type"] == "websocket.send":
            raise ClientGone("the WebSocket is closed")
        await super().app_send(message)

    async def _open(self, request: Request) -> None:
        # Permessage-deflate cannot be switched off in hypercorn: 21 KB per idle socket became 120 KB.
        headers = [field for field in request.headers if field[0] != b"sec-websocket-extensions"]
        await super().handle(replace(request, headers=headers))
        if self.closed:  # an invalid handshake was answered 400: hypercorn leaves the connection open for ever
            await self.send(StreamClosed(STREAM_ID))

    async def _send_error_response(self, status_code: int) -> None:
        self._count("request_refused")
        headers, body = refusal(status_code)
        await self.send(Response(STREAM_ID, headers=headers, status_code=status_code))
        await self.send(Body(STREAM_ID, data=body))
        await self.send(EndBody(STREAM_ID))

    async def _handle_events(self) -> None:
        for number, event in enumerate(self.connection.events(), 1):
            if isinstance(event, Message):
                await self._receive(event)
            else:
                await self._receive_control(event)
            if number % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)  # nothing above need ever wait, and others want their turn
            if self.closed:
                return

    async def _receive_control(self, event: WSProtoEvent) -> None:
        if isinstance(event, CloseConnection):
            self._code = int(event.code)
            await self._send_wsproto_event(event.response())
            await self.send(StreamClosed(STREAM_ID))
        elif not self._window.spend(CONTROL_COST, asyncio.get_running_loop().time()):
            await self._end_flood()
        elif isinstance(event, Ping):
            await self._send_wsproto_event(event.response())
        elif isinstance(event, Pong):
            self.on_pong()

    async def _receive(self, message: Message[Any]) -> None:
        if is_small_fragment(message) and not self._window.spend(FRAGMENT_COST, asyncio.get_running_loop().time()):
            await self._end_flood()
            return
        try:
            self.buffer.extend(message)
        except FrameTooLargeError:
            self._count("message_oversize")
            await self.shut(MESSAGE_TOO_BIG, "message too big")
            return
        if message.message_finished and self.app_put is not None:
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()

    async def _end_flood(self) -> None:
        self._count("frame_flood")
        await self.shut(POLICY_VIOLATION, "too many small frames")
