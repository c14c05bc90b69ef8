"""The way past h11 for plain exchanges: whatever is received and sent, in whatever order, h11 would do the same."""

from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.server.heads import response
from service.server.plain import Connection, plain_exchange

MOST_BYTES = 4_096
GET = b"GET / HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n"
POST = b"POST /size?a=b HTTP/1.1\r\nhost: test\r\nX-API-Key: k\r\ncontent-length: 5\r\n\r\nhello"
OK = response(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")])
PARTS = (h11.Data(data=b"hello"), h11.EndOfMessage())

Step = Callable[[h11.Connection], Any]


def both() -> tuple[Connection, h11.Connection]:
    return Connection(MOST_BYTES), h11.Connection(h11.SERVER, MOST_BYTES)


def told(event: Any) -> Any:
    """An event as what can be compared: ours are of other classes."""
    if isinstance(event, h11.Request):
        return event.method, event.target, event.http_version, list(event.headers), event.headers.raw_items()
    return bytes(event.data) if isinstance(event, h11.Data) else event


def outcome(connection: h11.Connection, step: Step) -> Any:
    try:
        said = told(step(connection))
    except (h11.ProtocolError, RuntimeError, AttributeError) as error:  # the last is h11's own slip
        said = type(error), str(error), getattr(error, "error_status_hint", None)
    return said, state(connection)


def state(connection: h11.Connection) -> tuple[Any, ...]:
    waits = connection.they_are_waiting_for_100_continue
    return connection.our_state, connection.their_state, connection.trailing_data, waits


def receive(data: bytes) -> Step:
    return lambda connection: connection.receive_data(data)


def send(event: h11.Event) -> Step:
    return lambda connection: connection.send(event)  # type: ignore[call-overload]


def take(connection: h11.Connection) -> Any:
    return connection.next_event()


def asked(connection: h11.Connection) -> list[Any]:
    """A whole request: of ours at once where it is plain, of h11's alone event by event."""
    if isinstance(connection, Connection) and (taken := connection.take()):
        request, body = taken
        return [told(request), *([body] if body else []), h11.EndOfMessage()]
    events = [told(connection.next_event())]
    while isinstance(events[-1], tuple | bytes):  # told requests and data
        events.append(told(connection.next_event()))
    return events


def again(connection: h11.Connection) -> None:
    connection.start_next_cycle()


def compare(steps: list[Step]) -> None:
    ours, theirs = both()
    for step in steps:
        assert outcome(ours, step) == outcome(theirs, step)


LINES = [
    b"Host: test",
    b"Host: other",
    b"Content-Length: 5",
    b"content-length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 5 ",
    b"Content-Length: 99999999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"X-Plain: a b",
    b"X-Space : a",
    b"X-Tab: a\tb",
    b"X-Wide:  a",
    b"X-Narrow:a",
    b"X-Latin: \xe9",
    b"X-Empty: ",
    b"X-Nul: \x00",
    b" folded",
    b"no colon",
    b"X_Under: a",
    b"X-Late: a ",
    b"content-length: 5",
]


ODD = {
    "method": [b"HEAD", b"CONNECT", b"get", b"G T"],
    "target": [b"/a?b=%20", b"*", b"", b"/\xe9", b"http://a/"],
    "version": [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"],
    "end": [b"\n"],
    "body": [b"hell", b"hello more", b"5\r\nhello\r\n0\r\n\r\n", b""],
}


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Plain but for one part, beside its fields."""
    parts = {"method": b"POST", "target": b"/", "version": b"HTTP/1.1", "end": b"\r\n", "body": b"hello"}
    fields = [b"Host: test", b"Content-Length: 5"]
    if odd := draw(st.sampled_from([None, None, None, *ODD])):
        parts[odd] = draw(st.sampled_from(ODD[odd]))
    if draw(st.booleans()):
        fields.pop()
        parts["body"] = draw(st.sampled_from([b"", b"hello"]))
    end = parts["end"]
    head = parts["method"] + b" " + parts["target"] + b" " + parts["version"] + end
    return head + end.join(fields + draw(st.lists(st.sampled_from(LINES), max_size=2))) + end + end + parts["body"]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A plain request of which one byte is another, or is missing."""
    data = draw(st.sampled_from([GET, POST]))
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.sampled_from([b"", b" ", b"\r", b"\n", b":", b"\x00", b"\x80", b"a"])) + data[at + 1 :]


ANSWERS = [
    OK,
    *PARTS,
    h11.Data(data=b"hello, and more"),
    h11.EndOfMessage(headers=[(b"x-trailer", b"a")]),
    response(200, [(b"content-length", b"0")]),
    response(304, [(b"content-length", b"5")]),
    response(204, []),
    response(200, [(b"x-chunked", b"a")]),
    response(200, [(b"content-length", b"5"), (b"connection", b"close")]),
    response(200, [(b"X-Upper", b"a"), (b"Content-Length", b"5")]),
    response(200, [(b"content-length", b"5"), (b"host", b"test")]),
    h11.Response(status_code=200, reason=b"fine", headers=[(b"content-length", b"5")]),
    h11.Response(status_code=200, http_version=b"1.0", headers=[(b"content-length", b"5")]),
    h11.InformationalResponse(status_code=100, headers=[]),
    h11.ConnectionClosed(),
]
WHOLE = [asked, send(OK), *map(send, PARTS), again]
ASKED = st.one_of(st.sampled_from([GET, POST]), requests())
READS = st.one_of(ASKED, st.sampled_from([POST[:-2], GET + POST, b""]), changed())
STEPS = st.one_of(
    READS.map(lambda data: [receive(data)]),
    ASKED.map(lambda data: [receive(data), *WHOLE]),
    st.tuples(ASKED, st.sampled_from(ANSWERS)).map(lambda each: [receive(each[0]), asked, send(each[1])]),
    st.sampled_from(ANSWERS).map(lambda event: [send(event)]),
    st.just([take]),
    st.just([asked]),
    st.just([again]),
    st.just(WHOLE),
)


@pytest.mark.parametrize("line", LINES)
def test_a_request_with_two_odd_fields_goes_as_with_h11_alone(line: bytes) -> None:
    for other in LINES:
        for data in (GET, POST):
            head, _, body = data.partition(b"\r\n\r\n")
            compare([receive(b"\r\n".join([head, line, other, b"", body])), *WHOLE])


@pytest.mark.parametrize("first", ANSWERS)
def test_an_answer_of_any_three_parts_goes_as_with_h11_alone(first: h11.Event) -> None:
    for second in ANSWERS:
        for third in ANSWERS:
            compare([receive(POST), asked, *map(send, (first, second, third)), again])


@settings(max_examples=1_000, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6))
def test_any_conversation_goes_as_with_h11_alone(parts: list[list[Step]]) -> None:
    compare([step for part in parts for step in part])


@pytest.mark.parametrize("request_bytes", [GET, POST])
def test_a_plain_exchange_is_never_shown_to_h11(request_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11.Connection, "next_event", None)
    monkeypatch.setattr(h11.Connection, "send", None)
    ours, _ = both()
    for _ in range(2):
        for step in (receive(request_bytes), *WHOLE):
            step(ours)
    assert state(ours) == (h11.IDLE, h11.IDLE, (b"", False), False)


@pytest.mark.parametrize(
    "after",
    [
        [asked, receive(GET), take, take],  # pipelined, before the first is answered
        [asked, send(OK), receive(GET), take, send(PARTS[0]), send(PARTS[1]), again, take],
        [asked, receive(b""), take],  # the client has gone
        [asked, send(OK), send(h11.Data(data=b"hel")), send(PARTS[1])],  # less than it announced
        [asked, send(OK), send(h11.Data(data=b"hel")), send(PARTS[0])],  # more
        [asked, send(response(200, [(b"x-chunked", b"a")])), *map(send, PARTS), again, receive(POST), *WHOLE],
        [asked, again],
        [take, take, send(OK), *map(send, PARTS), again],
        [send(OK)],
        [*WHOLE, receive(b"garbage\r\n\r\n"), take, send(response(400, []))],  # to a peer that is known to speak 1.1
    ],
)
def test_an_exchange_that_turns_out_otherwise_goes_on_in_h11(after: list[Step]) -> None:
    compare([receive(GET), *after])


def test_a_head_of_garbage_is_looked_at_once() -> None:
    """In time that grows with its length, not with its square: 64 KB take less than a second by far."""
    for garbage in (b"a: " + b" " * 65_000, b"a: b\r\n" * 10_000 + b"\x00", b"a" * 65_000):
        assert plain_exchange(b"GET / HTTP/1.1\r\n" + garbage) is None
