"""What the label rule cannot say, why, and up to where it has said anything."""

from collections import deque
from typing import Final

from msgspec import Struct

from monitor.core.saved import StateError
from monitor.events import NS, Ungraded

WAIT_S: Final = 21_600
"""A forecast that the label has not decided so long after its window stays unresolved."""
REFRACTORY_S: Final = 1800
"""For so long after an onset there can be no other (model.md A12)."""
WHY: Final[dict[Ungraded, str]] = {
    "price_unheard": "the price was not heard for all of the window and the five minutes before",
    "volatility_new": "the price moved far in the window, and how far is usual is not known "
    "before an hour of prices was heard",
    "liquidations_unheard": "the price moved far in the window, and liquidations were not heard "
    "for all of it",
    "liquidations_new": "the price moved far in the window with liquidations, and how many are "
    "usual is not known before a day of them was heard",
    "open_interest_unheard": "the price moved far in the window, and open interest was not heard "
    "before and after",
    "under_way": "a cascade had begun within the half hour before: there can be no other",
    "perhaps_under_way": "what may have been a cascade began within the half hour before",
    "away": "the monitor was not running in a part of the window",
    "undecided": "six hours after the window it was still not known what had happened",
}
"""What each reason for no grade means."""


class Unseen(Struct, frozen=True):
    """A stretch ``(since, until]`` of which nobody can say whether a cascade began in it, and why.

    `possible`: in each of its minutes the price moved as if one did.
    """

    since: int
    until: int
    why: Ungraded
    possible: bool

    def hides(self, at: int) -> bool:
        """Whether a cascade may have begun in it so shortly before `at` that it forbids another."""
        latest = min(self.until, at)
        return self.possible and self.since < latest and at - latest < REFRACTORY_S * NS


def merged(stretches: deque[Unseen], new: Unseen) -> None:
    """Append a stretch, as one with the last where it only goes on."""
    if stretches:
        last = stretches[-1]
        if (last.until, last.why, last.possible) == (new.since, new.why, new.possible):
            new = Unseen(stretches.pop().since, new.until, new.why, new.possible)
    stretches.append(new)


class Decided:
    """Up to where the label rule has decided one direction; its verdicts come out of order."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._latest = 0
        self.through = 0
        """Every minute that ends by then has its verdict; what `mature` takes."""

    def heard(self, minute: int) -> None:
        """A minute that ends then was given to the label rule; minutes come in order."""
        self._latest = minute
        self._waiting.append(minute)
        while self._waiting[0] < minute - WAIT_S * NS:
            # Nothing waits for its verdict any longer.
            self._waiting.popleft()

    def judged(self, minute: int) -> None:
        """The verdict on a minute came."""
        if minute not in self._waiting:
            return
        self._waiting.remove(minute)
        before = self._waiting[0] - 60 * NS if self._waiting else self._latest
        self.through = max(self.through, before)

    def state(self) -> list[int]:
        """For the engine's saved state."""
        return [self.through, *self._waiting, self._latest]

    def restore(self, state: list[int]) -> None:
        """Take over a saved state; StateError when it is none."""
        if len(state) < 2 or state != sorted(state):
            raise StateError("label's decided minutes are out of order")
        self.through, *waiting, self._latest = state
        self._waiting = deque(waiting)
