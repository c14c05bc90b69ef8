"""What asyncio's streams keep to themselves: that the client has ended, what the kernel still holds, who is there."""

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable


class ClientReader(asyncio.StreamReader):
    """Says at once that the client has sent its last byte, also while bytes before that wait to be read."""

    ended = False
    on_end: Callable[[], None] | None = None

    def feed_eof(self) -> None:
        super().feed_eof()
        self._end()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self.on_end is not None:
            self.on_end()


def address(writer: asyncio.StreamWriter, which: str) -> tuple[str, int] | None:
    name = writer.get_extra_info(which)
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None


def unacknowledged_bytes(writer: asyncio.StreamWriter) -> int:
    """What the kernel still holds for the client (tcp(7), SIOCOUTQ): only what leaves it has been taken."""
    sock = open_socket(writer)
    return 0 if sock is None else int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def open_socket(writer: asyncio.StreamWriter) -> socket.socket | None:
    """The socket, or None once it is closed (asyncio then gives a dead one, uvloop none)."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    return sock if sock is not None and sock.fileno() >= 0 else None
