import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.embedded.errors import PartFailed, PartMissing
from service.embedded.folder import StateFolder
from service.embedded.processes import Child, Command, Rights, becomes, end_orphan, identity
from service.embedded.processes import run as run_child
from service.embedded.wheels import carried
from tests.servers import run

ROOT = Path(__file__).parents[2]
SLEEP = (str(shutil.which("sleep")), "60")
SHELL = str(shutil.which("sh"))

PARENT = """
import sys, time
from pathlib import Path
from service.embedded.folder import StateFolder
from service.embedded.processes import Child, Command
child = Child(StateFolder.open(Path(sys.argv[1])), "sleeper", Command(sys.argv[3:], rights=sys.argv[2]))
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder.open(tmp_path / ".atp")


@pytest.mark.parametrize("rights", ["same", "namespace", "nobody"])
def test_a_child_dies_with_its_killed_parent_whatever_rights_it_has(folder: StateFolder, rights: Rights) -> None:
    if rights != "same" and os.geteuid() != 0:
        pytest.skip("only root gives up rights")
    command = [sys.executable, "-c", PARENT, str(folder.path), rights, *SLEEP]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeper = int(parent.stdout.readline())
        assert run(becomes(lambda: psutil.Process(sleeper).name() == "sleep", 5))
        parent.kill()
    assert run(becomes(lambda: identity(sleeper) == "", 5))


def test_a_child_has_a_session_of_its_own(folder: StateFolder) -> None:
    child = Child(folder, "sleeper", Command(SLEEP))
    assert os.getsid(child.pid) == child.pid
    run(child.stop())
    assert child.exit_code == -signal.SIGTERM


def test_a_frozen_child_can_be_stopped(folder: StateFolder) -> None:
    child = Child(folder, "sleeper", Command(SLEEP))
    child.signal(signal.SIGSTOP)
    run(child.stop())
    assert child.exit_code == -signal.SIGTERM


def test_a_child_deaf_to_the_request_is_killed(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.embedded.processes.STOP_TIMEOUT_S", 0.1)
    child = Child(folder, "deaf", Command([SHELL, "-c", "trap '' TERM; echo deaf; sleep 60 & wait; wait"]))
    assert run(becomes(lambda: "deaf" in child.log.read_text(), 5))
    run(child.stop())
    assert child.exit_code == -signal.SIGKILL


def test_an_orphan_is_ended_by_the_next_start(folder: StateFolder) -> None:
    orphan = subprocess.Popen(SLEEP)
    folder.pid_file("sleeper").write_text(identity(orphan.pid))
    run(end_orphan(folder, "sleeper"))
    assert orphan.wait(0) == -signal.SIGTERM
    assert not folder.pid_file("sleeper").exists()


def test_a_process_that_got_the_orphans_number_is_left_alone(folder: StateFolder) -> None:
    stranger = subprocess.Popen(SLEEP)
    pid, start, boot = identity(stranger.pid).split()
    folder.pid_file("sleeper").write_text(f"{pid} {int(start) - 1} {boot}")
    run(end_orphan(folder, "sleeper"))
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_program_that_fails_is_named_with_its_last_words_and_its_log(folder: StateFolder) -> None:
    command = Command([SHELL, "-c", "echo 'FATAL: no room'; echo bye; exit 3"])
    with pytest.raises(PartFailed) as failed:
        run(run_child(folder, "tool", command))
    assert str(failed.value) == (
        f"tool ended with exit code 3 (FATAL: no room); its log is {folder.path / 'log' / 'tool.log'}"
    )


def test_a_program_that_cannot_be_run_says_why(folder: StateFolder) -> None:
    with pytest.raises(PartFailed, match=r"launch: /no/such/program: \[Errno 2\] No such file or directory"):
        run(run_child(folder, "tool", Command(["/no/such/program"])))


def test_a_missing_wheel_is_said_in_one_line_with_the_alternative() -> None:
    with pytest.raises(PartMissing) as missing:
        carried("Valkey", "no-such-wheel", "*")
    assert str(missing.value) == (
        "Valkey cannot be embedded here (no usable build of the wheel no-such-wheel): set DATABASE_URL, REDIS_URL "
        "and OPENAI_BASE_URL to servers of your own and run `atp serve`"
    )


def test_an_overgrown_log_is_set_aside(folder: StateFolder) -> None:
    log = folder.path / "log" / "tool.log"
    log.write_bytes(b"x" * 5_000_001)
    assert folder.log_file("tool") == log
    assert not log.exists()
    assert (folder.path / "log" / "tool.log.1").stat().st_size == 5_000_001
