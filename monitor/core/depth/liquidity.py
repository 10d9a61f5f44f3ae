"""What the book of one instrument would absorb, and whether it comes back (model.md A7)."""

from collections import deque
from math import ceil, expm1, inf, log
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import STEP
from monitor.core.depth.book import Book
from monitor.core.depth.quotes import LAPSE_NS, NEAR, WHOLE, Half
from monitor.core.depth.supply import Curve
from monitor.core.depth.usual import Usual, UsualState
from monitor.core.saved import StateError
from monitor.events import NS, Side

VERSION: Final = 1

READ_AGAIN_NS: Final = NS // 2
"""Readings closer together than this are one: the ten must span ten seconds."""

HOLD_NS: Final = 60 * NS
HOLD_WEIGHT: Final = 0.5
"""How long the last curve stands in for a lost book, and how much of it (model.md B)."""

LEARN_MINUTES: Final = 5
"""Minutes after which levels near the price are known although no snapshot showed them: a fifth of
the book turns over in one (model.md A7)."""

FROZEN_READINGS: Final = 10
"""As many identical readings in a row, with trades between them, are not believed (E.24)."""


class LiquidityState(Struct, frozen=True):
    """What outlives a restart: the norms of bids and asks."""

    version: int
    norms: list[UsualState]


class Liquidity:
    """Depth and flow of one instrument.

    A `side` is that of the positions: longs are sold into bids, shorts are bought back from asks.
    """

    def __init__(self) -> None:
        self._halves = (Half(-1.0), Half(1.0))
        self._at = 0
        self._believed = False
        self._mid = 0.0
        self._tick = 0.0
        self._same = 0
        self._resyncs = 0
        self._minutes: deque[list[float]] = deque(maxlen=LEARN_MINUTES + 1)

    def observe(
        self, at: int, book: Book, mid: float | None, *, sold_usd: float, bought_usd: float
    ) -> None:
        """Read the book, about once a second.

        Args:
            at: time in ns.
            book: of which nothing is taken unless it is synced.
            mid: the book's mid price, None while it has none.
            sold_usd: what takers sold since the last call, in USD; these bids were not cancelled.
            bought_usd: the same for asks.
        """
        assert 0.0 <= sold_usd < inf, sold_usd
        assert 0.0 <= bought_usd < inf, bought_usd
        if book.state != "synced" or mid is None or not 0.0 < mid < inf:
            self._lose()
            return
        if book.resyncs != self._resyncs:
            self._lose()
            self._resyncs = book.resyncs
        for half, usd in zip(self._halves, (sold_usd, bought_usd), strict=True):
            half.taken += usd
        if self._believed and at - self._at < READ_AGAIN_NS:
            return
        learned = None if book.maintained else self._learn(at, mid)
        same = mid == self._mid
        for number, half in enumerate(self._halves):
            same &= half.read(number, book, mid, learned)
        if not all(half.offers for half in self._halves):
            self._lose()
            return
        if not same:
            self._same = 0
        elif any(half.taken > 0.0 for half in self._halves):
            self._same += 1
        self._mid, self._tick = mid, book.tick
        if self._same >= FROZEN_READINGS:
            self._believed = False
            for half in self._halves:
                half.taken = 0.0
            return
        for half in self._halves:
            half.take(at)
        self._at, self._believed = at, True

    def curve(self, at: int, side: Side) -> Curve | None:
        """Depth by distance at `at` (ns).

        A lost or disbelieved book leaves half of its last curve for a minute, marked stale; then,
        and before the first reading, None.
        """
        half = self._half(side)
        if half.usd is None or not self.holds(at):
            return None
        fresh = self._believed and at - self._at <= LAPSE_NS
        usd = half.usd if fresh else half.usd * HOLD_WEIGHT
        age_s = max(at - self._at, 0) / NS
        return Curve(usd, half.reach, half.kappa, age_s, stale=not fresh)

    def holds(self, at: int) -> bool:
        """Whether there are curves at `at` (ns), held ones included."""
        return self._halves[0].usd is not None and at - self._at <= HOLD_NS

    @property
    def stuck(self) -> bool:
        """Whether the book is not believed because it repeats itself while trades go on."""
        return self._same >= FROZEN_READINGS

    def refill(self, side: Side) -> float | None:
        """Additions less cancels within 1 % over the last minute, in USD/s.

        Of a book that shows less than 1 %, within what both readings show.
        Negative when makers leave; None while less than ten seconds of it have been measured.
        """
        return self._flow(side, 0)

    def cancels(self, side: Side) -> float | None:
        """What was withdrawn within 1 % over the last minute, in USD/s; None as for `refill`."""
        return self._flow(side, 1)

    def depth(self, side: Side) -> float | None:
        """USD within 1 %; None while the book is not believed."""
        usd = self._half(side).usd
        return float(usd[NEAR]) if self._believed and usd is not None else None

    def ratio(self, side: Side) -> float | None:
        """Depth within 1 % over what is usual at this hour (1 = as usual).

        None while either is unknown.
        """
        depth, usual = self.depth(side), self._half(side).norm.value(self._at)
        return depth / usual if depth is not None and usual else None

    def gap(self, side: Side) -> float | None:
        """Share of the steps of 5 bp within 1 % in which nobody quotes, 0 to 1.

        A step is wider where the tick is; only what the book shows is counted. None while the book
        is not believed or shows less than one step.
        """
        half = self._half(side)
        if not self._believed or half.usd is None:
            return None
        wide = max(1, ceil(self._tick / self._mid / STEP - WHOLE))
        shown = min(NEAR, int(half.reach / STEP + WHOLE)) // wide
        if shown < 1:
            return None
        steps = half.steps[1 : 1 + shown * wide].reshape(shown, wide)
        return float(np.count_nonzero(steps.sum(axis=1) == 0.0)) / shown

    def slippage(self, at: int, side: Side, usd: float) -> float | None:
        """How far `usd` at market would move the price, as a ratio of it, at `at` (ns).

        Never more than the end of the curve, which then means *at least*; None without a curve.
        """
        curve = self.curve(at, side)
        if curve is None:
            return None
        distance = curve.distance(usd)
        return -expm1(-distance) if side == "long" else expm1(distance)

    def state(self) -> LiquidityState:
        """Everything that `restore` needs."""
        return LiquidityState(VERSION, [half.norm.state() for half in self._halves])

    def restore(self, state: LiquidityState) -> None:
        """Go on from a saved state; what is read from the book begins anew.

        Raises:
            StateError: it does not fit; nothing has been taken over then.
        """
        if state.version != VERSION or len(state.norms) != len(self._halves):
            raise StateError(f"liquidity of version {state.version}, not {VERSION}")
        norms = [Usual() for _ in self._halves]
        for norm, saved in zip(norms, state.norms, strict=True):
            norm.restore(saved)
        for half, norm in zip(self._halves, norms, strict=True):
            half.norm = norm

    # ------------------------------------------------------------------------------ private

    def _half(self, side: Side) -> Half:
        return self._halves[0 if side == "long" else 1]

    def _flow(self, side: Side, column: int) -> float | None:
        flow = self._half(side).flow if self._believed else None
        return None if flow is None else flow[column]

    def _lose(self) -> None:
        """The book is not believed. What it showed before cannot be compared with what follows."""
        self._believed = False
        self._same = 0
        self._minutes.clear()
        for half in self._halves:
            half.forget()

    def _learn(self, at: int, mid: float) -> tuple[float, float] | None:
        """Lowest and highest ln mid of the last minutes; None before they have passed."""
        minute, level = float(at // (60 * NS)), log(mid)
        if not self._minutes or self._minutes[-1][0] < minute:
            self._minutes.append([minute, level, level])
        last = self._minutes[-1]
        last[1], last[2] = min(last[1], level), max(last[2], level)
        if len(self._minutes) <= LEARN_MINUTES:
            return None
        return min(row[1] for row in self._minutes), max(row[2] for row in self._minutes)
