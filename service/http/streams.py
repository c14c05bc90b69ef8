"""Requests under way by API key, so that one whose key ends is told so and cut, as sockets are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from service.errors import KeyEnded
from service.keys.verifier import Identity


def unheard(key_hash: bytes, ends_at: float | None) -> None:
    """Nobody asked to be told of the keys that hold a request."""


class Hold:
    """One request under way: the task that answers it, and why it was cut, empty while it was not."""

    __slots__ = ("reason", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task, self.reason = task, ""


class Streams:
    """Use `async with streams.held(identity):` around what may take long: the wait for a model, and the whole sending
    of a stream. The sweep of keys calls the rest."""

    def __init__(self) -> None:
        self._holds: dict[bytes, set[Hold]] = {}
        self.on_held: Callable[[bytes, float | None], None] = unheard

    @asynccontextmanager
    async def held(self, identity: Identity) -> AsyncIterator[None]:
        """Cancel the body of this block when the caller's key ends: revoked, expired, or its user made inactive.

        The body keeps its own task; blocks of `until_gone` and `asyncio.timeout` may lie around it and inside. Cancels
        and uncancels as they do, so a cancellation from outside goes on as one. A generator must not yield from inside
        the block: the cancellation would come where its consumer waits. A body that is over counts as whole.

        Raises:
            KeyEnded: its `reason` is revoked, expired or inactive_user.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - inside a coroutine there always is one; mypy cannot know
        before, hold = task.cancelling(), Hold(task)
        self._enter(identity, hold)
        cancelled = False
        try:
            yield
        except asyncio.CancelledError:
            cancelled = True
            if hold.reason and task.uncancel() <= before:
                raise KeyEnded(hold.reason) from None
            raise
        finally:
            self._leave(identity.key_hash, hold)
            if hold.reason and not cancelled:
                task.uncancel()  # it came to another end meanwhile: nobody else shall take this for a cancellation

    def _enter(self, identity: Identity, hold: Hold) -> None:
        self._holds.setdefault(identity.key_hash, set()).add(hold)
        self.on_held(identity.key_hash, identity.ends_at)  # also of a key that is known: its end may have moved

    def _leave(self, key_hash: bytes, hold: Hold) -> None:
        holds = self._holds[key_hash]
        holds.discard(hold)
        if not holds:
            del self._holds[key_hash]

    def __len__(self) -> int:
        return sum(map(len, self._holds.values()))

    def key_hashes(self) -> Collection[bytes]:
        """The hashes of the keys with a request under way."""
        return self._holds.keys()

    def holds(self, key_hash: bytes) -> bool:
        return key_hash in self._holds

    def close_keys(self, ended: Mapping[bytes, str]) -> int:
        """Cut the requests of keys that are no longer good, each for its reason; how many there were."""
        found = [(hold, reason) for key_hash, reason in ended.items() for hold in self._holds.get(key_hash, ())]
        cut = [(hold, reason) for hold, reason in found if not hold.reason]
        for hold, reason in cut:
            hold.reason = reason
            hold.task.cancel()
        return len(cut)
