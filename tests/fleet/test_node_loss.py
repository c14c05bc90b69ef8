"""A node that is killed, frozen or stopped: what the others count, and what its clients meet."""

import asyncio
import time

from tests.fleet.crowd import Member, broadcast, crowd, on_each, percentile
from tests.fleet.polling import polled
from tests.processes import Fleet
from tests.waiting import eventually

CHAT = {"agent": "reasoning", "task": "What is the capital of France?", "model": "slow"}


async def test_one_node_killed_and_one_frozen_are_out_of_the_count_and_the_thawed_one_is_back_in_it(
    own_fleet: Fleet,
) -> None:
    killed, frozen, survivor = own_fleet.nodes
    async with crowd(*on_each([killed], 5), *on_each([frozen], 7), *on_each([survivor], 3)) as members:
        await own_fleet.until_counted(15, 3)
        frozen.freeze()
        await killed.kill()
        took = await own_fleet.until_counted(3, 15, survivor)
        assert (await survivor.online())["nodes"] == 1
        print(f"kill -9 and SIGSTOP: the third's count is exact after {took:.1f} s")

        members[5].vanish()  # two that the frozen node cannot know of
        members[6].vanish()
        frozen.thaw()
        took = await own_fleet.until_counted(8, 10, survivor, frozen)
        assert (await survivor.online())["nodes"] == 2
        print(f"SIGCONT: both counts are exact after {took:.1f} s")
        said = await broadcast(survivor)
        living = members[7:]
        await eventually(lambda: all(member.ids() == [said["id"]] for member in living))
        assert [member.ended for member in living] == [None] * 8


async def test_a_stopped_node_finishes_its_chat_closes_with_1012_and_leaves_the_count(own_fleet: Fleet) -> None:
    stopped, *others = own_fleet.nodes
    async with crowd(*on_each([stopped], 30), *on_each(others, 1)) as members:
        await own_fleet.until_counted(32, 3)
        chatting = members[0]
        await chatting.say("chat", id="c1", **CHAT)
        await eventually(lambda: len(chatting.others) == 1)
        assert chatting.others[0]["type"] == "delta"
        started = time.monotonic()
        assert await stopped.terminate() == 0
        took = time.monotonic() - started
        recounted = await own_fleet.until_counted(2, 2, *others)
        print(f"SIGTERM to exit: {took:.2f} s; the others' counts are exact {recounted:.2f} s later")
        assert took < 30
        await eventually(lambda: all(member.ended for member in members[:30]))
        assert {member.ended[0] for member in members[:30] if member.ended} == {1012}
        assert all("retry_ms=" in member.ended[1] for member in members[:30] if member.ended)
        types = [message["type"] for message in chatting.others]
        assert types == ["delta", "delta", "delta", "delta", "answer", "done"]
        assert chatting.others[-1]["usage"]["output_tokens"] == 4
        assert chatting.ended_at > max(member.ended_at for member in members[1:30])
        assert [member.ended for member in members[30:]] == [None, None]
    assert await own_fleet.rows("SELECT model, status FROM api_usage") == [("slow", 200)]


async def test_six_hundred_clients_of_a_killed_node_are_back_on_the_others_while_rest_goes_on(own_fleet: Fleet) -> None:
    killed, *survivors = own_fleet.nodes
    back_at: list[float] = []

    async def comes_back(member: Member, number: int) -> None:
        await member.come_back(survivors[number % 2])
        back_at.append(time.monotonic())

    async with crowd(*on_each([killed], 600)) as members, polled(survivors, "/api/v1/models") as answers:
        await killed.kill()
        await eventually(lambda: all(member.ended for member in members))
        started = time.monotonic()
        await asyncio.gather(*(comes_back(member, number) for number, member in enumerate(members)))
        took = [at - started for at in back_at]
        slowest = max(answer.took_s for answer in answers)
        print(f"storm of 600: 99 % ready after {percentile(took, 0.99):.1f} s, all after {max(took):.1f} s; ", end="")
        print(f"{len(answers)} GETs meanwhile, slowest {slowest:.2f} s")
        assert max(took) < 10
        assert {member.ready["type"] for member in members} == {"ready"}
    assert {answer.status for answer in answers} == {200}
    assert len(answers) >= 4  # ours and theirs share the processors
