"""Whose task is next: literal turns, and what they promise."""

from datetime import UTC, datetime, timedelta

from service.tasks.turns import EPOCH, TURN_S, Waiting, turns

NOW = EPOCH + timedelta(seconds=1_000_000)
NOTHING = Waiting(0, {})


def test_tasks_of_one_user_stand_an_hour_apart() -> None:
    assert turns(NOW, NOTHING, [(0, None)] * 3) == [1_000_000, 1_003_600, 1_007_200]


def test_they_stand_behind_those_that_wait_already() -> None:
    assert turns(NOW, Waiting(2, {0: 1_003_600}), [(0, None)]) == [1_007_200]


def test_a_queue_that_was_served_late_begins_at_now() -> None:
    assert turns(NOW, Waiting(1, {0: 500_000}), [(0, None)]) == [1_000_000]


def test_an_urgent_task_stands_before_ones_own_others_and_behind_those_as_urgent() -> None:
    waiting = Waiting(10, {1: 1_003_600, 0: 1_036_000, -1: 1_072_000})
    assert turns(NOW, waiting, [(1, None)]) == [1_007_200]
    assert turns(NOW, waiting, [(0, None)]) == [1_039_600]
    assert turns(NOW, waiting, [(-1, None)]) == [1_075_600]


def test_a_task_for_later_stands_at_its_moment_and_holds_up_no_other() -> None:
    later = NOW + timedelta(days=1)
    assert turns(NOW, NOTHING, [(0, later), (0, None), (0, None)]) == [1_086_400, 1_000_000, 1_003_600]


def test_the_first_task_of_another_user_stands_before_all_but_the_first_of_ten_thousand() -> None:
    thousands = turns(NOW, NOTHING, [(0, None)] * 10_000)
    (lone,) = turns(NOW + timedelta(minutes=5), NOTHING, [(0, None)])
    assert sum(turn < lone for turn in thousands) == 1


def test_turns_fit_the_engines_priorities_for_half_a_century() -> None:
    last = turns(datetime(2090, 1, 1, tzinfo=UTC), NOTHING, [(0, None)] * 10_000)[-1]
    assert last < 2**31
    assert TURN_S == 3600
