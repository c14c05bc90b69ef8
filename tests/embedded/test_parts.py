import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from service.embedded.errors import PlatformUnsupported, PortTaken, StateUnusable
from service.embedded.folder import StateFolder
from service.embedded.parts import EmbeddedParts, Ports
from tests.servers import run

ROOT = Path(__file__).parents[2]
NOBODY = 65534
NAMES = ("llm", "postgres", "valkey")


@dataclass
class FirstStart:
    """The folder after it, with a row and a key in it, and what was said."""

    folder: Path
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    first = FirstStart(tmp_path_factory.mktemp("first") / ".atp")
    run(write(first))
    return first


@pytest.fixture
def state(first_start: FirstStart, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_start.folder, tmp_path / ".atp"))


def start_parent(state: Path, python: str = sys.executable, **options: object) -> "subprocess.Popen[str]":
    """Start a parent in a session of its own, as a terminal would, and wait until it is up."""
    # A shell ignores SIGINT for what it runs in the background, and children inherit that: these tests may be such.
    command = ["env", "--default-signal=INT", python, "-m", "tests.embedded.parent", str(state)]
    parent = subprocess.Popen(  # type: ignore[call-overload]
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    for line in parent.stdout:
        if line == "up\n":
            break
    return parent


def end(parent: "subprocess.Popen[str]", number: signal.Signals) -> str:
    os.killpg(parent.pid, number)
    rest, _ = parent.communicate(timeout=10)
    return rest


def children(state: Path) -> list[psutil.Process]:
    pids = [int((state / "run" / f"{name}.pid").read_text().split()[0]) for name in NAMES]
    return [psutil.Process(pid) for pid in pids]


def all_ended(processes: list[psutil.Process], within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while any(process.is_running() and process.status() != "zombie" for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


async def write(first: FirstStart) -> None:
    async with EmbeddedParts(first.folder, say=first.said.append) as parts:
        with psycopg.connect(parts.postgres.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'row' AS what")
        with redis.Redis.from_url(parts.valkey.url) as client:
            client.set("kept", "key")


async def read(state: Path) -> tuple[object, object, float]:
    begun = time.monotonic()
    async with EmbeddedParts(state, say=lambda line: None) as parts:
        took_s = time.monotonic() - begun
        with psycopg.connect(parts.postgres.dsn) as connection:
            row = connection.execute("SELECT what FROM kept").fetchone()
        with redis.Redis.from_url(parts.valkey.url) as client:
            return row, client.get("kept"), took_s


def test_a_second_start_keeps_rows_and_keys_and_takes_less_than_five_seconds(state: Path) -> None:
    row, key, took_s = run(read(state))
    assert row == ("row",)
    assert key == b"key"
    assert took_s < 5


def test_after_kill_9_of_the_parent_nothing_is_left_and_the_next_start_has_the_data(state: Path) -> None:
    parent = start_parent(state)
    processes = children(state)
    end(parent, signal.SIGKILL)
    assert all_ended(processes)
    row, key, _ = run(read(state))
    assert row == ("row",)
    assert key == b"key"


def test_after_kill_9_of_the_parent_and_every_child_the_next_start_has_the_data(state: Path) -> None:
    parent = start_parent(state)
    for process in children(state):
        process.kill()
    end(parent, signal.SIGKILL)
    row, key, _ = run(read(state))
    assert row == ("row",)
    assert key == b"key"


def test_ctrl_c_reaches_only_the_parent_which_stops_every_child_and_no_secret_was_shown(state: Path) -> None:
    parent = start_parent(state)
    processes = children(state)
    commands = [" ".join(process.cmdline()) for process in processes]
    assert end(parent, signal.SIGINT) == "stopped\n"
    assert all_ended(processes, within_s=0)
    logs = [file.read_text() for file in (state / "log").iterdir()]
    assert "database system is shut down" in (state / "log" / "postgres.log").read_text()
    assert list((state / "run").iterdir()) == []
    for secret in (state / "secret").iterdir():
        assert not [text for text in commands + logs if secret.read_text() in text]


def test_progress_is_said_part_by_part(first_start: FirstStart) -> None:
    assert sorted(line.split(" in ")[0] for line in first_start.said) == [
        "PostgreSQL: preparing an empty database (first start only)",
        "PostgreSQL: ready",
        "Small LLM: ready",
        "Valkey: ready",
    ]


def test_a_second_parent_on_the_same_folder_is_refused_in_one_line(state: Path) -> None:
    async def start() -> None:
        async with EmbeddedParts(state):
            pass

    with StateFolder.open(state).locked(), pytest.raises(StateUnusable) as refused:
        run(start())
    assert str(refused.value) == (
        f"the state folder {state} is in use by process {os.getpid()}: stop that one or choose another folder"
    )


@pytest.mark.parametrize(("part", "name"), [("postgres", "PostgreSQL"), ("valkey", "Valkey"), ("llm", "The small LLM")])
def test_a_taken_port_is_said_in_one_line_and_nothing_stays_running(state: Path, part: str, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        async def start() -> None:
            async with EmbeddedParts(state, Ports(**{part: port}), say=lambda line: None):
                pass

        with pytest.raises(PortTaken) as refused:
            run(start())
    assert str(refused.value) == (
        f"{name} cannot start: port {port} on 127.0.0.1 is taken by another program; "
        f"stop that one or choose another port for {name}"
    )
    assert list((state / "run").iterdir()) == []
    with StateFolder.open(state).locked():
        pass


def test_only_its_owner_may_read_the_state_folder(state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700
    secrets = list((state / "secret").iterdir())
    assert sorted(file.name for file in secrets) == ["llm", "postgres", "postgres-admin", "valkey"]
    assert {file.stat().st_mode & 0o777 for file in (*secrets, state / "valkey" / "valkey.conf")} == {0o600}


def test_a_platform_other_than_linux_gets_one_line_with_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(PlatformUnsupported) as refused:
        run(EmbeddedParts(tmp_path).__aenter__())
    assert str(refused.value) == (
        "the embedded parts need Linux, this is Darwin: set DATABASE_URL, REDIS_URL and OPENAI_BASE_URL "
        "to servers of your own and run `atp serve`"
    )


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests have run as an ordinary user already")
def test_an_ordinary_user_can_start_all_parts(folder_of_nobody: Path) -> None:
    path = f"{ROOT}:{Path(psutil.__file__).parents[1]}"
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "env": {"PYTHONPATH": path}}
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable
    check = [python, "-c", "import sys, service.embedded.parts; assert sys.version_info >= (3, 11)"]
    if subprocess.run(check, **who, capture_output=True, check=False).returncode != 0:  # type: ignore[call-overload]
        pytest.skip("no Python 3.11+ or no checkout that an ordinary user may read")
    parent = start_parent(folder_of_nobody / ".atp", python, **who)
    assert {process.uids().real for process in children(folder_of_nobody / ".atp")} == {NOBODY}
    assert end(parent, signal.SIGINT) == "stopped\n"
