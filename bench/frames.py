"""As much of WebSocket as a load client needs (RFC 6455): the opening handshake, frames from and to a server."""

from collections.abc import Mapping

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FINAL, MASKED = 0x80, 0x80
TWO_BYTE_LENGTH, EIGHT_BYTE_LENGTH = 126, 127


def upgrade(path: str, headers: Mapping[str, str]) -> bytes:
    """The client's handshake. The key is the RFC's own: nothing here needs it to be random."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: bench",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def masked(opcode: int, payload: bytes) -> bytes:
    """A final client frame of at most 125 bytes. The mask is zero: valid, and the payload stays as it is."""
    assert len(payload) < TWO_BYTE_LENGTH
    return bytes([FINAL | opcode, MASKED | len(payload), 0, 0, 0, 0]) + payload


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The complete server frames in `data` as (opcode, payload), and the bytes of one that is not complete yet."""
    frames: list[tuple[int, bytes]] = []
    start, end = 0, len(data)
    while end - start >= 2:
        length, head = data[start + 1], 2
        if length == TWO_BYTE_LENGTH:
            length, head = int.from_bytes(data[start + 2 : start + 4], "big"), 4
        elif length == EIGHT_BYTE_LENGTH:
            length, head = int.from_bytes(data[start + 2 : start + 10], "big"), 10
        if end - start < head + length:
            break
        frames.append((data[start] & 0x0F, data[start + head : start + head + length]))
        start += head + length
    return frames, data[start:]
