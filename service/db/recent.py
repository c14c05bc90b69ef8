"""A pool that lends the connection that came back last; psycopg's goes round all of them.

A server process that is used again at once has its plans and its memory at hand: of twenty in turn a commit of usage
took 0.95 ms, by the same one 0.66.
"""

from collections import deque
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool


class Stack(deque[AsyncConnection[Any]]):
    """What was appended last comes first."""

    def popleft(self) -> AsyncConnection[Any]:
        return self.pop()


class RecentPool(AsyncConnectionPool):
    """`_pool` holds the idle connections; it has no other say in how they are chosen (psycopg_pool 3.3)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = Stack()
