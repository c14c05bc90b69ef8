"""Records on disk: what was appended is read back, what is torn or damaged is not, one process holds a folder."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.usage.segments import Segments, framed, records_of

RECORDS = [b"first", b"", b"third" * 100]


def test_records_are_read_back_as_they_were() -> None:
    assert list(records_of(framed(RECORDS))) == RECORDS


def test_a_torn_tail_costs_only_the_last_record() -> None:
    data = framed(RECORDS)
    assert [list(records_of(data[:size])) for size in range(len(data))] == [
        *([[]] * 13),  # eight bytes of head, five of "first"
        *([[b"first"]] * 8),
        *([[b"first", b""]] * 508),
    ]


def test_a_damaged_record_ends_the_reading() -> None:
    data = bytearray(framed(RECORDS))
    data[30] ^= 1
    assert list(records_of(bytes(data))) == [b"first", b""]


def test_a_segment_is_read_once_it_is_sealed_and_segments_come_in_order(tmp_path: Path) -> None:
    segments = Segments.create(tmp_path)
    assert segments.oldest() is None
    for record in (b"one", b"two"):
        segments.append(framed([record]))
        segments.seal()
    first = segments.oldest()
    assert first is not None
    assert list(records_of(first.read_bytes())) == [b"one"]
    segments.drop(first)
    second = segments.oldest()
    assert second is not None
    assert list(records_of(second.read_bytes())) == [b"two"]
    segments.drop(second)
    segments.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_held_is_no_orphan_and_one_that_was_left_is(tmp_path: Path) -> None:
    segments = Segments.create(tmp_path)
    segments.append(framed([b"one"]))
    assert list(Segments.orphans(tmp_path)) == []
    segments.close()
    (orphan,) = Segments.orphans(tmp_path)
    assert list(Segments.orphans(tmp_path)) == []  # it is held again
    assert [list(records_of(path.read_bytes())) for path in orphan.sealed()] == [[b"one"]]
    orphan.append(framed([b"two"]))
    orphan.seal()
    assert [path.name for path in orphan.sealed()] == ["0000000001.seg", "0000000002.seg"]
    orphan.close()


def test_a_killed_process_leaves_an_orphan(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys; from service.usage.segments import Segments, framed;"
        "Segments.create(pathlib.Path(sys.argv[1])).append(framed([b'kept']));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    (orphan,) = Segments.orphans(tmp_path)
    assert [list(records_of(path.read_bytes())) for path in orphan.sealed()] == [[b"kept"]]
    orphan.close()


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel then refuses with EFBIG in the middle of a write, as a full disk does with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_there_before_a_disk_became_full_stays_and_what_was_refused_is_not_half_there(tmp_path: Path) -> None:
    segments = Segments.create(tmp_path)
    segments.append(framed([b"before"]))
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        segments.append(framed([b"x" * 5000]))
    segments.append(framed([b"after"]))
    segments.seal()
    assert [list(records_of(path.read_bytes())) for path in segments.sealed()] == [[b"before"], [b"after"]]
    assert segments.size_bytes == sum(os.stat(path).st_size for path in segments.sealed()) == 27
    for path in segments.sealed():
        segments.drop(path)
    segments.close()
