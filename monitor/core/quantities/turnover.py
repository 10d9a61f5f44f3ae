"""What takers bought and sold over all venues of an asset, reading after reading."""

from collections import deque
from typing import Final

from msgspec import Struct

from monitor.events import NS

KEPT_S: Final = 300

VOLUME_LEAST_S: Final = 3600.0
VOLUME_MEMORY_S: Final = 86_400.0
"""Seconds heard before a day's volume is told, and over which it is averaged."""


class Taken(Struct, frozen=True):
    """USD that takers bought and sold within so many seconds."""

    seconds: float
    bought: float
    sold: float


class Turnover:
    """Taker flow from running totals. An hour is extrapolated to a day until a day is known."""

    def __init__(self) -> None:
        # Time in ns and the two totals, oldest first.
        self._readings: deque[tuple[int, float, float]] = deque()
        self._rate = self._heard_s = 0.0

    def heard(self, at: int, bought: float, sold: float) -> Taken:
        """Take the totals since the start, in USD; what came since the last reading."""
        then, b, s = self._readings[-1] if self._readings else (at, bought, sold)
        since = Taken((at - then) / NS, bought - b, sold - s)
        self._readings.append((at, bought, sold))
        while len(self._readings) > 1 and at - self._readings[1][0] >= KEPT_S * NS:
            self._readings.popleft()
        if since.seconds > 0.0:
            self._heard_s += since.seconds
            share = min(since.seconds / min(self._heard_s, VOLUME_MEMORY_S), 1.0)
            self._rate += share * ((since.bought + since.sold) / since.seconds - self._rate)
        return since

    def within(self, seconds: int) -> Taken | None:
        """The last `seconds` seconds, or a little more; at most `KEPT_S`.

        None before so many have passed, and where nothing at all was traded: a dead feed looks
        the same.
        """
        if not self._readings:
            return None
        at, bought, sold = self._readings[-1]
        for then, b, s in reversed(self._readings):
            if at - then >= seconds * NS:
                found = Taken((at - then) / NS, bought - b, sold - s)
                return found if found.bought + found.sold > 0.0 else None
        return None

    @property
    def daily_usd(self) -> float | None:
        """Volume of a day; None before an hour was heard."""
        known = self._heard_s >= VOLUME_LEAST_S and self._rate > 0.0
        return self._rate * 86_400.0 if known else None
