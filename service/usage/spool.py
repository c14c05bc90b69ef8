"""Where usage rows wait on disk while PostgreSQL does not take them. All disk work is done on one thread, in order."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from service.errors import DatabaseUnavailable
from service.telemetry.metrics import Metrics
from service.usage.row import UsageRow
from service.usage.segments import Segments, damaged_bytes, framed, records_of

log = structlog.get_logger()
T = TypeVar("T")

ROW: TypeAdapter[UsageRow] = TypeAdapter(UsageRow)
PROBE_BYTES = 4096


@dataclass(frozen=True)
class Waiting:
    """A sealed segment and its rows; `unreadable` counts the records that are whole but no rows of ours."""

    owner: Segments
    path: Path
    rows: list[UsageRow]
    unreadable: int


class Spool:
    """`await spool.open()`, then `append` as rows come; `oldest` and `drop` are the replay's; `await spool.close()`."""

    def __init__(self, root: Path, limit_bytes: int, metrics: Metrics) -> None:
        """`root` is shared by the processes of a machine: each has a folder in it."""
        self._root, self._limit_bytes = root, limit_bytes
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage-spool")
        self._own: Segments | None = None
        self._adopted: list[Segments] = []
        self._broken, self._faults = True, 0
        self.rows = self.size_bytes = self._adopted_bytes = 0  # only this process's own bytes count against the limit

    @property
    def usable(self) -> bool:
        """Whether the disk took what it was last given, and there is room left."""
        return not self._broken and self.size_bytes < self._limit_bytes

    async def open(self) -> None:
        """Try the disk; one that cannot be used is logged, and tried again by `mend`."""
        await self.mend()

    async def mend(self) -> None:
        """After a fault: see whether the disk can be written again."""
        if self._broken:
            await self._attempt(self._probe)

    async def append(self, rows: Sequence[UsageRow]) -> None:
        """Return once the rows are on disk.

        Raises:
            DatabaseUnavailable: the disk refuses, or USAGE_SPOOL_BYTES are used up.
        """
        if not self.usable or not await self._attempt(self._write, rows):
            raise DatabaseUnavailable("Usage cannot be recorded now.")

    async def adopt(self) -> int:
        """Take over what dead processes of this machine have left; returns how many rows."""
        found = await self._in_thread(self._find_orphans)
        self._tell()
        return found

    async def oldest(self) -> Waiting | None:
        """The oldest rows that wait; None when there are none."""
        return await self._in_thread(self._read_oldest)

    async def drop(self, waiting: Waiting) -> None:
        """Forget rows that are stored now."""
        await self._in_thread(self._remove, waiting)
        self._tell()

    async def close(self) -> None:
        """Let the folders go; rows that still wait are found by the next process."""
        await self._attempt(self._close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _attempt(self, work: Callable[..., None], *arguments: Any) -> bool:
        """Whether the disk did it; the first of several faults in a row is logged."""
        try:
            await self._in_thread(work, *arguments)
        except OSError as error:
            if self._faults == 0:
                log.error("usage.spool_unusable", folder=str(self._root), error=error.strerror)
            self._broken, self._faults = True, self._faults + 1
            return False
        finally:
            self._tell()
        self._broken, self._faults = False, 0
        return True

    def _tell(self) -> None:
        self._metrics.usage_spool_rows.set(self.rows)
        self._metrics.usage_spool_bytes.set(self.size_bytes + self._adopted_bytes)

    # On the thread:

    def _write(self, rows: Sequence[UsageRow]) -> None:
        own = self._own = self._own or Segments.create(self._root)
        data = framed(to_json(row) for row in rows)
        own.append(data)
        self.size_bytes += len(data)
        self.rows += len(rows)

    def _probe(self) -> None:
        self._own = self._own or Segments.create(self._root)
        self._own.probe(PROBE_BYTES)

    def _find_orphans(self) -> int:
        rows = 0
        for orphan in Segments.orphans(self._root):
            self._adopted.append(orphan)
            for path in orphan.sealed():
                found = self._counted(orphan, path)
                self.rows, rows = self.rows + found, rows + found
        return rows

    def _counted(self, orphan: Segments, path: Path) -> int:
        try:
            data = path.read_bytes()
        except OSError as error:
            set_aside(orphan, path, error)
            return 0
        self._adopted_bytes += len(data)
        return sum(1 for _ in records_of(data))

    def _read_oldest(self) -> Waiting | None:
        for adopted in list(self._adopted):
            while path := adopted.oldest():
                try:
                    return read(adopted, path)
                except OSError as error:
                    set_aside(adopted, path, error)
            self._adopted.remove(adopted)
            adopted.close()
        if self._own is None:
            return None
        for _ in range(len(self._own.sealed()) + 1):
            if self._own.oldest() is None:
                self._own.seal()
            if path := self._own.oldest():
                try:
                    return read(self._own, path)
                except OSError as error:
                    set_aside(self._own, path, error)
        self.rows = 0  # what could not be read was counted
        return None

    def _remove(self, waiting: Waiting) -> None:
        size = waiting.path.stat().st_size
        if waiting.owner is self._own:
            self.size_bytes -= size
        else:
            self._adopted_bytes -= size
        if left_bytes := damaged_bytes(waiting.path.read_bytes()):
            keep_aside(waiting, left_bytes)
        else:
            waiting.owner.drop(waiting.path)
        self.rows -= len(waiting.rows) + waiting.unreadable

    def _close(self) -> None:
        for segments in (*self._adopted, *([self._own] if self._own else [])):
            segments.close()
        self._adopted, self._own = [], None


def set_aside(owner: Segments, path: Path, error: OSError) -> None:
    """It stays on the disk, for whoever can read it; the others go on."""
    owner.forget(path)
    log.error("usage.segment_unreadable", segment=str(path), error=error.strerror)


def read(owner: Segments, path: Path) -> Waiting:
    rows, unreadable = [], 0
    for record in records_of(path.read_bytes()):
        try:
            rows.append(ROW.validate_json(record))
        except ValidationError:
            unreadable += 1
    return Waiting(owner, path, rows, unreadable)


def keep_aside(waiting: Waiting, left_bytes: int) -> None:
    """What could be read is stored. The rest was acknowledged once, so the file stays, as `.bad`, for people to see."""
    waiting.owner.forget(waiting.path)
    kept = waiting.path.rename(waiting.path.with_suffix(".bad"))
    log.error("usage.segment_damaged", segment=str(kept), unread_bytes=left_bytes)
