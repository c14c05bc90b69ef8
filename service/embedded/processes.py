"""One owned child process: started, watched, stopped; and found again by a next start when its parent was killed."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.embedded.errors import PartFailed
from service.embedded.folder import StateFolder, write_private

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_S = 0.01
STOP_TIMEOUT_S = 5.0

Rights = Literal["same", "namespace", "nobody"]


@dataclass(frozen=True)
class Command:
    """What to run. `stop_signal` asks for an orderly end; the kernel also sends it when the parent dies."""

    argv: Sequence[str | Path]
    stop_signal: signal.Signals = signal.SIGTERM
    rights: Rights = "same"
    cwd: Path = Path("/")
    stdin: bytes = b""

    def launched(self) -> list[str]:
        launcher = [sys.executable, "-I", "-S", LAUNCHER, os.getpid(), int(self.stop_signal), self.rights]
        return [str(word) for word in (*launcher, *self.argv)]


class Child:
    """A running process in a session of its own, so that the terminal's Ctrl-C reaches only the parent."""

    def __init__(self, folder: StateFolder, name: str, command: Command) -> None:
        self.name = name
        self.log = folder.log_file(name)
        self._pid_file = folder.pid_file(name)
        self._stop_signal = command.stop_signal
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command.launched(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=command.cwd,
                start_new_session=True,
            )
        write_private(self._pid_file, identity(self.pid))
        feed(self._process, command.stdin)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    async def ended(self) -> int:
        await becomes(lambda: self.exit_code is not None)
        self._pid_file.unlink(missing_ok=True)
        return self._process.returncode

    async def stop(self) -> None:
        """Ask, wait, then kill; harmless on one that has ended."""
        self.signal(self._stop_signal)
        self.signal(signal.SIGCONT)  # a stopped process would not hear the first
        if not await becomes(lambda: self.exit_code is not None, STOP_TIMEOUT_S):
            self.signal(signal.SIGKILL)
        await self.ended()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)  # polls first, so never a recycled pid

    async def ready(self, test: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Wait until `test` is true; raises PartFailed when the child ends first or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not await test():
            if self.exit_code is not None:
                raise PartFailed(self.name, f"ended with exit code {self.exit_code} ({self.last_words()})", self.log)
            if time.monotonic() > deadline:
                raise PartFailed(self.name, f"was not ready after {timeout_s:g} s", self.log)
            await asyncio.sleep(POLL_S)

    def last_words(self) -> str:
        """What it logged last, or rather the last line that speaks of an error."""
        with self.log.open(errors="replace") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log if line.strip()]
        errors = [line for line in lines if "FATAL" in line or "error" in line.lower()]
        return (errors or lines or ["it said nothing"])[-1]


def feed(process: "subprocess.Popen[bytes]", stdin: bytes) -> None:
    """Give it its input, less than a pipe holds (64 KiB), and the end of it."""
    assert process.stdin is not None  # noqa: S101 (for mypy: we asked for a pipe)
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended already: its exit code tells


async def run(folder: StateFolder, name: str, command: Command) -> None:
    """Run to its end; raises PartFailed unless the exit code is 0. Killed when this is cancelled."""
    child = Child(folder, name, command)
    try:
        code = await child.ended()
    except asyncio.CancelledError:
        await child.kill()
        raise
    if code != 0:
        raise PartFailed(name, f"ended with exit code {code} ({child.last_words()})", child.log)


def identity(pid: int) -> str:
    """`pid start boot`: names one process for ever; empty when there is none, or only its zombie.

    `start` is field 22 of proc_pid_stat(5), in clock ticks since boot; the process name before it may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if fields[0] in "ZX":
        return ""
    return f"{pid} {fields[19]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


async def end_orphan(folder: StateFolder, name: str, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    """End the process that a killed parent left under this name, if it still is that very process."""
    file = folder.pid_file(name)
    known = file.read_text() if file.exists() else ""
    pid = int(known.split()[0]) if known else 0
    for number in (stop_signal, signal.SIGKILL):
        if known and identity(pid) == known:
            os.kill(pid, number)
            await becomes(lambda: identity(pid) != known, STOP_TIMEOUT_S)
    file.unlink(missing_ok=True)


async def becomes(test: Callable[[], bool], timeout_s: float = math.inf) -> bool:
    """Wait until `test` is true; False when it still was not after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if test():
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
