"""The one folder that holds everything the embedded parts keep: data, logs, secrets, pid files."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.embedded.errors import StateUnusable

# A log that has grown past this at a start is set aside; one older file is kept.
LOG_BYTES_MAX = 5_000_000


@dataclass(frozen=True)
class StateFolder:
    """Layout: `<part>/` data, `log/<part>.log`, `run/<part>.pid`, `secret/<name>`, `lock`. Only its owner may enter."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "StateFolder":
        """Create the folder (0700) or take over an existing one; raises StateUnusable where it is another user's."""
        path = path.resolve()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            for name in ("log", "run", "secret"):
                (path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StateUnusable(f"the state folder {path} cannot be used ({error.strerror}): choose another") from error
        return cls(path)

    def pid_file(self, name: str) -> Path:
        return self.path / "run" / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        """Path of the log to append to; an overgrown one is moved to `.1` first."""
        log = self.path / "log" / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        return log

    def secret(self, name: str) -> str:
        """The secret of that name: 192 random bits as hex, made at its first use, mode 0600."""
        file = self.path / "secret" / name
        if not file.exists():
            write_private(file, secrets.token_hex(24))
        return file.read_text()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one parent. flock(2): the kernel lets go however the parent ends."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StateUnusable(
                    f"the state folder {self.path} is in use by process {file.read().strip() or '?'}: "
                    "stop that one or choose another folder"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def write_private(file: Path, text: str) -> None:
    """Write whole or not at all, mode 0600 from the first byte."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
