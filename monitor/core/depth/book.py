"""One limit order book that is either true or says that it is not.

Prices are integer ticks. Levels near the touch live in two dense arrays ("ladders") indexed by
tick, which makes both an update and a cumulative depth curve cheap; the levels farther away live
in `Far`. The book does not know how a venue numbers its updates: the venue's codec
delivers snapshots and deltas in sequence and reports gaps.
"""

from array import array
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from math import ceil, floor
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from monitor.core.depth.far import Far
from monitor.events import Level

State: TypeAlias = Literal["empty", "syncing", "synced", "stale"]

LADDER_MIN, LADDER_MAX = 1 << 10, 1 << 16
"""Cells of a ladder: at the most 0.5 MB a side, so 1 MB a book whatever the tick."""

LADDER_SPAN = 0.1
"""A ladder is made to reach this far to either side, as far as `LADDER_MAX` allows."""

QUANTITY_MAX = 1e15
"""A larger quantity is not a quantity; also refuses infinity."""

SEARCHED = 1 << 10
"""Cells that are searched at first for where a side ends: it seldom moves by more."""

FAR_MAX = 200_000
"""Levels a side outside the ladder; more than that is not a market."""

Tick: TypeAlias = float
"""A price in ticks. Whole, but for old orders from when the venue's tick was finer: such levels
are real (seen on Binance) and stand outside the ladder."""


class Book:
    """Levels of one instrument.

    States: ``empty`` (nothing heard), ``syncing`` (waiting for a snapshot), ``synced`` (true),
    ``stale`` (was true, then a gap, a silence or a contradiction). Only a ``synced`` book may be
    used; the levels of a ``stale`` one are kept for inspection.
    """

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self.state: State = "empty"
        self.gaps = 0
        self.resyncs = 0
        self._hushed = False
        self._inverse = 1.0 / tick
        if tick < 1:  # 1 / 0.00001 is not quite 100000
            self._inverse = float(round(self._inverse * 1e6) / 1e6)
        self._limit: int | None = None
        self._ladders: tuple[array[float], array[float]] = (array("d"), array("d"))
        self._far = (Far(), Far())
        # First and last cell that may hold a level, by side; the first is the greater one if none.
        self._used = [(0, -1), (0, -1)]
        self._base = 0
        self._counts = [0, 0]
        self._reach: list[Tick | None] = [None, None]

    # ------------------------------------------------------------------------------ writing

    def expect(self) -> None:
        """A snapshot has been asked for."""
        if self.state == "empty":
            self.state = "syncing"

    def distrust(self) -> None:
        """Something was missed: from now on the book is not true."""
        self._hushed = False
        if self.state == "synced":
            self.state = "stale"
        elif self.state == "empty":
            self.state = "syncing"

    def hush(self, *, silent: bool) -> None:
        """The stream went silent, or spoke again with its sequence intact."""
        if silent and self.state == "synced":
            self.state, self._hushed = "stale", True
        elif not silent and self._hushed:
            self.state, self._hushed = "synced", False

    def snapshot(
        self, bids: list[Level], asks: list[Level], *, depth: int, maintained: bool
    ) -> str | None:
        """Replace everything; return why not, if the levels make no book.

        `depth` is the venue's limit of levels a side, and `maintained` whether the venue keeps
        just that many up to date. A side with fewer levels than `depth` is complete.
        """
        if bids and asks and bids[0][0] >= asks[0][0]:
            return self._refuse("crossed")
        self._lay_out(bids, asks)
        self._limit = depth if maintained else None
        self._counts = [0, 0]
        for side, levels in enumerate((bids, asks)):
            if reason := self._apply(side, levels):
                return self._refuse(reason)
        self._reach = [self._worst(s) if self._counts[s] >= depth else None for s in (0, 1)]
        if self.state == "stale":
            self.resyncs += 1
        self.state, self._hushed = "synced", False
        return None

    def delta(self, bids: list[Level], asks: list[Level]) -> str | None:
        """Apply changed levels to a synced book; return why the book is now stale, if it is."""
        if self.state != "synced":
            return None
        apply = self._apply_fast if self._limit is None else self._apply
        reason = apply(0, bids) or apply(1, asks)
        if reason:
            return self._refuse(reason)
        if self._limit is not None:
            self._trim(self._limit)
        return None

    def check(self) -> str | None:
        """Look for a contradiction and follow the price; meant to be called once a tick."""
        if self.state != "synced":
            return None
        bid, ask = self._best(0), self._best(1)
        if bid is not None and ask is not None:
            if bid >= ask:
                return self._refuse("crossed")
            middle = int(bid + ask) // 2 - self._base
            size = len(self._ladders[0])
            drifted = not size // 4 <= middle < size - size // 4
            if drifted and max(1, middle + self._base - size // 2) != self._base:
                self._move(middle + self._base)
        if max(len(self._far[0]), len(self._far[1])) > FAR_MAX:
            return self._refuse("too_many_levels")
        return None

    # ------------------------------------------------------------------------------ reading

    def best(self) -> tuple[float | None, float | None]:
        """Best bid and best ask price; None for an empty side."""
        bid, ask = self._best(0), self._best(1)
        return (
            None if bid is None else self._price(bid),
            None if ask is None else self._price(ask),
        )

    def mid(self) -> float | None:
        """The middle of best bid and best ask; None unless both exist and the book is synced."""
        bid, ask = self.best()
        if self.state != "synced" or bid is None or ask is None:
            return None
        return (bid + ask) / 2

    def levels(self, side: int) -> list[tuple[Tick, float]]:
        """(price in ticks, quantity) of every level of side 0 (bids) or 1 (asks), best first."""
        ladder, near = self._near(side)
        found: list[tuple[Tick, float]] = [(int(i) + self._base, float(ladder[i])) for i in near]
        found += self._far[side].items()
        return sorted(found, reverse=side == 0)

    def size(self) -> tuple[int, int]:
        """Number of bid and of ask levels."""
        return len(self.levels(0)), len(self.levels(1))

    def reach(self, side: int) -> float | None:
        """The farthest price up to which a side is completely known; None if it all is.

        Beyond it only levels that changed since the snapshot are known (exchanges.md 1b).
        """
        if self._limit is not None:
            full = self._counts[side] >= self._limit
            worst = self._worst(side) if full else None
        else:
            worst = self._reach[side]
        return None if worst is None else self._price(worst)

    def notional_within(
        self, side: int, price: float, distances: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Quantity times price resting within each distance of `price`, in quote currency.

        Args:
            side: 0 for bids, 1 for asks.
            price: from where the distances are measured.
            distances: shape (n,), ratios of `price`.

        Returns:
            The known notional, shape (n,), and whether the book is known to reach that far,
            shape (n,); where it is not, the notional is a lower bound.
        """
        sign = -1.0 if side == 0 else 1.0
        limits = price * (1.0 + sign * distances)
        ladder, near = self._near(side)
        prices = (near + self._base) / self._inverse
        value = np.concatenate(([0.0], np.cumsum(prices * ladder[near])))
        if side == 0:
            total = value[-1] - value[np.searchsorted(prices, limits * (1 - 1e-12), "left")]
        else:
            total = value[np.searchsorted(prices, limits * (1 + 1e-12), "right")]
        if far := self._far[side]:
            ticks, quantities = far.arrays()
            outside = ticks / self._inverse
            worth = outside * quantities
            within = sign * (limits[:, None] - outside) >= 0
            total = total + (within * worth).sum(axis=1)
        reach = self.reach(side)
        known = np.full(len(limits), fill_value=True)
        if reach is not None:
            known = sign * (limits - reach) <= 0
        return total, known

    def resting(
        self, side: int, price: float, limit: float
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Prices and quantities of the levels from `price` to `limit`, unsorted.

        `side` is 0 for bids, where `limit` is the lower price, and 1 for asks. Both arrays have
        shape (levels,) and are the caller's.
        """
        low, high = (limit, price) if side == 0 else (price, limit)
        first = ceil(low * self._inverse - self._base - 1e-6)
        last = floor(high * self._inverse - self._base + 1e-6)
        ladder, near = self._near(side, first, last)
        quantities = ladder[near]
        prices = (near + self._base) / self._inverse
        if far := self._far[side]:
            ticks, more = far.arrays()
            outside = ticks / self._inverse
            within = ((outside >= low) & (outside <= high)).nonzero()[0]
            prices = np.concatenate((prices, outside[within]))
            quantities = np.concatenate((quantities, more[within]))
        return prices, quantities

    @property
    def maintained(self) -> bool:
        """Whether the venue keeps a window of levels and says nothing of what lies outside it."""
        return self._limit is not None

    def text(self, decimals: int) -> str:
        """The levels as lines ``b price quantity`` and ``a price quantity``, best first.

        Both numbers are plain decimals without trailing zeros, quantities in base units.
        """
        return "\n".join(self._lines(decimals))

    def checksum(self, decimals: int) -> str:
        """SHA-256 of `text` in hexadecimal."""
        return sha256(self.text(decimals).encode()).hexdigest()

    # ------------------------------------------------------------------------------ private

    def _price(self, tick: Tick) -> float:
        return round(tick / self._inverse, 10)

    def _refuse(self, reason: str) -> str:
        self.distrust()
        return reason

    def _lay_out(self, bids: list[Level], asks: list[Level]) -> None:
        """Clear the ladders and place them around the touch."""
        best = bids[0][0] if bids else asks[0][0] if asks else 0.0
        middle = int(best * self._inverse) if 0 < best < QUANTITY_MAX else 0
        wanted = int(2 * LADDER_SPAN * middle)
        size = min(LADDER_MAX, max(LADDER_MIN, 1 << max(wanted - 1, 1).bit_length()))
        self._clear(size, max(1, middle - size // 2))

    def _clear(self, size: int, base: int) -> None:
        """Empty ladders of so many cells from a tick on, and nothing outside."""
        zeros = bytes(8 * size)
        self._ladders = (array("d", zeros), array("d", zeros))
        self._far = (Far(), Far())
        self._used = [(size, -1), (size, -1)]
        self._base = base

    def _apply_fast(self, side: int, levels: list[Level]) -> str | None:
        """Write levels of a book that is not trimmed: the hot loop."""
        ladder, inverse, base = self._ladders[side], self._inverse, self._base
        first, last = self._used[side]
        try:
            for price, quantity in levels:
                x = price * inverse + 0.5
                tick = int(x)
                if not 0.0 <= quantity < QUANTITY_MAX:
                    return "bad_number"
                index = tick - base
                if first <= index <= last and 0.499 < x - tick < 0.501:
                    ladder[index] = quantity
                elif 0 <= index < len(ladder) and 0.499 < x - tick < 0.501:
                    ladder[index] = quantity
                    first, last = self._widen(side, index)
                else:
                    self._write_far(side, price * inverse, quantity)
        except (ValueError, OverflowError):  # int() of NaN or infinity
            return "bad_number"
        return None

    def _apply(self, side: int, levels: list[Level]) -> str | None:
        """Write levels and keep count of them."""
        ladder, inverse, base = self._ladders[side], self._inverse, self._base
        size, count = len(ladder), self._counts[side]
        first, last = self._used[side]
        try:
            for price, quantity in levels:
                x = price * inverse + 0.5
                tick = int(x)
                if not 0.0 <= quantity < QUANTITY_MAX:
                    return "bad_number"
                index = tick - base
                if 0 <= index < size and 0.499 < x - tick < 0.501:
                    count += (quantity > 0.0) - (ladder[index] > 0.0)
                    ladder[index] = quantity
                    if not first <= index <= last:
                        first, last = self._widen(side, index)
                else:
                    count += self._write_far(side, price * inverse, quantity)
        except (ValueError, OverflowError):
            return "bad_number"
        self._counts[side] = count
        return None

    def _write_far(self, side: int, ticks: float, quantity: float) -> int:
        """Write a level outside the ladder; return by how much the number of levels changed."""
        tick = round(ticks, 6)
        if not 0 < tick < QUANTITY_MAX:
            raise ValueError(ticks)
        return self._far[side].write(tick, quantity)

    def _trim(self, limit: int) -> None:
        """Forget levels that fell out of the venue's window: it no longer updates them."""
        for side in (0, 1):
            excess = self._counts[side] - limit
            if excess <= 0:
                continue
            for tick, _ in self.levels(side)[limit:]:
                if tick in self._far[side]:
                    self._write_far(side, tick, 0.0)
                else:
                    self._ladders[side][int(tick) - self._base] = 0.0
            self._counts[side] = limit

    def _best(self, side: int) -> Tick | None:
        return self._end(side, highest=side == 0)

    def _worst(self, side: int) -> Tick | None:
        return self._end(side, highest=side == 1)

    def _end(self, side: int, *, highest: bool) -> Tick | None:
        """The highest or lowest level of a side."""
        self._narrow(side, highest=highest)
        first, last = self._used[side]
        ends: list[Tick] = [(last if highest else first) + self._base] if first <= last else []
        ends += self._far[side].ends() or ()
        if not ends:
            return None
        return max(ends) if highest else min(ends)

    def _near(
        self, side: int, first: int = 0, last: int = LADDER_MAX
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
        """A ladder, and its cells from `first` to `last` that hold a level."""
        ladder, used = np.frombuffer(self._ladders[side]), self._used[side]
        first = max(first, used[0])
        near = (ladder[first : max(first, min(last, used[1]) + 1)] != 0).nonzero()[0]
        near += first
        return ladder, near

    def _widen(self, side: int, index: int) -> tuple[int, int]:
        """A level was written outside the cells that were in use; those that are now."""
        first, last = self._used[side]
        self._used[side] = min(first, index), max(last, index)
        return self._used[side]

    def _narrow(self, side: int, *, highest: bool) -> None:
        """Let the cells in use end with one that holds a level."""
        first, last = self._used[side]
        ladder = self._ladders[side]
        if first > last or ladder[last if highest else first]:
            return
        cells = np.frombuffer(ladder)
        for width in (SEARCHED, len(ladder)):
            low = max(first, last + 1 - width) if highest else first
            used = (cells[low : min(low + width, last + 1)] != 0).tobytes()
            index = used.rfind(1) if highest else used.find(1)
            if index >= 0:
                self._used[side] = (first, low + index) if highest else (low + index, last)
                return
        self._used[side] = len(ladder), -1

    def _move(self, middle: int) -> None:
        """Centre the ladders on another price without losing a level."""
        size = len(self._ladders[0])
        everything = [self.levels(0), self.levels(1)]
        self._clear(size, max(1, middle - size // 2))
        for side, levels in enumerate(everything):
            for tick, quantity in levels:
                index = int(tick) - self._base
                if 0 <= index < size and tick == int(tick):
                    self._ladders[side][index] = quantity
                    self._widen(side, index)
                else:
                    self._far[side].write(tick, quantity)

    def _lines(self, decimals: int) -> Iterator[str]:
        for side, letter in enumerate("ba"):
            for tick, quantity in self.levels(side):
                yield f"{letter} {plain(self._price(tick))} {plain(round(quantity, decimals))}"


def plain(number: float) -> str:
    """The shortest decimal of a float, without exponent and without trailing zeros."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
