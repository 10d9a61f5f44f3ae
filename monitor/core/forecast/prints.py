"""Forced closes of one side of an asset as they are printed, and what flows behind them.

`Prints` is the recent past in USD, corrected for what throttled feeds leave out. `FollowOn` learns
psi, the taker flow that hits the book for each forced dollar: stops and others who run along
(model.md A5).
"""

from bisect import bisect_right
from collections import deque
from math import isfinite
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
"""Forced USD in bursts that weigh as much as the prior."""

QUIET_S: Final = 5
"""A burst ends when nothing was printed for so long; what is sold meanwhile still follows it."""

BACKGROUND_S: Final = 300.0
"""Memory of the taker flow outside bursts, which would have come anyway."""


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
        self._minutes = self._normal = 0.0
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
        if completeness == "all":
            complete[0] += usd
        else:
            throttled[venue] = throttled.get(venue, 0.0) + usd

    def within(self, at: int, seconds: int) -> float | None:
        """USD in the `seconds` before `at`; None while no venue's liquidations were ever heard."""
        if not self.heard:
            return None
        since = at // NS - seconds
        total = 0.0
        throttled: dict[tuple[int, str], list[float]] = {}
        rows = list(self._seconds)
        for second, complete, venues in rows[bisect_right(rows, since, key=itemgetter(0)) :]:
            total += complete[0]
            for venue, usd in venues.items():
                window = throttled.setdefault((second // WINDOW_S, venue), [0.0, 0.0])
                window[0] += usd
                window[1] += 1.0
        for usd, occupied in throttled.values():
            total += usd * self._correction.factor(int(occupied))
        return total

    def minute(self, at: int) -> float | None:
        """Close a minute: learn what is usual and return what it had."""
        usd = self.within(at, 60)
        if usd is None:
            return None
        self._minutes = min(self._minutes + 1.0, NORMAL_MEMORY_MIN)
        self._normal += (usd - self._normal) / self._minutes
        return usd

    @property
    def normal_usd(self) -> float | None:
        """USD of a usual minute; None before there is a usual."""
        return self._normal if self._minutes >= NORMAL_LEAST_MIN else None

    def state(self) -> PrintsState:
        """What a restart must not forget."""
        return PrintsState(self._minutes, self._normal)

    def restore(self, state: PrintsState) -> None:
        """Take over a saved state.

        Raises:
            StateError: its numbers are no amounts.
        """
        if not (0.0 <= state.minutes <= NORMAL_MEMORY_MIN and 0.0 <= state.normal_usd < 1e18):
            raise StateError("prints with impossible numbers")
        self._minutes, self._normal = state.minutes, state.normal_usd


class FollowOnState(Struct, frozen=True):
    """What outlives a restart: sums over bursts in USD, and the flow outside them."""

    followed: float
    bursts: float
    background: float


class FollowOn:
    """Psi of one side: taker flow of bursts over their forced closes.

    A regression through the origin whose variance grows with the size of the burst, which is the
    ratio of the sums.
    """

    def __init__(self) -> None:
        self._followed = self._bursts = 0.0
        self._background = 0.0
        self._forced = self._flow = 0.0
        self._quiet = 0

    def second(self, forced_usd: float, taker_usd: float) -> None:
        """Take one second: USD force-closed and USD that takers traded in the same direction."""
        if forced_usd <= 0.0 and self._forced <= 0.0:
            self._background += (taker_usd - self._background) / BACKGROUND_S
            return
        self._forced += forced_usd
        self._flow += max(0.0, taker_usd - self._background)
        self._quiet = 0 if forced_usd > 0.0 else self._quiet + 1
        if self._quiet >= QUIET_S:
            self._followed += self._flow
            self._bursts += self._forced
            self._forced = self._flow = 0.0
            self._quiet = 0

    @property
    def psi(self) -> float:
        """Between 1 and 10; 1.5 while little is known."""
        found = (PSI * PRIOR_USD + self._followed) / (PRIOR_USD + self._bursts)
        return min(max(found, PSI_LEAST), PSI_MOST)

    def state(self) -> FollowOnState:
        """What a restart must not forget."""
        return FollowOnState(self._followed, self._bursts, self._background)

    def restore(self, state: FollowOnState) -> None:
        """Take over a saved state.

        Raises:
            StateError: its numbers are no amounts.
        """
        numbers = (state.followed, state.bursts, state.background)
        if not all(isfinite(x) and x >= 0.0 for x in numbers):
            raise StateError("follow-on flow with impossible numbers")
        self._followed, self._bursts, self._background = numbers
