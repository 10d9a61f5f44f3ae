"""How the mark of one instrument follows what is traded there (model.md A13.2)."""

from collections import deque
from collections.abc import Iterable
from math import inf, isfinite, log, nan
from typing import Final

import numpy as np

from monitor.events import NS

KEPT_S: Final = 301
LAGS_S: Final = 10
"""Seconds over which the lag is looked for, and the longest one."""

CORRELATION_LEAST: Final = 0.25
"""Less than this comes by chance when the best of eleven lags is taken."""

TRADED_NS: Final = 10 * NS
"""A trade older than this is not the price any more."""

SPOT_S: Final = 60
SPOT_MOVE_LEAST: Final = 0.002
"""Of moves over how long spot's share is told, and of how large ones: noise has no share."""

STUCK_S: Final = 60
"""A mark that stands still for so long while trades are made at other prices is stuck."""


class MarkTrack:
    """Mark, last price and index of one instrument, second by second."""

    def __init__(self) -> None:
        self._marks: deque[float] = deque(maxlen=KEPT_S)
        self._lasts: deque[float] = deque(maxlen=KEPT_S)
        self._indexes: deque[float] = deque(maxlen=SPOT_S + 1)
        self._second = self._trades = self._traded_at = 0
        self._last: float | None = None

    def second(
        self, at: int, mark: float | None, index: float | None, last: float | None, trades: int
    ) -> None:
        """Take a new second: fresh mark and index, last price and how many trades there were."""
        second = at // NS
        if second != self._second + 1:
            self._marks.clear()
            self._lasts.clear()
            self._indexes.clear()
        self._second = second
        if trades != self._trades:
            self._trades, self._traded_at, self._last = trades, at, last
        self._marks.append(_log(mark))
        self._lasts.append(_log(last))
        self._indexes.append(_log(index))

    def last(self, at: int) -> float | None:
        """The last traded price, unless it is old."""
        return self._last if at - self._traded_at <= TRADED_NS else None

    def lag_s(self) -> float | None:
        """Seconds by which returns of the mark follow those of trades.

        Where their correlation is largest over five minutes; None before that, with a hole in
        them, and where nothing is common.
        """
        if len(self._marks) < KEPT_S:
            return None
        marks, lasts = np.diff(np.array(self._marks)), np.diff(np.array(self._lasts))
        follow = marks[LAGS_S:]
        own = float((follow * follow).sum())
        # A row for each lag, from none on.
        lead = np.array([lasts[LAGS_S - lag : len(lasts) - lag] for lag in range(LAGS_S + 1)])
        common, theirs = (lead * follow).sum(axis=1).tolist(), (lead * lead).sum(axis=1).tolist()
        best, found = CORRELATION_LEAST, None
        for lag, (both, its) in enumerate(zip(common, theirs, strict=True)):
            square = own * its
            # Not greater than 0 where anything was unknown.
            if square > 0.0 and (r := both / square**0.5) > best:
                best, found = r, float(lag)
        return found

    def moved(self, at: int) -> tuple[float, float] | None:
        """Log moves of the last price and of the index within `SPOT_S`; None if one is unknown."""
        if len(self._indexes) <= SPOT_S or self.last(at) is None:
            return None
        moves = self._lasts[-1] - self._lasts[-1 - SPOT_S], self._indexes[-1] - self._indexes[0]
        return moves if isfinite(moves[0]) and isfinite(moves[1]) else None

    def is_stuck(self) -> bool:
        """Whether the mark repeats itself while the price moves."""
        if len(self._marks) < STUCK_S or self._marks[-1] != self._marks[-2]:
            return False
        marks, lasts = list(self._marks)[-STUCK_S:], list(self._lasts)[-STUCK_S:]
        known = [x for x in lasts if isfinite(x)]
        return all(x == marks[-1] for x in marks) and any(x != known[-1] for x in known)


def spot_share(moves: Iterable[tuple[float, float] | None]) -> float | None:
    """Share of the largest of these moves that its index made as well; None if it is too small.

    It is in the mark at once, the rest arrives with the basis average: near 1 spot leads, near 0
    only perpetuals have moved (model.md A13.2).
    """
    last, index = max((m for m in moves if m is not None), key=lambda m: abs(m[0]), default=(0, 0))
    return min(max(index / last, 0.0), 1.0) if abs(last) >= SPOT_MOVE_LEAST else None


def _log(price: float | None) -> float:
    return log(price) if price is not None and 0.0 < price < inf else nan
