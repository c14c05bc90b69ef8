"""The breaker by itself, with a probe that does as it is told."""

from prometheus_client import Gauge

from service.errors import StateRejected, StateUnavailable
from service.state.breaker import Breaker


class Probed:
    def __init__(self) -> None:
        self.answers = self.writes = True
        self.written = 0
        self.up = Gauge("up", "of the test", registry=None)
        self.degraded = Gauge("degraded", "of the test", registry=None)
        self.breaker = Breaker(self.probe, self.up, self.degraded, write=self.write)

    async def probe(self) -> None:
        if not self.answers:
            raise StateUnavailable("ping: TimeoutError")

    async def write(self) -> None:
        self.written += 1
        if not self.writes:
            raise StateRejected("probe_write: OutOfMemoryError")

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


async def test_nothing_is_written_until_a_call_was_refused_and_then_once() -> None:
    probed = Probed()
    await probed.breaker.probe()
    assert probed.written == 0
    probed.breaker.rejected()
    await probed.breaker.probe()
    await probed.breaker.probe()
    assert probed.written == 1
    assert probed.breaker.closed


async def test_a_refused_write_after_a_refused_call_opens_it_whatever_reads_were_answered() -> None:
    probed = Probed()
    probed.writes = False
    probed.breaker.rejected()
    probed.breaker.succeeded()
    await probed.breaker.probe()
    assert not probed.breaker.closed
    assert probed.gauges() == (0, 1)


async def test_it_stays_open_while_pings_are_answered_and_writes_are_refused() -> None:
    probed = Probed()
    probed.writes = False
    probed.breaker.rejected()
    for _ in range(10):
        await probed.breaker.probe()
    assert not probed.breaker.closed
    probed.writes = True
    await probed.breaker.probe()
    assert not probed.breaker.closed
    await probed.breaker.probe()
    assert probed.breaker.closed


async def test_after_an_outage_too_a_write_must_be_accepted() -> None:
    probed = Probed()
    probed.breaker.failed("1")
    probed.breaker.failed("2")
    probed.writes = False
    for _ in range(5):
        await probed.breaker.probe()
    assert not probed.breaker.closed


async def test_refused_writes_are_tried_less_and_less_often() -> None:
    probed = Probed()
    probed.writes = False
    probed.breaker.rejected()
    pauses = []
    for _ in range(5):
        await probed.breaker.probe()
        pauses.append(probed.breaker._pause_s)
    assert pauses == [0.5, 1.0, 2.0, 2.0, 2.0]
    probed.writes = True
    for _ in range(3):
        await probed.breaker.probe()
    assert probed.breaker._pause_s == 0.25


async def test_a_hook_that_is_refused_leaves_it_closed_and_the_other_hooks_run() -> None:
    probed = Probed()
    seen: list[str] = []

    async def refused() -> None:
        raise StateRejected("revocations_publish: ResponseError")

    async def other() -> None:
        seen.append("other")

    probed.breaker.on_recovery(refused)
    probed.breaker.on_recovery(other)
    probed.breaker.failed("1")
    probed.breaker.failed("2")
    await probed.breaker.probe()
    await probed.breaker.probe()
    assert seen == ["other"]
    assert probed.gauges() == (1, 0)


async def test_a_hook_that_is_not_answered_is_tried_less_and_less_often() -> None:
    probed = Probed()

    async def unanswered() -> None:
        raise StateUnavailable("presence_begin: TimeoutError")

    probed.breaker.on_recovery(unanswered)
    probed.breaker.failed("1")
    probed.breaker.failed("2")
    for _ in range(10):
        await probed.breaker.probe()
    assert (probed.breaker.closed, probed.breaker._pause_s) == (False, 2.0)
