"""The clock as an input: the only thing that tells the core that time passes."""

import asyncio
from collections.abc import Callable

from monitor.events import Tick
from monitor.feeds.inbox import Inbox


async def ticker(inbox: Inbox, interval_ms: float, now: Callable[[], int]) -> None:
    """Put a `Tick` at every multiple of the interval since the start, until cancelled.

    The grid is fixed, so that small delays do not add up. Multiples that were missed, because the
    loop was stalled or the inbox full, are skipped: time is told, not made up for.
    """
    loop = asyncio.get_running_loop()
    interval_s = interval_ms / 1000
    start = loop.time()
    last = 0
    while True:
        # A sleep may end a clock's resolution early; `last` keeps its multiple from coming twice.
        last = max(last, int((loop.time() - start) / interval_s)) + 1
        await asyncio.sleep(start + last * interval_s - loop.time())
        await inbox.put(Tick(now()))
