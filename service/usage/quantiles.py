"""Latency quantiles from the sums' histograms. The bounds are those of duration_bucket() in the migrations."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

BOUNDS_S = (
    *(0.001, 0.0016, 0.0025, 0.004, 0.0063, 0.01, 0.016, 0.025, 0.04, 0.063, 0.1, 0.16, 0.25, 0.4, 0.63),
    *(1.0, 1.6, 2.5, 4.0, 6.3, 10.0, 16.0, 25.0, 40.0, 63.0, 120.0),
)
BUCKETS = len(BOUNDS_S) + 1
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def quantiles(counts: Sequence[int]) -> dict[str, float | None]:
    """p50, p95 and p99 in seconds; None without requests."""
    cumulative = list(accumulate(counts))
    return {name: quantile(cumulative, share) for name, share in QUANTILES.items()}


def quantile(cumulative: Sequence[int], share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within a bucket; beyond the last bound that bound itself."""
    if not cumulative or not cumulative[-1]:
        return None
    rank = share * cumulative[-1]
    index = bisect_left(cumulative, rank)  # the first bucket that reaches it; never an empty one
    below = cumulative[index - 1] if index else 0
    return place(index, (rank - below) / (cumulative[index] - below))


def place(index: int, share: float) -> float:
    """So far along a bucket, in seconds."""
    if index == len(BOUNDS_S):
        return BOUNDS_S[-1]
    lower = BOUNDS_S[index - 1] if index else 0.0
    return round(lower + (BOUNDS_S[index] - lower) * share, 6)
