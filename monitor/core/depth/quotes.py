"""One side of a book as it is read second after second.

A reading goes into bins of *log price*, 5 bp wide, that stay where they are when the price moves.
Two readings are compared bin by bin, so that a moving mid price alone is no flow (model.md A7), and
the share of the last ten seconds that a bin's USD have rested there is what they count for. The
depth curve itself is taken from the levels, each with the weight of its bin. Orders moved within
one bin are neither additions nor cancels.
"""

from collections import deque
from math import exp, floor, log
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.cascade.curves import POINTS, STEP, USD_MAX, Floats
from monitor.core.depth.book import Book
from monitor.core.depth.supply import MAX_DISTANCE, continued, tail_exponent
from monitor.core.depth.usual import Usual
from monitor.events import NS

NEAR: Final = 20
"""Steps within which depth is compared with its norm and flow is measured: 1 %."""

NEAR_DISTANCE: Final = NEAR * STEP

READINGS: Final = 10
READINGS_NS: Final = 10 * NS
"""Earlier readings against which a level must prove itself, and how old they may be."""

FLOW_S: Final = 60
"""Seconds over which refill and cancel flow are averaged."""

FLOW_MIN_S: Final = 10
"""Seconds of these that must have been measured."""

FLOW_BINS: Final = 2
"""Bins that must be known in both readings for their difference to be a flow."""

LAPSE_NS: Final = 5 * NS
"""Readings farther apart than this are not compared, and a curve this old is stale."""

CAP_LEVELS: Final = 100
"""Levels from which on the largest hundredth of them is capped."""

CAP_READINGS: Final = 10
"""Readings for which a cap holds: the usual size of a level does not change in a second."""

LEARN_BELOW: Final = 4 * STEP
LEARN_DISTANCE: Final = 0.005
"""A book known less far than the first is taken as known where the price has lately been within the
second: levels that near are sent as they change. Farther out many have not changed for minutes, and
a recording's depth within 1 % was still a fifth too small after five."""

FITS: Final = 60
"""Readings over which the exponent of the tail is averaged, a minute."""

REACH_MIN: Final = STEP / 10
"""A book known no farther than this is a lower bound as a whole."""

SLACK: Final = 50
"""Bins that the mid price may move before the readings are moved along: 2.5 %."""

WIDTH: Final = POINTS + 2 * SLACK + 2

USD_MIN: Final = 1e-200
"""Less than any amount."""

WHOLE: Final = 1e-9
"""Rounding error of a logarithm, in steps."""


class Half:
    """One side of the book, in a coordinate that grows away from the price: ``sign * ln price``."""

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.norm = Usual()
        self.usd: Floats | None = None
        self.steps: Floats = np.zeros(POINTS)
        self.reach = 0.0
        self.kappa = 0.0
        self.taken = 0.0
        # What was added less what was withdrawn, and the latter, in USD/s; None while unknown.
        self.flow: tuple[float, float] | None = None
        self._flows: deque[tuple[int, float, float, float]] = deque(maxlen=4 * FLOW_S)
        # Earlier readings: USD by bin, infinite where the book is not known. A row is written over
        # in turn; `_times` has the time and the row of those that count, oldest first.
        self._rows: Floats = np.zeros((READINGS, WIDTH))
        self._times: deque[tuple[int, int]] = deque(maxlen=READINGS)
        self._turn = 0
        self._first = 0
        self._edge = 0
        self._cap = np.inf
        self._capped = 0
        self._fits = 0
        self._pending: Reading | None = None

    def read(
        self, number: int, book: Book, mid: float, learned: tuple[float, float] | None
    ) -> bool:
        """Take in the levels; return whether they are exactly those of the last reading."""
        sign = self.sign
        start = sign * log(mid)
        prices, quantities = book.resting(number, mid, mid * exp(sign * MAX_DISTANCE))
        usd = prices * quantities
        places = np.log(prices)
        places *= sign / STEP
        known = self._known(start, book.reach(number), learned)
        origin = floor(start / STEP)
        moved = self._follow(origin)
        columns = (places - self._first).astype(np.int64)
        row: Floats = np.asarray(np.bincount(columns, usd, WIDTH), np.float64)
        shown = floor((start + known) / STEP + WHOLE) - self._first
        shown = max(shown, 0)
        row[shown:] = np.inf
        self._edge = min(max(floor((start + NEAR_DISTANCE) / STEP) - self._first, 0), WIDTH)
        self._pending = Reading(row, shown, columns, usd, places - start / STEP, known)
        if moved or not self._times:
            return False
        return bool((row == self._rows[self._times[-1][1]]).all())

    @property
    def offers(self) -> bool:
        """Whether the last reading found a level at all, and no more USD than there can be."""
        return self._pending is not None and 0.0 < self._pending.usd.sum() < USD_MAX

    def take(self, at: int) -> None:
        """Believe the last reading: measure the flow since the one before, and make the curve."""
        reading = self._pending
        assert reading is not None, "take() without read()"
        self._pending = None
        taken, self.taken = self.taken, 0.0
        if self._times and at - self._times[-1][0] <= LAPSE_NS:
            self._compare(at, reading.row, taken)
        self.flow = self._mean_flow(at)
        while self._times and at - self._times[0][0] > READINGS_NS:
            self._times.popleft()
        self._draw(reading, self._weights(reading.row, reading.shown))
        self._rows[self._turn] = reading.row
        self._times.append((at, self._turn))
        self._turn = (self._turn + 1) % READINGS
        assert self.usd is not None
        self.norm.add(at, float(self.usd[NEAR]))

    def forget(self) -> None:
        """Compare nothing with what was read so far; the curve stays."""
        self._times.clear()
        self._fits = 0
        self._pending = None
        self.taken = 0.0

    def _known(
        self, start: float, reach: float | None, learned: tuple[float, float] | None
    ) -> float:
        """Log distance as far as every level is known, at most `MAX_DISTANCE`, at least 0."""
        if reach is None:
            return MAX_DISTANCE
        known = self.sign * log(reach) - start
        if known < LEARN_BELOW and learned is not None:
            nearest = min(self.sign * learned[0], self.sign * learned[1])
            known = max(known, nearest + LEARN_DISTANCE - start)
        return min(max(known, 0.0), MAX_DISTANCE)

    def _follow(self, origin: int) -> bool:
        """Keep bin `origin` and `POINTS` bins beyond it inside the rows; True if they moved."""
        if self._times and 0 <= origin - self._first <= 2 * SLACK:
            return False
        shift = origin - SLACK - self._first
        # Nearer than all that was read nothing rests; farther away nothing is known.
        moved = np.full((READINGS, WIDTH), 0.0 if shift < 0 else np.inf)
        if abs(shift) < WIDTH:
            kept = slice(max(shift, 0), WIDTH + min(shift, 0))
            into = slice(max(-shift, 0), WIDTH - max(shift, 0))
            moved[:, into] = self._rows[:, kept]
        self._rows = moved
        self._first += shift
        return True

    def _compare(self, at: int, row: Floats, taken: float) -> None:
        """Measure what was added and what was withdrawn within 1 % since the last reading."""
        since, turn = self._times[-1]
        before = self._rows[turn, : self._edge]
        now = row[: self._edge]
        count = int(np.count_nonzero(np.isfinite(before) & np.isfinite(now)))
        # What is known begins at the touch, so that it is the first bins of a row. The bins nearer
        # than the touch are empty but known, and prove nothing.
        if count - (self._edge - NEAR) < FLOW_BINS:
            return
        change = now[:count] - before[:count]
        gone = float(-change[change < 0.0].sum())
        net = float(change.sum()) + taken
        # Takers took part of what is gone; what they took beyond that had been added meanwhile.
        withdrawn = max(gone - taken, 0.0)
        self._flows.append((at, (at - since) / NS, net, withdrawn))

    def _mean_flow(self, at: int) -> tuple[float, float] | None:
        """Flows over the last minute."""
        rows = self._flows
        while rows and rows[0][0] <= at - FLOW_S * NS:
            rows.popleft()
        seconds = sum(row[1] for row in rows)
        if seconds < FLOW_MIN_S:
            return None
        return sum(row[2] for row in rows) / seconds, sum(row[3] for row in rows) / seconds

    def _weights(self, row: Floats, shown: int) -> Floats:
        """Share of the last ten seconds that the USD of each bin have rested, shape (WIDTH,).

        1 where the book is not known.
        """
        count = len(self._times)
        weights = np.ones(WIDTH)
        if not count:
            return weights
        rows = self._rows
        if count < READINGS:
            rows = rows[[turn for _, turn in self._times]]
        # A level counts its present reading too, so that it never counts for nothing: a book that
        # has just moved is thin, not gone.
        now = row[:shown]
        rested = np.minimum(rows[:, :shown], now).sum(axis=0)
        rested += now
        weights[:shown] = rested / ((count + 1) * np.maximum(now, USD_MIN))
        return weights

    def _draw(self, reading: "Reading", weights: Floats) -> None:
        """Make the curve: levels capped, weighted, added up by distance, continued."""
        if self._capped == 0 or not self._times:
            count = len(reading.usd)
            rank = count - 1 - count // 100
            enough = count >= CAP_LEVELS
            self._cap = float(np.partition(reading.usd, rank)[rank]) if enough else np.inf
        self._capped = (self._capped + 1) % CAP_READINGS
        usd = np.minimum(reading.usd, self._cap)
        usd *= weights[reading.columns]
        steps = (reading.distances + (1.0 - WHOLE)).astype(np.int64)
        np.maximum(steps, 1, out=steps)
        self.steps = np.asarray(np.bincount(steps, usd, POINTS)[:POINTS], np.float64)
        displayed = self.steps.cumsum()
        self.reach = reach = reading.known if reading.known > REACH_MIN else 0.0
        if reach == 0.0:
            reach = self._farthest(reading.distances)
        within = float(displayed[-1])
        if reach < MAX_DISTANCE:
            within = float(usd @ (reading.distances <= reach / STEP + WHOLE))
        # The exponent of one reading is mostly noise where little is shown.
        self._fits = min(self._fits + 1, FITS)
        self.kappa += (tail_exponent(displayed, reach) - self.kappa) / self._fits
        self.usd = continued(displayed, reach, within, self.kappa)

    @staticmethod
    def _farthest(distances: Floats) -> float:
        """Log distance of the farthest level within 1 %: as far as a lower bound can carry."""
        near = distances[distances <= NEAR]
        farthest = float(near.max()) * STEP if len(near) else NEAR_DISTANCE
        return max(farthest, REACH_MIN)


class Reading(Struct, frozen=True):
    """One side as just read: USD by bin, and by level bin, USD and distance in steps.

    The first `shown` bins are known.
    """

    row: Floats
    shown: int
    columns: NDArray[np.int64]
    usd: Floats
    distances: Floats
    known: float
