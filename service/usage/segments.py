"""Records on disk: append-only segment files in a folder that one process holds. Blocking; `spool.py` calls it off
the loop.

A record is its length and its CRC-32 (four bytes each, little-endian), then its bytes. A record is there once the
fdatasync(2) after it has returned; a kill in the middle leaves a torn tail, which reading stops at.

Whether a folder's process lives is told by flock(2) on the file `lock` in it, which the kernel lets go however the
process ends. A folder gets its name only after its lock is held, so that none can be mistaken for an orphan.
"""

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

HEAD = struct.Struct("<II")
# Replayed and removed as a whole: some ten thousand rows, read into memory at once.
SEGMENT_BYTES = 4_000_000
LOCK, PROBE = "lock", "probe"


def framed(records: Iterable[bytes]) -> bytes:
    return b"".join(HEAD.pack(len(record), zlib.crc32(record)) + record for record in records)


def records_of(data: bytes) -> Iterator[bytes]:
    """The records up to the first that is torn or damaged."""
    position = 0
    while position + HEAD.size <= len(data):
        length, crc = HEAD.unpack_from(data, position)
        record = data[position + HEAD.size : position + HEAD.size + length]
        if len(record) < length or zlib.crc32(record) != crc:
            return
        yield record
        position += HEAD.size + length


def damaged_bytes(data: bytes) -> int:
    """How much lies behind a record that is whole and not what was written; 0 for a torn tail, never acknowledged."""
    position = sum(HEAD.size + len(record) for record in records_of(data))
    if position + HEAD.size > len(data):
        return 0
    length, _ = HEAD.unpack_from(data, position)
    return len(data) - position if position + HEAD.size + length <= len(data) else 0


class Segments:
    """A folder that this process holds, its own or a dead one's. Every method may raise OSError."""

    def __init__(self, folder: Path, lock: int) -> None:
        """By `create` or `orphans`; `lock` is the descriptor that holds the flock."""
        self._folder, self._lock = folder, lock
        self._file, self._size = -1, 0
        self._left = False  # something stays in the folder
        self._sealed = sorted(folder.glob("*.seg"))
        self._next = int(self._sealed[-1].stem) + 1 if self._sealed else 1

    @classmethod
    def create(cls, root: Path) -> "Segments":
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        draft = root / f".{name}"
        draft.mkdir(mode=0o700)
        lock = os.open(draft / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(root / name)
        sync_folder(root)
        return cls(root / name, lock)

    @classmethod
    def orphans(cls, root: Path) -> Iterator["Segments"]:
        """The folders of dead processes; they are this one's from now on."""
        for path in sorted(root.glob("[0-9]*")) if root.is_dir() else []:
            try:
                lock = os.open(path / LOCK, os.O_RDWR)
            except FileNotFoundError:
                with suppress(OSError):
                    path.rmdir()  # its process died, or is about to do the same
                continue
            except OSError:  # another user's, or nothing of ours: it must not keep the others waiting
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            yield cls(path, lock)

    @property
    def size_bytes(self) -> int:
        return self._size + sum(path.stat().st_size for path in self._sealed)

    def append(self, data: bytes) -> None:
        """Return once it is on disk. After an error nothing of it counts, and what was there before still does."""
        try:
            if self._file < 0:
                self._begin()
            write_all(self._file, data)
            os.fdatasync(self._file)
        except OSError:
            self._cut_back()
            self.seal()  # after a failed sync the kernel may have forgotten pages: nothing more goes into this file
            raise
        self._size += len(data)
        if self._size >= SEGMENT_BYTES:
            self.seal()

    def _cut_back(self) -> None:
        with suppress(OSError):  # then a torn tail is left, which reading stops at
            if self._file >= 0:
                os.ftruncate(self._file, self._size)

    def _begin(self) -> None:
        path = self._path(self._next)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._next, self._size = self._next + 1, 0
        sync_folder(self._folder)

    def seal(self) -> None:
        """End the segment that is written to, so that it may be read and removed."""
        if self._file < 0:
            return
        os.close(self._file)
        path, self._file = self._path(self._next - 1), -1
        if self._size:
            self._sealed.append(path)
        else:
            path.unlink()
        self._size = 0

    def probe(self, size_bytes: int) -> None:
        """See whether the disk takes so much more."""
        path = self._folder / PROBE
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(file, bytes(size_bytes))
            os.fdatasync(file)
        finally:
            os.close(file)
            path.unlink()

    def sealed(self) -> list[Path]:
        return list(self._sealed)

    def oldest(self) -> Path | None:
        """The oldest sealed segment, if any."""
        return self._sealed[0] if self._sealed else None

    def forget(self, segment: Path) -> None:
        """Leave a sealed segment where it is."""
        self._sealed.remove(segment)
        self._left = True

    def drop(self, segment: Path) -> None:
        """Remove a sealed segment; its rows are elsewhere."""
        segment.unlink()
        self._sealed.remove(segment)

    def close(self) -> None:
        """Let the folder go: removed when nothing is in it, else for the next process to find."""
        self.seal()
        if not self._sealed and not self._left:
            (self._folder / PROBE).unlink(missing_ok=True)  # of one that was killed while it probed
            (self._folder / LOCK).unlink()
            self._folder.rmdir()
        os.close(self._lock)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010}.seg"


def write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(folder: Path) -> None:
    """Make a new name in it durable (fsync(2): "Calling fsync() does not necessarily ensure that the entry…")."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
