"""What this process and its machine use, for the admin dashboard and the node's card.

The figures come from /proc through psutil; in a container those of the machine are the host's.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import psutil
from typing_extensions import TypedDict

# CPU use is measured between two samples; over less than this it would be noise, so the last sample is given again.
FRESH_S = 0.5
OWN_DESCRIPTORS = "/proc/self/fd"


class ProcessStats(TypedDict):
    cpu_percent: float
    rss_bytes: int
    open_files: int
    threads: int
    uptime_s: float


class MachineStats(TypedDict):
    cpu_percent: float
    cpu_count: int
    load_1m: float
    load_5m: float
    load_15m: float
    memory_total_bytes: int
    memory_available_bytes: int
    memory_used_percent: float


class Sample(TypedDict):
    process: ProcessStats
    machine: MachineStats


class SystemStats:
    """Samples on demand; `started` is the process's start on the monotonic clock, in seconds."""

    def __init__(self, started: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._started, self._clock = started, clock
        self._process = psutil.Process()
        self._sampled_at = clock()
        self._last = self._sample()  # psutil answers 0 the first time: from here on it has something to compare with

    def sample(self) -> Sample:
        """`process` and `machine`; sizes in bytes, CPU in percent since the last sample (the process's of one core).

        Takes well under a millisecond and never waits.
        """
        now = self._clock()
        if now - self._sampled_at >= FRESH_S:
            self._sampled_at, self._last = now, self._sample()
        return self._last

    def _sample(self) -> Sample:
        return {"process": self._of_process(), "machine": of_machine()}

    def _of_process(self) -> ProcessStats:
        process = self._process
        with process.oneshot():
            return {
                "cpu_percent": process.cpu_percent(interval=None),
                "rss_bytes": process.memory_info().rss,
                "open_files": open_files(process),
                "threads": process.num_threads(),
                "uptime_s": round(self._clock() - self._started, 3),
            }


def of_machine() -> MachineStats:
    memory, load = psutil.virtual_memory(), psutil.getloadavg()
    return {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "cpu_count": psutil.cpu_count() or 1,
        "load_1m": load[0],
        "load_5m": load[1],
        "load_15m": load[2],
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "memory_used_percent": memory.percent,
    }


def open_files(process: Any) -> int:
    """File descriptors, sockets included. Linux 6.2 and later tell their number as the folder's size; listing the
    folder instead takes 10 ms with 10,000 sockets open."""
    try:
        size = os.stat(OWN_DESCRIPTORS).st_size
    except OSError:
        size = 0
    return size or int(process.num_fds())
