"""Ports for servers in processes of their own, kept while those are not up: tests run side by side."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from service.embedded.ports import HOST


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that only who names it can listen on, once or again; refused to clients until then.

    Without this the kernel gives the port of a server that is not up, not yet or killed, to the next who asks for any.
    It is bound and not listened on: socket(7) lets another SO_REUSEADDR bind it then, and the kernel never picks it,
    neither for bind(0) nor as a client's.
    """
    with socket.socket() as holder:
        reserve(holder, 0)
        yield holder.getsockname()[1]


@contextmanager
def reserved_row(count: int) -> Iterator[int]:
    """The first of `count` reserved ports in a row."""
    while True:
        with ExitStack() as row, suppress(OSError, OverflowError):  # a neighbour is taken, or past the last port
            first = row.enter_context(reserved_port())
            for port in range(first + 1, first + count):
                reserve(row.enter_context(socket.socket()), port)
            kept = row.pop_all()
            break
    with kept:
        yield first


def reserve(holder: socket.socket, port: int) -> None:
    holder.bind((HOST, port))  # alone: another's reservation is in the way
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
