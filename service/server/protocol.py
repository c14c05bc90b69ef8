"""Hypercorn's HTTP/1.1 and WebSocket classes, with the holes closed that `tests/server/` shows in them."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, StringIO
from typing import Any, Protocol, cast

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Body, Data, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent, TaskGroup, WorkerContext
from wsproto.events import CloseConnection, Message, Ping

Address = tuple[str, int] | None
HTTP_VERSIONS = {b"1.0", b"1.1"}
ABNORMAL_CLOSURE = 1006
MESSAGE_TOO_BIG = 1009
SERVICE_RESTART = 1012


class RequestRefused(Exception):
    """A request that h11 accepts and we do not; answered with `status` and closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ClientGone(OSError):
    """Raised to an application that sends to a WebSocket which is closed (the ASGI specification asks for OSError)."""


class Wire(Protocol):
    """The connection that a protocol speaks on."""

    context: WorkerContext
    addresses: tuple[Address, Address]  # the client's, ours
    count: Callable[[str], None]

    async def send(self, event: Event) -> None: ...

    def hold(self, head: bytes) -> None: ...


class HttpProtocol(H11Protocol):
    """HTTP/1.1 only: `Upgrade: h2c` is ignored (RFC 9110, 7.8), and an HTTP/2 preface is an unsupported version."""

    def __init__(self, app: AppWrapper, config: Config, wire: Wire, tasks: TaskGroup) -> None:
        state = ConnectionState({})
        super().__init__(app, config, wire.context, tasks, state, False, *wire.addresses, wire.send)
        self._wire = wire

    @property
    def client_is_sending(self) -> bool:
        """Whether more bytes may be under way, so that closing at once could destroy what we said last."""
        return self.connection.their_state not in (h11.IDLE, h11.DONE) or bool(self.connection.trailing_data[0])

    async def handle(self, event: Event) -> None:
        try:
            await super().handle(event)
        except RequestRefused as refused:
            await self._send_error_response(refused.status)
            await self.send(Closed())

    async def retire(self) -> None:
        """Draining: a WebSocket is closed with 1012; a request in progress is left to finish."""
        if isinstance(self.stream, WebSocket):
            await self.stream.shut(SERVICE_RESTART, "restart")

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and self.context.terminated.is_set() and event.status_code >= 200:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if type(event) is h11.Response and self.connection.their_state is not h11.ERROR:
            self._wire.hold(self.connection.send(event))
        else:
            await super()._send_h11_event(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Refuse what is not an origin-form HTTP/1 request with a head of bounded size."""
        if event.http_version not in HTTP_VERSIONS:
            raise RequestRefused(505)
        if not event.target.startswith(b"/"):
            raise RequestRefused(400)
        # h11 bounds only a head that arrives in pieces; one that arrives at once may have any size.
        if sum(len(name) + len(value) for name, value in event.headers) > self.config.h11_max_incomplete_size:
            raise RequestRefused(431)

    async def _create_stream(self, request: h11.Request) -> None:
        if wants_websocket(request):
            self.stream = WebSocket(self, self._wire.count)
            self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        else:
            self.stream = HTTPStream(*stream_arguments(self))
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )


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


class WebSocket(WSStream):
    """Hypercorn's WebSocket without compression, ended for good on oversize, telling the client's own close code."""

    def __init__(self, protocol: H11Protocol, count: Callable[[str], None]) -> None:
        super().__init__(*stream_arguments(protocol))
        self.buffer = ByteBuffer(self.config.websocket_max_message_size)
        self._code = ABNORMAL_CLOSURE
        self._count = count

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

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._receive(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                self._code = int(event.code)
                await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(STREAM_ID))
            if self.closed:
                return

    async def _receive(self, message: Message[Any]) -> None:
        try:
            self.buffer.extend(message)
        except FrameTooLargeError:
            self._count("message_oversize")
            await self.shut(MESSAGE_TOO_BIG, "message too big")
            return
        if message.message_finished and self.app_put is not None:
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()
