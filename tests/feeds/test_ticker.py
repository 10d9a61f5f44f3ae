import asyncio
from collections.abc import Awaitable, Callable

import pytest

from monitor.events import NS
from monitor.feeds.inbox import Inbox
from monitor.feeds.ticker import ticker
from tests.feeds.conftest import running


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 1000.0
        select = self._selector.select

        def jump(timeout: float | None) -> list:
            if timeout:
                self.clock += timeout
            return select(0)

        self._selector.select = jump

    def time(self) -> float:
        return self.clock


def play(story: Callable[[VirtualLoop, Inbox], Awaitable[list[float]]]) -> list[float]:
    """What a story returns that is told beside a ticker of 100 ms in virtual time."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        inbox = Inbox(limit=2)
        start = loop.time()
        async with running(ticker(inbox, 100, lambda: round((loop.time() - start) * NS))):
            return await story(loop, inbox)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def taken(inbox: Inbox, ticks: int) -> list[float]:
    times = []
    while len(times) < ticks:
        times += [tick.at / NS for tick in await inbox.take(1)]
    return times


def test_ticks_keep_their_pace_without_drift():
    async def story(loop: VirtualLoop, inbox: Inbox) -> list[float]:
        times = []
        for _ in range(1000):
            times += await taken(inbox, 1)
            loop.clock += 0.03  # the work that each tick causes
        return times

    assert play(story) == pytest.approx([0.1 * n for n in range(1, 1001)], abs=1e-6)


def test_ticks_missed_in_a_stall_are_skipped_and_the_next_ones_are_on_the_old_grid():
    async def story(loop: VirtualLoop, inbox: Inbox) -> list[float]:
        times = await taken(inbox, 2)
        loop.clock += 0.75
        return times + await taken(inbox, 3)

    # The tick at 0.3 was due when the loop came back at 0.95; 0.4 to 0.9 never come.
    assert play(story) == pytest.approx([0.1, 0.2, 0.95, 1.0, 1.1])


def test_a_full_inbox_delays_the_ticks_and_they_do_not_pile_up():
    async def story(_: VirtualLoop, inbox: Inbox) -> list[float]:
        await asyncio.sleep(5.05)
        return await taken(inbox, 5)

    # Two fit, the third waited with its time; then the grid goes on.
    assert play(story) == pytest.approx([0.1, 0.2, 0.3, 5.1, 5.2])
