"""Thresholds: where a panel changes its colour. The figures are those of the alerts and of the SLOs."""

from dataclasses import dataclass

GOOD, WARN, BAD = "green", "orange", "red"

LATENCY_SLO_S = 0.5  # 99 % of the requests are faster
AVAILABILITY_ERRORS = 0.001  # 99.9 %
WS_LATE = 0.005  # 99.5 % of the pushes within LATENCY_SLO_S
WS_DROPPED = 0.01
BURNS = {"1h": 14.4, "6h": 6, "1d": 3, "3d": 1}  # by window; the first two page, the others are tickets
SNAPSHOT_STALE_S = 30
LOOP_LAG_S = 0.1
NEARLY_FULL, FULL = 0.8, 0.9  # the first is of AtpWSCapacity and AtpRedisMemoryHigh
LIMITED_HIGH = 0.1
BAD_KEYS = 1  # a second
QUEUE_OLD_S, QUEUE_LATE_S = 600, 3600
BACKUP_STALE_S = 26 * 3600
LLM_ERRORS = 0.1
SEND_QUEUE_BYTES = 64 * 1024 * 1024
SAMPLES = 1500


@dataclass(frozen=True)
class Limits:
    """Colours from the lowest step on: (None, colour), then (value, colour)…"""

    steps: tuple[tuple[float | None, str], ...]


@dataclass(frozen=True)
class NoLimits:
    """Why no value of this panel is bad; shown at the end of its description."""

    why: str


def above(bad: float, warn: float | None = None) -> Limits:
    """Bad from `bad` up."""
    return Limits(((None, GOOD), *(((warn, WARN),) if warn is not None else ()), (bad, BAD)))


def below(bad: float, warn: float | None = None) -> Limits:
    """Bad under `bad`; with `warn`, a warning from there up to `warn`."""
    return Limits(((None, BAD), *(((bad, WARN), (warn, GOOD)) if warn is not None else ((bad, GOOD),))))


ANY = above(1)  # one is one too many: of a count
ANY_RATE = above(1e-9)  # the same, of a rate
DOWN = below(1)
TRAFFIC = NoLimits("traffic has no bad value by itself")
CONTEXT = NoLimits("read it beside its neighbours")
