"""Hypercorn's HTTP/1.1 class, with the holes closed that `tests/server/test_server_http.py` shows in it."""

import random
import re
from collections.abc import Callable
from typing import Protocol, cast

import h11
from hypercorn.asyncio.worker_context import EventWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent, TaskGroup, WorkerContext

from service.server.heads import response
from service.server.plain import Connection
from service.server.refusals import RequestRefused, refusal
from service.server.websocket import WebSocket, stream_arguments, wants_websocket

Address = tuple[str, int] | None
HTTP_VERSIONS = {b"1.0", b"1.1"}
ABSOLUTE_FORM = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
SERVICE_RESTART = 1012
RETRY_SPREAD_MS = 1_000


class ReadingOver(Exception):
    """Nothing of what has not been parsed yet will be: the client has gone, or we have closed."""


class Wire(Protocol):
    """The connection that a protocol speaks on."""

    context: WorkerContext
    addresses: tuple[Address, Address]  # the client's, ours
    count: Callable[[str], None]
    unread: Callable[[], int]

    async def send(self, event: Event) -> None: ...

    def hold(self, head: bytes) -> None: ...

    def push(self, data: bytes) -> int: ...

    def abort(self) -> None: ...


class Pause(EventWrapper):
    """Where hypercorn waits while bytes follow a request that is being answered, and so reads nothing more."""

    over = False

    def end(self) -> None:
        self.over = True
        self._event.set()

    async def wait(self) -> None:
        if not self.over:
            await super().wait()
        if self.over:
            raise ReadingOver


class HttpProtocol(H11Protocol):
    """HTTP/1.1 only: `Upgrade: h2c` is ignored (RFC 9110, 7.8), and an HTTP/2 preface is an unsupported version."""

    def __init__(self, app: AppWrapper, config: Config, wire: Wire, tasks: TaskGroup) -> None:
        state = ConnectionState({})
        super().__init__(app, config, wire.context, tasks, state, False, *wire.addresses, wire.send)
        self.connection = Connection(config.h11_max_incomplete_size)
        self._wire = wire
        self._pause = self.can_read = Pause()
        self._websocket: WebSocket | None = None
        self._refused = False  # and what is behind the refused request has not been read

    @property
    def client_is_sending(self) -> bool:
        """Whether more bytes may be under way, so that closing at once could destroy what we said last."""
        reading = self.connection.their_state not in (h11.IDLE, h11.DONE) or bool(self.connection.trailing_data[0])
        return reading or self._refused

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self.stop_reading()
        try:
            await super().handle(event)
        except RequestRefused as refused:
            self._refused = True
            await self._send_error_response(refused.status, refused.with_body)
            await self.send(Closed())
        except ReadingOver:
            await self._close_stream()

    def stop_reading(self) -> None:
        """Wait no longer to parse what follows the request being answered; the application is told."""
        self._pause.end()

    async def retire(self) -> None:
        """Draining: a WebSocket is closed with 1012; a request in progress is left to finish."""
        if isinstance(self.stream, WebSocket):
            hint_ms = random.randrange(RETRY_SPREAD_MS)  # noqa: S311 - so that not all come back at once
            await self.stream.shut(SERVICE_RESTART, f"restart; retry_ms={hint_ms}")

    def release(self) -> None:
        """The connection is over: let go of what refers back to us, so that all of it is freed now.

        Left to the garbage collector, the cycles of closed connections cost a third of the time of a busy node, in
        pauses that everybody feels.
        """
        if self._websocket is not None:
            self._websocket.release()
        self._websocket = self.stream = None
        for back in ("send", "_wire"):
            vars(self).pop(back, None)

    async def _handle_events(self) -> None:
        """A request that came whole goes to the application as one message: hypercorn makes three events of it."""
        taken = self.connection.take() if isinstance(self.connection, Connection) else None
        if taken is None:
            await super()._handle_events()
            return
        request, body = taken
        await self.send(Updated(idle=False))
        await self._check_protocol(request)
        await self._create_stream(request)
        if self.stream is not None and self.stream.app_put is not None:
            await self.stream.app_put({"type": "http.request", "body": body, "more_body": False})

    async def stream_send(self, event: StreamEvent) -> None:
        kind = type(event)
        if kind is Body:
            await self._send_h11_event(h11.Data(data=cast(Body, event).data))
        elif kind is EndBody:
            await self._send_h11_event(h11.EndOfMessage())
        elif kind is StreamClosed:
            await self._maybe_recycle()
        elif isinstance(event, Response) and event.status_code >= 200:
            await self._send_h11_event(response(event.status_code, self._fields(event)))
        else:
            await super().stream_send(event)

    def _fields(self, event: Response) -> list[tuple[bytes, bytes]]:
        last = self.context.terminated.is_set() or self.keep_alive_requests >= self.config.keep_alive_max_requests
        # Answered before its body came: h11 cannot go on after it, and who is not told asks again on a closing one.
        unread = self.connection.their_state is h11.SEND_BODY
        close = [(b"connection", b"close")] if last or unread else []
        return [*event.headers, *self.config.response_headers("h11"), *close]

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if type(event) is h11.Response:
            self._wire.hold(data)
        elif data:
            await self.send(RawData(data))

    async def _send_error_response(self, status_code: int, with_body: bool = True) -> None:
        """Answer a request that no application sees."""
        self._wire.count("request_refused")
        headers, body = refusal(status_code)
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        if with_body:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _maybe_recycle(self) -> None:
        """Hypercorn closes here when draining, without a warning where the head of this answer was sent before.

        h11 is only DONE where neither side has said `connection: close`.
        """
        await self._close_stream()
        is_idle = self.connection.our_state is h11.DONE and self.connection.their_state is h11.DONE
        if is_idle:
            self.connection.start_next_cycle()
        await self.can_read.set()
        await self.send(Updated(idle=True) if is_idle else Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Refuse what is not an HTTP/1 request for a path here, with a head of bounded size."""
        with_body = event.method != b"HEAD"
        if event.http_version not in HTTP_VERSIONS:
            raise RequestRefused(505, with_body)
        if origin_form(event.target) is None:
            raise RequestRefused(400, with_body)
        # h11 bounds only a head that arrives in pieces; one that arrives at once may have any size.
        if (
            sum(len(name) + len(value) for name, value in event.headers.raw_items())
            > self.config.h11_max_incomplete_size
        ):
            raise RequestRefused(431, with_body)

    async def _create_stream(self, request: h11.Request) -> None:
        state = self.connection_state
        if wants_websocket(request):
            self.stream = self._websocket = WebSocket(self, self._wire, self._wire.count)
            state = ConnectionState({"link": self.stream})
            self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        else:
            self.stream = HTTPStream(*stream_arguments(self))
        self.keep_alive_requests += 1
        authority, target = origin_form(request.target) or (b"", request.target)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=for_host(authority, request),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=target,
                state=state,
            )
        )


def origin_form(target: bytes) -> tuple[bytes, bytes] | None:
    """Authority (empty in origin form) and path with query; None where it is no http(s) URI (RFC 9112, 3.2)."""
    if target.startswith(b"/"):
        return b"", target
    if (uri := ABSOLUTE_FORM.fullmatch(target)) is None:
        return None
    authority, path, query = uri.groups()
    return authority, (path or b"/") + (query or b"")


def for_host(authority: bytes, request: h11.Request) -> list[tuple[bytes, bytes]]:
    """The headers; an absolute-form target overrides the Host of the request (RFC 9112, 3.2.2)."""
    headers = list(request.headers)
    return [(b"host", authority), *(field for field in headers if field[0] != b"host")] if authority else headers
