"""Joins and leaves that come while one write is on its way share the next."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from service.presence.sessions import Session
from service.state.group_commit import GroupCommit

Outcome = TypeVar("Outcome")


class Changes(Generic[Outcome]):
    """Writes the sessions that were touched, each as it is by then: `write` looks that up, so the order of touches
    does not matter, and a join and a leave of one session cost one change.

    What is noted is bounded by the callers: each session touched has one waiting, or is one of those of `begin`.
    """

    def __init__(self, write: Callable[[Sequence[Session]], Awaitable[Outcome]]) -> None:
        self._write = write
        self._touched: dict[str, Session] = {}
        self._commit = GroupCommit(self._flush, "presence-changes")

    @property
    def idle(self) -> bool:
        return self._commit.idle

    async def made(self, sessions: Iterable[Session]) -> Outcome:
        """Return, once it has ended, what came of a write that began after this call."""
        for session in sessions:
            self._touched[session.session_id] = session
        return await self._commit.join()

    async def close(self) -> None:
        await self._commit.close()

    async def _flush(self) -> Outcome:
        touched, self._touched = self._touched, {}
        return await self._write(list(touched.values()))
