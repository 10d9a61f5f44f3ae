"""What is usual at this hour of the day, from the medians of the last seven days."""

from math import isfinite
from statistics import median
from typing import Final

from msgspec import Struct

from monitor.core.saved import StateError

HOUR_NS: Final = 3_600_000_000_000
MINUTE_NS: Final = 60_000_000_000

DAYS: Final = 7
HOURS: Final = 24
MINUTES: Final = 60

SAMPLES_MIN: Final = 20
"""Minutes that must have been heard of an hour for its median to count."""

HEARD_MIN: Final = 60
"""Minutes that must have been heard before anything is usual at all."""


class UsualState(Struct, frozen=True):
    """What a `Usual` remembers: (hour, median) pairs, and the samples of the hour under way."""

    medians: list[tuple[int, float]]
    hour: int
    samples: list[float]
    heard: int
    minute: int


class Usual:
    """The usual value of one figure by hour of the day (UTC).

    A sample a minute; the median of each hour is kept for seven days. Memory: 169 medians and 60
    samples at the most.
    """

    def __init__(self) -> None:
        self._medians: dict[int, float] = {}
        self._hour = 0
        self._samples: list[float] = []
        self._heard = 0
        self._minute = 0
        self._cached: tuple[int, float | None] = (-1, None)

    def add(self, at: int, value: float) -> None:
        """Take the value at `at` (ns); only the first of each minute counts."""
        minute = at // MINUTE_NS
        if minute == self._minute:
            return
        hour = at // HOUR_NS
        if hour != self._hour:
            self._close(hour)
        self._minute = minute
        self._samples.append(value)
        self._heard = min(self._heard + 1, HEARD_MIN)

    def value(self, at: int) -> float | None:
        """Median over the days of this hour's medians.

        While this hour of the day has not been heard, that of all hours; None before an hour has
        been heard in all.
        """
        hour = at // HOUR_NS
        if self._cached[0] != hour:
            recent = self._recent(hour)
            same = [value for h, value in recent.items() if h % HOURS == hour % HOURS]
            known = same or list(recent.values())
            if not known or self._heard < HEARD_MIN:
                return None
            self._cached = hour, median(known)
        return self._cached[1]

    def state(self) -> UsualState:
        """Everything that `restore` needs."""
        return UsualState(
            list(self._medians.items()), self._hour, list(self._samples), self._heard, self._minute
        )

    def restore(self, state: UsualState) -> None:
        """Go on from a saved state.

        Raises:
            StateError: it does not fit; nothing has been taken over then.
        """
        values = [value for _, value in state.medians] + state.samples
        if not all(isfinite(value) and value >= 0.0 for value in values):
            raise StateError("what is usual holds a number that is no amount")
        if len(state.medians) > DAYS * HOURS + 1 or len(state.samples) > MINUTES:
            raise StateError("what is usual remembers more than it can")
        self._medians = dict(state.medians)
        self._hour, self._samples = state.hour, list(state.samples)
        self._heard, self._minute = min(max(state.heard, 0), HEARD_MIN), state.minute
        self._cached = (-1, None)

    def _close(self, hour: int) -> None:
        """End the hour under way and begin `hour`."""
        if len(self._samples) >= SAMPLES_MIN:
            self._medians[self._hour] = median(self._samples)
        self._medians = self._recent(hour)
        self._hour, self._samples = hour, []

    def _recent(self, hour: int) -> dict[int, float]:
        """The medians of the seven days before `hour`."""
        return {h: v for h, v in self._medians.items() if hour - DAYS * HOURS <= h <= hour}
