"""The memory of a node: bounded in bytes whatever is put into it, and what was used last stays longest."""

import gc
import tracemalloc

import hypothesis.strategies as st
from hypothesis import given

from service.cache.clock import SharedClock
from service.cache.entry import Entry, digest, name_of
from service.cache.memory import MemoryCache, cost_bytes
from service.telemetry.metrics import Metrics

LIMIT_BYTES = 20_000

operations = st.lists(
    st.tuples(st.sampled_from(["keep", "look", "drop"]), st.integers(0, 30), st.integers(0, LIMIT_BYTES)), max_size=200
)


def fresh(value: bytes) -> Entry:
    return Entry(value, 60.0, 0, 1_000_000, ("sound",))


def memory(limit_bytes: int = LIMIT_BYTES) -> tuple[MemoryCache, Metrics]:
    metrics = Metrics()
    clock = SharedClock(wall=lambda: 1000.0, monotonic=lambda: 1000.0)
    return MemoryCache(limit_bytes, clock, metrics.cache_evictions), metrics


@given(operations)
def test_it_never_holds_more_bytes_than_it_may_and_counts_them_exactly(done: list[tuple[str, int, int]]) -> None:
    cache, _ = memory()
    truth: dict[str, Entry] = {}
    for what, number, value_bytes in done:
        name = f"name-{number}"
        if what == "keep":
            truth[name] = fresh(bytes(value_bytes))
            cache.keep(name, truth[name])
        elif what == "drop":
            truth.pop(name, None)
            cache.drop(name)
        else:
            assert cache.look(name) in (None, truth.get(name))
        assert cache.used_bytes <= LIMIT_BYTES
    held = {name: entry for name, (entry, _) in cache._held.items()}
    assert cache.used_bytes == sum(cost_bytes(name, entry) for name, entry in held.items())
    assert held.items() <= truth.items()


def test_what_was_used_last_stays_and_evictions_are_counted() -> None:
    cache, metrics = memory()
    for number in range(5):
        cache.keep(f"name-{number}", fresh(bytes(3000)))
    assert cache.look("name-0") is not None
    cache.keep("new", fresh(bytes(3000)))
    assert [name for name in ["name-0", "name-1", "name-2", "new"] if cache.look(name)] == ["name-0", "name-2", "new"]
    assert metrics.registry.get_sample_value("atp_cache_evictions_total") == 1


def test_an_entry_larger_than_all_of_it_is_not_kept_and_takes_the_older_one_away() -> None:
    cache, _ = memory()
    cache.keep("name", fresh(b"old"))
    cache.keep("other", fresh(b"other"))
    cache.keep("name", fresh(bytes(LIMIT_BYTES)))
    assert (cache.look("name"), len(cache)) == (None, 1)


def test_what_it_counts_for_an_entry_is_what_python_takes_for_it() -> None:
    cache, _ = memory(10**9)
    gc.collect()
    tracemalloc.start()
    for number in range(5000):
        cache.keep(name_of("query", digest(number)), Entry(bytes(100), 60.0 + number, number * 1000, 1_000_000, ()))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.9 < cache.used_bytes / taken < 1.2
