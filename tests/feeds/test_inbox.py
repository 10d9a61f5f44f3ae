import asyncio
from contextlib import suppress

from monitor.events import Frame, Tick
from monitor.feeds.inbox import Inbox
from tests.feeds.conftest import eventually, running


async def produce(inbox: Inbox, numbers: range) -> None:
    for number in numbers:
        await inbox.put(Tick(number))


async def test_inputs_come_out_in_the_order_they_went_in_and_not_more_than_asked_for():
    inbox = Inbox(limit=10)
    await produce(inbox, range(5))
    assert [tick.at for tick in await inbox.take(2)] == [0, 1]
    assert [tick.at for tick in await inbox.take(10)] == [2, 3, 4]
    assert len(inbox) == 0


async def test_a_full_inbox_makes_every_producer_wait_and_loses_nothing():
    inbox, taken = Inbox(limit=3), []
    async with asyncio.TaskGroup() as group:
        for start in range(0, 400, 100):
            group.create_task(produce(inbox, range(start, start + 100)))
        while len(taken) < 400:
            assert len(inbox) <= 3
            taken += [tick.at for tick in await inbox.take(2)]
    assert sorted(taken) == list(range(400))
    for start in range(0, 400, 100):
        mine = [number for number in taken if start <= number < start + 100]
        assert mine == sorted(mine)
    assert inbox.waits > 0


async def test_a_producer_that_gives_up_while_waiting_has_put_nothing():
    inbox = Inbox(limit=1)
    await inbox.put(Tick(0))
    task = asyncio.create_task(inbox.put(Tick(1)))
    await eventually(lambda: inbox.waits == 1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert await inbox.take(5) == [Tick(0)]
    assert len(inbox) == 0


async def test_an_empty_inbox_makes_its_consumer_wait():
    inbox, taken = Inbox(limit=5), []

    async def consume() -> None:
        while True:
            taken.extend(await inbox.take(5))

    async with running(consume()):
        await asyncio.sleep(0)
        for number in range(20):
            await inbox.put(Tick(number))
        await eventually(lambda: len(taken) == 20)


async def test_a_few_huge_messages_fill_it_as_many_small_ones_do():
    inbox = Inbox(100, bytes_max=1000)
    await inbox.put(Frame(1, "f", b"x" * 600))
    await inbox.put(Frame(2, "f", b"x" * 600))
    third = asyncio.create_task(inbox.put(Frame(3, "f", b"x")))
    await asyncio.sleep(0)
    assert (len(inbox), third.done()) == (2, False)
    assert [r.at for r in await inbox.take(1)] == [1]
    await third
    assert [r.at for r in inbox.drain()] == [2, 3]
    await inbox.put(Frame(4, "f", b"x" * 5000))  # alone, it is let in
    assert len(inbox) == 1
