"""A folder in memory for what no test is about: the 300 files of a database cost 0.2 s on ext4, 0.01 s on tmpfs."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TMPFS = Path("/dev/shm")  # noqa: S108 (folders of our own in it are made by mkdtemp)
ROOM_BYTES = 2 << 30  # a worker takes a few hundred MiB; containers have 64 MiB there unless told otherwise
NAME = "atp-tests-"


@contextmanager
def memory_folder(otherwise: Path, tmpfs: Path = TMPFS) -> Iterator[Path]:
    """Gone at the end, and at the next start where a run was killed; under `otherwise` where memory has no room."""
    if not (os.access(tmpfs, os.W_OK) and shutil.disk_usage(tmpfs).free > ROOM_BYTES):
        yield Path(tempfile.mkdtemp(dir=otherwise))
        return
    remove_left(tmpfs)
    draft = Path(tempfile.mkdtemp(prefix="new-", dir=tmpfs))
    with locked(draft) as ours:
        assert ours
        folder = draft.rename(tmpfs / f"{NAME}{draft.name}")  # under this name it is always locked while it is used
        yield folder
        shutil.rmtree(folder)


def remove_left(tmpfs: Path) -> None:
    for folder in tmpfs.glob(f"{NAME}*"):
        with locked(folder) as ours:
            if ours:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether nobody held it; the kernel lets go of it with the process, and so do no children: it is close-on-exec."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except BlockingIOError:
        held = False
    try:
        yield held
    finally:
        os.close(descriptor)
