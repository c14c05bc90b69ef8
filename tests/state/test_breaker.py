"""The breaker by itself, with a probe that does as it is told."""

from prometheus_client import Gauge

from service.errors import StateUnavailable
from service.state.breaker import Breaker


class Probed:
    def __init__(self) -> None:
        self.answers = True
        self.up = Gauge("up", "of the test", registry=None)
        self.degraded = Gauge("degraded", "of the test", registry=None)
        self.breaker = Breaker(self.probe, self.up, self.degraded)

    async def probe(self) -> None:
        if not self.answers:
            raise StateUnavailable("ping: TimeoutError")

    def gauges(self) -> tuple[float, float]:
        return self.up._value.get(), self.degraded._value.get()


async def test_two_failures_in_a_row_open_it_and_two_answers_close_it() -> None:
    probed = Probed()
    assert probed.gauges() == (1, 0)
    probed.answers = False
    await probed.breaker.probe()
    assert probed.breaker.closed
    await probed.breaker.probe()
    assert not probed.breaker.closed
    assert probed.gauges() == (0, 1)
    probed.answers = True
    await probed.breaker.probe()
    assert not probed.breaker.closed
    await probed.breaker.probe()
    assert probed.breaker.closed
    assert probed.gauges() == (1, 0)


async def test_failures_that_do_not_follow_each_other_do_not_open_it() -> None:
    probed = Probed()
    for _ in range(10):
        probed.breaker.failed("one")
        await probed.breaker.probe()
    assert probed.breaker.closed


async def test_an_answer_between_failures_of_recovery_starts_the_count_again() -> None:
    probed = Probed()
    probed.breaker.failed("1")
    probed.breaker.failed("2")
    for _ in range(5):
        probed.answers = True
        await probed.breaker.probe()
        probed.answers = False
        await probed.breaker.probe()
    assert not probed.breaker.closed


async def test_hooks_run_in_order_after_it_has_closed() -> None:
    probed = Probed()
    seen: list[tuple[str, bool, float]] = []
    for name in ("first", "second"):

        async def hook(name: str = name) -> None:
            seen.append((name, probed.breaker.closed, probed.gauges()[1]))

        probed.breaker.on_recovery(hook)
    probed.breaker.failed("1")
    probed.breaker.failed("2")
    await probed.breaker.probe()
    await probed.breaker.probe()
    assert seen == [("first", True, 1), ("second", True, 1)]  # still counted as degraded until they are done
