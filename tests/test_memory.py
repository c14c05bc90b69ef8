"""The folder in memory that the servers of the tests write to."""

from pathlib import Path

import pytest

from tests import memory
from tests.memory import memory_folder


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOM_BYTES", 0)


def test_it_is_there_for_as_long_as_it_is_used(tmp_path: Path) -> None:
    with memory_folder(otherwise=tmp_path / "disk", tmpfs=tmp_path) as folder:
        (folder / "file").write_text("kept")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_one_that_a_killed_run_left_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / "atp-tests-left").mkdir()
    (tmp_path / "atp-tests-left" / "file").write_text("of before")
    (tmp_path / "another-program").mkdir()
    with memory_folder(tmp_path, tmp_path) as first, memory_folder(tmp_path, tmp_path) as second:
        assert {path.name for path in tmp_path.iterdir()} == {"another-program", first.name, second.name}


def test_without_room_in_memory_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOM_BYTES", 1 << 60)
    for tmpfs in (Path("/dev/shm"), tmp_path / "nowhere"):  # noqa: S108
        with memory_folder(otherwise=tmp_path, tmpfs=tmpfs) as folder:
            assert folder.parent == tmp_path
