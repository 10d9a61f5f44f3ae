"""Forced closes of one side of an asset as they are printed, and what flows behind them.

`Prints` is the recent past in USD, corrected for what throttled feeds leave out. `FollowOn` learns
psi, the taker flow that hits the book for each forced dollar: stops and others who run along
(model.md A5).
"""

from bisect import bisect_left
from collections import deque
from itertools import takewhile
from math import inf, isfinite
from operator import itemgetter
from typing import Final

from msgspec import Struct

from monitor.core.heatmap.calibration import WINDOW_S, ThrottleCorrection
from monitor.core.saved import StateError
from monitor.events import NS, Completeness

KEPT_S: Final = 300
"""Seconds of prints that are remembered."""

NORMAL_MEMORY_MIN: Final = 7 * 1440.0
"""Minutes over which the usual amount is forgotten."""

NORMAL_LEAST_MIN: Final = 30.0
"""Minutes of hearing before anything is usual."""

PSI: Final = 1.5
"""Before own bursts say otherwise; also the least and most of model.md A5 below."""
PSI_LEAST, PSI_MOST = 1.0, 10.0

PRIOR_USD: Final = 5e6
"""Forced USD in lone bursts that weigh as much as the prior."""

FOLLOWED_S: Final = 10.0
"""Who follows a forced close does so within about so many seconds."""

USUAL_S: Final = 300.0
"""Memory of the flow that a burst stands out from."""


class Mean:
    """An exponential mean of values over so many of them, plain until there were as many.

    Attributes:
        heard: how many there were, `memory` at most.
        value: the mean; 0 before any.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self.heard = self.value = 0.0

    def add(self, value: float) -> float:
        """Take one more; the mean with it."""
        self.heard = min(self.heard + 1.0, self._memory)
        self.value += (value - self.value) / self.heard
        return self.value


class PrintsState(Struct, frozen=True):
    """What outlives a restart."""

    minutes: float
    normal_usd: float


class Prints:
    """Recent prints of one side over all venues of an asset."""

    def __init__(self, correction: ThrottleCorrection) -> None:
        self._correction = correction
        # Per second: its number, complete USD, throttled USD by venue.
        self._seconds: deque[tuple[int, list[float], dict[str, float]]] = deque()
        # Since `fresh` was last asked: complete USD, and throttled USD by venue.
        self._new = 0.0
        self._new_throttled: dict[str, float] = {}
        self._normal = Mean(NORMAL_MEMORY_MIN)
        self.heard = False
        """Whether any venue of the asset prints its liquidations at all, as far as is known."""

    def add(self, at: int, venue: str, usd: float, completeness: Completeness) -> None:
        """Take one print received at `at` (ns), in order."""
        second = at // NS
        self.heard = True
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, [0.0], {}))
            while self._seconds[0][0] <= second - KEPT_S - WINDOW_S:
                self._seconds.popleft()
        _, complete, throttled = self._seconds[-1]
        if completeness in ("all", "tail_only"):  # a tail is whole as far as it goes
            complete[0] += usd
            self._new += usd
        else:
            throttled[venue] = throttled.get(venue, 0.0) + usd
            self._new_throttled[venue] = self._new_throttled.get(venue, 0.0) + usd

    def fresh(self, at: int) -> float:
        """USD since this was last asked, so that each print counts once whenever it is asked."""
        usd, self._new = self._new, 0.0
        for venue, printed in self._new_throttled.items():
            recent = takewhile(lambda row: row[0] > at // NS - WINDOW_S, reversed(self._seconds))
            occupied = sum(venue in venues for _, _, venues in recent)
            usd += printed * self._correction.factor(occupied)
        self._new_throttled.clear()
        return usd

    def within(self, at: int, seconds: int) -> float | None:
        """USD in the `seconds` before `at`; None while no venue's liquidations were ever heard."""
        return self._between(at // NS - seconds + 1, at // NS + 1)

    def _between(self, first: int, end: int) -> float | None:
        """USD of the seconds from `first` to before `end`."""
        if not self.heard:
            return None
        total = 0.0
        throttled: dict[tuple[int, str], list[float]] = {}
        rows = list(self._seconds)
        known = slice(*(bisect_left(rows, second, key=itemgetter(0)) for second in (first, end)))
        for second, complete, venues in rows[known]:
            total += complete[0]
            for venue, usd in venues.items():
                window = throttled.setdefault((second // WINDOW_S, venue), [0.0, 0.0])
                window[0] += usd
                window[1] += 1.0
        for usd, occupied in throttled.values():
            total += usd * self._correction.factor(int(occupied))
        return total

    def minute(self, at: int) -> float | None:
        """Close the minute that ended last: learn what is usual and return what it had."""
        end = at // (60 * NS) * 60
        usd = self._between(end - 60, end)
        if usd is None:
            return None
        self._normal.add(usd)
        return usd

    @property
    def normal_usd(self) -> float | None:
        """USD of a usual minute; None before there is a usual."""
        return self._normal.value if self._normal.heard >= NORMAL_LEAST_MIN else None

    def state(self) -> PrintsState:
        """What a restart must not forget."""
        return PrintsState(self._normal.heard, self._normal.value)

    def restore(self, state: PrintsState) -> None:
        """Take over a saved state.

        Raises:
            StateError: its numbers are no amounts.
        """
        if not (0.0 <= state.minutes <= NORMAL_MEMORY_MIN and 0.0 <= state.normal_usd < 1e18):
            raise StateError("prints with impossible numbers")
        self._normal.heard, self._normal.value = state.minutes, state.normal_usd


class FollowOnState(Struct, frozen=True):
    """What outlives a restart: the sums of the regression, USD."""

    explained: float
    weight: float


class FollowOn:
    """Psi of one side: taker flow for each dollar that is force-closed.

    A regression of taker flow on forced closes, both averaged over `FOLLOWED_S` and taken less
    their means of `USUAL_S`. So what stays once a storm has passed, or would have come anyway, is
    not laid at its door, and closes that trickle among other flow say next to nothing: the variance
    is taken to grow with what is traded, forced and not. Of one burst in a quiet market it is the
    ratio of the flow to the closes (A5).
    """

    def __init__(self) -> None:
        self._explained = self._weight = 0.0
        self._forced, self._usual_forced = Mean(FOLLOWED_S), Mean(USUAL_S)
        self._taken, self._usual_taken = Mean(FOLLOWED_S), Mean(USUAL_S)

    def second(self, forced_usd: float, taker_usd: float) -> None:
        """Take one second: USD force-closed and USD that takers traded in the same direction."""
        forced, usual_forced = self._forced.add(forced_usd), self._usual_forced.add(forced_usd)
        taken, usual_taken = self._taken.add(taker_usd), self._usual_taken.add(taker_usd)
        noise = forced + usual_forced + usual_taken
        if noise > 0.0 and taken >= forced:
            more = forced - usual_forced
            self._explained += more * (taken - usual_taken) / noise
            self._weight += more * more / noise

    @property
    def psi(self) -> float:
        """Between 1 and 10; 1.5 while little is known."""
        found = (PSI * PRIOR_USD + self._explained) / (PRIOR_USD + self._weight)
        return min(max(found, PSI_LEAST), PSI_MOST)

    def state(self) -> FollowOnState:
        """What a restart must not forget."""
        return FollowOnState(self._explained, self._weight)

    def restore(self, state: FollowOnState) -> None:
        """Take over a saved state.

        Raises:
            StateError: its numbers are no sums of a regression.
        """
        if not (isfinite(state.explained) and 0.0 <= state.weight < inf):
            raise StateError("follow-on flow with impossible numbers")
        self._explained, self._weight = state.explained, state.weight
