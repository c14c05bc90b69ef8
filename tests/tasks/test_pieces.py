"""Pieces: few messages, in order, and never waited for."""

import asyncio

from service.tasks.pieces import Piece, Pieces
from tests.waiting import eventually


class Told(list[tuple[str, int, str]]):
    """Every piece that was told: agent, at, text. While `held`, telling takes for ever."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def tell(self, piece: Piece) -> None:
        await self.open.wait()
        self.append((piece.agent, piece.at, piece.text))


async def test_what_comes_within_a_moment_is_one_message() -> None:
    told = Told()
    async with Pieces(told.tell, every_s=0.05) as pieces:
        for word in ("Paris", " is", " the"):
            pieces.add("a", word)
        await eventually(lambda: len(told) == 1)
        pieces.add("a", " capital.")
        await eventually(lambda: len(told) == 2)
    assert told == [("a", 0, "Paris is the"), ("a", 12, " capital.")]


async def test_what_waits_at_the_end_is_told_at_once() -> None:
    told = Told()
    async with Pieces(told.tell, every_s=60) as pieces:
        pieces.add("a", "Paris")
        pieces.add("b", "Rome")
        pieces.add("a", "!")
    assert told == [("a", 0, "Paris!"), ("b", 0, "Rome")]


async def test_a_full_piece_does_not_wait_for_its_moment() -> None:
    told = Told()
    async with Pieces(told.tell, every_s=60) as pieces:
        pieces.add("a", "x" * 4_500)
        await eventually(lambda: len(told) == 3)
        assert [(at, len(text)) for _, at, text in told] == [(0, 2_000), (2_000, 2_000), (4_000, 500)]


async def test_what_cannot_be_told_in_time_is_lost_and_the_place_says_so() -> None:
    told = Told()
    told.open.clear()
    async with Pieces(told.tell, every_s=0) as pieces:
        pieces.add("a", "first")
        await asyncio.sleep(0.01)  # what is measured is that nothing is told
        pieces.add("a", "x" * 40_000)
        pieces.add("a", "lost")
        told.open.set()
        await eventually(lambda: sum(len(text) for _, _, text in told) == 32_005)
        pieces.add("a", "last")
    assert told[-1] == ("a", 40_009, "last")


async def test_a_run_that_has_its_answer_waits_half_a_second_at_most() -> None:
    told, loop = Told(), asyncio.get_running_loop()
    told.open.clear()
    begun = loop.time()
    async with Pieces(told.tell, every_s=0) as pieces:
        pieces.add("a", "Paris")
    assert 0.45 < loop.time() - begun < 1.0
    assert told == []


async def test_of_a_run_that_failed_no_more_is_told() -> None:
    told = Told()
    try:
        async with Pieces(told.tell, every_s=60) as pieces:
            pieces.add("a", "Paris")
            raise ValueError
    except ValueError:
        assert told == []
