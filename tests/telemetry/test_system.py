"""System statistics: what the operating system says, sampled for next to nothing."""

import os
import threading
import time

import pytest

from service.telemetry import system
from service.telemetry.system import SystemStats


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_sample_describes_the_process_and_the_machine() -> None:
    sample = SystemStats(started=time.monotonic() - 60).sample()
    assert set(sample) == {"process", "machine"}
    process, machine = sample["process"], sample["machine"]
    assert set(process) == {"cpu_percent", "rss_bytes", "open_files", "threads", "uptime_s"}
    assert 10_000_000 < process["rss_bytes"] < machine["memory_total_bytes"]
    assert process["threads"] >= threading.active_count()
    assert 60 <= process["uptime_s"] < 61
    assert machine["cpu_count"] == os.cpu_count()
    assert (machine["load_1m"], machine["load_5m"], machine["load_15m"]) == pytest.approx(os.getloadavg(), abs=1)
    assert 0 < machine["memory_available_bytes"] < machine["memory_total_bytes"]
    assert 0 < machine["memory_used_percent"] < 100
    assert 0 <= machine["cpu_percent"] <= 100


def test_cpu_use_is_that_since_the_last_sample() -> None:
    clock = Clock()
    stats = SystemStats(started=0, clock=clock)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    clock.now += 1
    assert stats.sample()["process"]["cpu_percent"] > 20


def test_two_askers_within_half_a_second_get_the_same_sample() -> None:
    clock = Clock()
    stats = SystemStats(started=0, clock=clock)
    first = stats.sample()
    clock.now += 0.4
    assert stats.sample() is first
    clock.now += 0.2
    assert stats.sample()["process"]["uptime_s"] == 100.6


@pytest.mark.parametrize("folder", ["/proc/self/fd", "/nowhere"], ids=["by its size", "by listing it"])
def test_open_files_are_counted(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(system, "OWN_DESCRIPTORS", folder)
    clock = Clock()
    stats = SystemStats(started=0, clock=clock)
    before = stats.sample()["process"]["open_files"]
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    clock.now += 1
    after = stats.sample()["process"]["open_files"]
    for descriptor in opened:
        os.close(descriptor)
    assert after - before == 50


def test_a_sample_takes_less_than_two_milliseconds() -> None:
    clock = Clock()
    stats = SystemStats(started=0, clock=clock)
    durations = []
    for _ in range(20):
        clock.now += 1
        started = time.perf_counter()
        stats.sample()
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.002
