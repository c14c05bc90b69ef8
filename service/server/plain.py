"""The plain exchange past h11, whose state machine takes five times as long for it; all else is h11's, and so is doubt.

Plain is a request that came whole in one read with nothing behind it, with simple fields and a body of known length (or
none), on a connection that stays open; and an answer whose length is told. What turns out to be anything else is told
to h11 from its first byte, which then goes on as if it had seen everything: the tests hold both against each other.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import h11
from h11._headers import Headers  # not public, and the only way past the checks; the version is pinned

from service.server.heads import LENGTH, shape

Item = tuple[bytes, bytes, bytes]  # the field's name as it came, in lower case; its value

# RFC 9112, 3 and 5, without what is rare: methods that frame otherwise (HEAD, CONNECT), versions, other white space.
# Possessive, so that no input makes it try twice.
HEAD: Final = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) ([\x21-\x7e]++) HTTP/1\.1\r\n((?:[0-9A-Za-z-]++: [\x20-\x7e]++\r\n)++)\r\n"
)
FIELD: Final = re.compile(rb"([^:]++): ([^\r]++)\r\n")
# These change how messages are framed, or what the connection is.
SPECIAL: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"))
BODILESS: Final = frozenset((204, 304))


def plain_request(method: bytes, target: bytes, items: list[Item]) -> h11.Request:
    """Its fields have been looked at, so they are put in past the checks."""
    request = h11.Request.__new__(h11.Request)
    put = object.__setattr__  # frozen, for everybody else
    put(request, "method", method)
    put(request, "target", target)
    put(request, "headers", Headers(items))
    put(request, "http_version", b"1.1")
    return request


class Exchange:
    """One plain request and its answer. `data`: all bytes of the request."""

    __slots__ = ("_answer", "_left_bytes", "_sent_bytes", "body", "data", "our_state", "request", "taken")

    def __init__(self, data: bytes, request: h11.Request, body: bytes) -> None:
        self.data, self.request, self.body = data, request, body
        self.taken, self._sent_bytes, self._left_bytes = False, 0, 0
        self._answer: h11.Response | None = None
        self.our_state: Any = h11.IDLE

    def take(self) -> tuple[h11.Request, bytes]:
        self.taken, self.our_state = True, h11.SEND_RESPONSE
        return self.request, self.body

    def sent(self) -> Iterator[h11.Event]:
        """What has been sent, as h11 wants to know it: of the body how long it is."""
        if self._answer is not None:
            yield self._answer
        if self._sent_bytes:
            yield h11.Data(data=bytes(self._sent_bytes))
        if self.our_state is h11.DONE:
            yield h11.EndOfMessage()

    def send(self, event: h11.Event) -> bytes | None:
        """The bytes of what we answer; None where it is no longer plain."""
        if self.our_state is h11.SEND_BODY:
            if type(event) is h11.Data and len(event.data) <= self._left_bytes:
                self._left_bytes -= len(event.data)
                self._sent_bytes += len(event.data)
                return event.data
            if type(event) is h11.EndOfMessage and not self._left_bytes and not event.headers:
                self.our_state = h11.DONE
                return b""
        elif self.our_state is h11.SEND_RESPONSE and type(event) is h11.Response:
            return self._head(event)
        return None

    def _head(self, answer: h11.Response) -> bytes | None:
        fields = answer.headers.raw_items()
        length_at = shape(tuple([name for name, _ in fields])).whole_at
        if length_at is None or answer.status_code in BODILESS or answer.http_version != b"1.1":
            return None
        self._left_bytes = int(fields[length_at][1])
        self._answer, self.our_state = answer, h11.SEND_BODY
        lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status_code, answer.reason, lines)


class Connection(h11.Connection):
    """h11's, of a server. It never hears of exchanges that stay plain, and is idle meanwhile."""

    def __init__(self, max_incomplete_event_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_incomplete_event_bytes)
        self._exchange: Exchange | None = None

    @property
    def our_state(self) -> Any:
        return self._exchange.our_state if self._exchange else super().our_state

    @property
    def their_state(self) -> Any:
        if self._exchange is None:
            return super().their_state
        return h11.DONE if self._exchange.taken else h11.IDLE

    @property
    def trailing_data(self) -> tuple[bytes, bool]:
        if self._exchange is None:
            return super().trailing_data
        return b"" if self._exchange.taken else self._exchange.data, False

    def receive_data(self, data: bytes) -> None:
        if self._exchange is not None:
            self._leave_to_h11()
        elif (
            super().their_state is h11.IDLE and super().our_state is h11.IDLE and super().trailing_data == (b"", False)
        ):
            self._exchange = plain_exchange(data)
        if self._exchange is None:
            super().receive_data(data)

    def next_event(self) -> Any:
        if self._exchange is not None and self._exchange.taken:
            return h11.NEED_DATA
        self._leave_to_h11()
        return super().next_event()

    def take(self) -> tuple[h11.Request, bytes] | None:
        """A plain request and its body, once; None where there is none."""
        exchange = self._exchange
        return exchange.take() if exchange and not exchange.taken else None

    def send(self, event: Any) -> Any:
        if self._exchange is not None:
            if (data := self._exchange.send(event)) is not None:
                return data
            self._leave_to_h11()
        return super().send(event)

    def start_next_cycle(self) -> None:
        exchange = self._exchange
        if exchange and exchange.our_state is h11.DONE:
            self.their_http_version = b"1.1"
            self._exchange = None
            return
        self._leave_to_h11()
        super().start_next_cycle()

    def _leave_to_h11(self) -> None:
        """Tell h11 all that has been received, taken and sent."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        super().receive_data(exchange.data)
        while exchange.taken and super().their_state is not h11.DONE:
            super().next_event()
        for event in exchange.sent():
            super().send(event)


def plain_exchange(data: bytes) -> Exchange | None:
    head = HEAD.match(data)
    if head is None:
        return None
    method, target, block = head.groups()
    items = [(name, name.lower(), value) for name, value in FIELD.findall(block)]
    body_bytes = body_length(items)
    if body_bytes is None or head.end() + body_bytes != len(data):
        return None
    return Exchange(data, plain_request(method, target, items), data[head.end() :])


def body_length(items: list[Item]) -> int | None:
    """Of a request with one host, in bytes; None where anything about its fields is not plain."""
    hosts, length = 0, None
    for _, name, value in items:
        if value[0] == 0x20 or value[-1] == 0x20 or name in SPECIAL:
            return None
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length is not None or not LENGTH.fullmatch(value):
                return None
            length = int(value)
        elif name == b"connection" and value.lower() != b"keep-alive":
            return None
    return length or 0 if hosts == 1 else None
