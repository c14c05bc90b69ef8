"""What the kernel says of the machine: a process's time and memory, and who else was on the server's core (proc(5))."""

import asyncio
import os
import platform
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVER_CORE, OTHER_CORE = 0, 1

QUIET_SHARE = 0.05
LOOK_S = 0.4
PATIENCE_S = 6.0


def cpu_s(pid: int) -> float:
    """User and system time of a process, all threads: fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def core_busy_s(core: int) -> float:
    """Time of a core that some process used or the hypervisor took: user, nice, system, steal of proc_stat(5)."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(line.split() for line in lines if line.startswith(f"cpu{core} "))
    return sum(int(fields[column]) for column in (1, 2, 3, 8)) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory now, in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def established(port: int) -> int:
    """How many connections a server of ours holds on its port, whatever its clients think (proc_net_tcp(5))."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    # As a set: the file may list a connection twice where others come and go while it is read.
    return len({(row[1], row[2]) for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "01"})


def facts() -> str:
    """Cores, memory, system, Python; nothing that names a machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = platform.freedesktop_os_release()
    system = f"{release['NAME'].split()[0]} {release.get('VERSION_ID', '')}".strip()
    python = ".".join(platform.python_version_tuple()[:2])
    return f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {system}, Python {python}"


async def quiet() -> None:
    """Wait until other jobs leave both cores alone, or patience ends: then the table says how noisy it was."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        before = [core_busy_s(core) for core in (SERVER_CORE, OTHER_CORE)]
        await asyncio.sleep(LOOK_S)
        busy = [core_busy_s(core) - was for core, was in zip((SERVER_CORE, OTHER_CORE), before, strict=True)]
        if max(busy) < QUIET_SHARE * LOOK_S * 2:
            return
