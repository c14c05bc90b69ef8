"""The arithmetic of the sliding window, against the library's and against a slow model of it."""

from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.limits.hits import Hit
from service.limits.memory import MemoryWindows
from service.limits.window import Window

WINDOW_MS = 1000
COUNTS = st.integers(0, 60)
WINDOWS = st.builds(Window, COUNTS, COUNTS, st.integers(0, WINDOW_MS - 1))


class Model:
    """Every admission is remembered with its moment; windows begin with the first hit. Slow and plain."""

    def __init__(self, limit: int) -> None:
        self.limit, self.start, self.admitted = limit, 0, list[tuple[int, int]]()

    def hit(self, now: int, cost: int) -> bool:
        if not [at for at, _ in self.admitted if at >= self.start - WINDOW_MS]:
            self.start = now
        while now >= self.start + WINDOW_MS:
            self.start += WINDOW_MS
            if not [at for at, _ in self.admitted if at >= self.start - WINDOW_MS]:
                self.start = now
        previous = sum(c for at, c in self.admitted if self.start - WINDOW_MS <= at < self.start)
        current = sum(c for at, c in self.admitted if at >= self.start)
        fits = previous * (self.start + WINDOW_MS - now) // WINDOW_MS + current + cost <= self.limit
        if fits:
            self.admitted.append((now, cost))
        return fits


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 2500), st.integers(1, 4)), max_size=60))
async def test_memory_admits_what_the_model_admits(limit: int, steps: list[tuple[int, int]]) -> None:
    now = 5_000
    windows, model = MemoryWindows(clock=lambda: now / 1000), Model(limit)
    for pause, cost in steps:
        now += pause
        (outcome,) = await windows.hit([Hit("ana", limit, WINDOW_MS, cost)])
        assert outcome.admitted == model.hit(now, cost)


@given(WINDOWS)
def test_the_weighting_is_the_librarys(window: Window) -> None:
    library = SlidingWindowCounterRateLimiter(MemoryStorage())
    left_s = (WINDOW_MS - window.elapsed_ms) / 1000
    weighted = library._weighted_count(parse("9/second"), window.previous, left_s, window.current)
    assert abs(window.used(WINDOW_MS) - weighted) < 1 + 1e-9


@given(WINDOWS, st.integers(1, 60), st.integers(1, 60))
def test_the_wait_ends_with_the_first_millisecond_that_admits(window: Window, limit: int, cost: int) -> None:
    def fits(after_ms: int) -> bool:
        return window.later(after_ms, WINDOW_MS).used(WINDOW_MS) + cost <= limit

    wait_ms = window.wait_ms(limit, WINDOW_MS, cost)
    if cost > limit:
        assert wait_ms is None
        return
    assert wait_ms is not None
    assert fits(wait_ms)
    assert wait_ms == 0 or not fits(wait_ms - 1)


def test_a_full_window_lets_one_in_a_millisecond_after_its_end_since_what_it_weighs_is_rounded_down() -> None:
    full = Window(previous=0, current=30, elapsed_ms=15_000)
    assert full.wait_ms(30, 60_000) == 45_001  # until the window's end, and until 30 of them weigh 29
    assert full.later(45_000, 60_000) == Window(30, 0, 0)
    assert full.later(45_001, 60_000).used(60_000) == 29
    assert full.wait_ms(30, 60_000, cost=30) == 45_000 + 58_001


def test_nothing_counts_two_windows_later() -> None:
    assert Window(5, 5, 0).later(2 * WINDOW_MS, WINDOW_MS) == Window(0, 0, 0)
