"""When keys end: the next one first, whatever was said before."""

import math

from service.live.deadlines import Deadlines


def test_the_next_to_end_is_first_and_comes_out_once() -> None:
    deadlines = Deadlines()
    assert deadlines.first() == math.inf
    assert [deadlines.add(b"b", 2.0), deadlines.add(b"c", 3.0), deadlines.add(b"a", 1.0)] == [True, False, True]
    assert deadlines.due(2.0) == [b"a", b"b"]
    assert (deadlines.first(), len(deadlines)) == (3.0, 1)


def test_of_the_moments_that_are_added_the_earliest_counts_until_it_is_moved() -> None:
    deadlines = Deadlines()
    deadlines.add(b"a", 5.0)
    assert not deadlines.add(b"a", 9.0)
    assert deadlines.first() == 5.0
    assert deadlines.add(b"a", 1.0)
    assert not deadlines.add(b"a", 1.0)
    assert deadlines.first() == 1.0
    deadlines.move(b"a", 2.0)
    deadlines.move(b"a", 7.0)
    assert (deadlines.due(6.0), deadlines.due(7.0)) == ([], [b"a"])
    deadlines.add(b"a", 9.0)
    deadlines.move(b"a", None)
    assert deadlines.first() == math.inf


def test_what_nobody_holds_is_forgotten_and_moving_costs_no_memory() -> None:
    deadlines = Deadlines()
    for moment in range(1000):
        deadlines.move(b"a", float(moment))
        deadlines.move(b"b", float(moment))
    deadlines.keep(lambda key: key == b"a")
    assert (len(deadlines), deadlines.first(), len(deadlines._heap)) == (1, 999.0, 1)
