from itertools import accumulate

import pytest

from service.usage.quantiles import BUCKETS, quantile


def counts(**buckets: int) -> list[int]:
    return [buckets.get(f"b{index}", 0) for index in range(BUCKETS)]


@pytest.mark.parametrize(
    ("found", "share", "seconds"),
    [
        (counts(), 0.5, None),
        (counts(b0=1), 0.5, 0.0005),
        (counts(b13=100), 0.99, 0.3985),  # of 0.25 to 0.4
        (counts(b0=50, b26=50), 0.5, 0.001),
        (counts(b0=50, b26=50), 0.99, 120.0),  # beyond the last bound nothing is known
        (counts(b10=99, b20=1), 0.99, 0.1),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(found: list[int], share: float, seconds: float | None) -> None:
    assert quantile(list(accumulate(found)), share) == seconds
