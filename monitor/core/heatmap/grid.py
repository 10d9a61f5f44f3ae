"""Standing cohorts of one side of one instrument on an absolute log-price grid, with a ledger.

Bins are 5 bp of log price, counted from price 1, so that a bin means the same price for ever and
on every venue (model.md A0). Cell (j, k) holds the quantity of leverage node j whose liquidation
lies in bin k; its entry is then `shift[j]` bins above. Everything is written for longs; shorts use
mirrored bins (`mirrored`), in which they behave as longs do.

The ledger holds at every moment, to float precision:
opened = standing + consumed + closed + expired.
"""

from math import exp, floor, log
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bins = NDArray[np.int64]

STEP: Final = 5e-4
"""Width of a bin in log price (model.md A0)."""

BINS: Final = 4096
"""Bins kept, about half of them on either side of the price (model.md A0)."""

BLOCK: Final = 64
"""Bins that are summed up together: what a sweep leaves alone need not be summed up again."""

HAZARDS: Final = ((-300, 1.2), (-100, 2.5), (-30, 1.2), (30, 0.6), (1 << 40, 0.8))
"""(upper bound of entry less price in bins, relative rate of voluntary exit) by profit, falling:
above 15 %, 5-15 %, 1.5-5 %, within 1.5 %, losing more (model.md A4)."""

BEYOND_HAZARD: Final = 1.0
"""The same for quantities whose liquidation lies off the grid."""

REMAINDER_SHIFT: Final = 60
"""Assumed distance in bins from liquidation to entry of what a partial liquidation left: it has
lost about a leverage-33 margin. Only its voluntary exits depend on it."""


def bin_of(price: float) -> int:
    """The bin that holds a price."""
    return floor(log(price) / STEP)


def price_of(edge: int) -> float:
    """Price at the lower edge of a bin."""
    return exp(edge * STEP)


def mirrored(bins: int) -> int:
    """The same cell counted downwards; its own inverse."""
    return -bins - 1


def together(values: Floats, width: int) -> Floats:
    """Sums of each `width` neighbours along the last axis, which is a multiple of it."""
    # Columns added up are several times as fast as a sum over a short axis.
    found: Floats = values[..., 0::width] + values[..., 1::width] if width > 1 else values.copy()
    for k in range(2, width):
        found += values[..., k::width]
    return found


class Ledger(Struct, frozen=True):
    """Quantities since the start: what came, what is there, and where the rest went."""

    opened: float
    standing: float
    consumed: float
    closed: float
    expired: float

    @property
    def error(self) -> float:
        """Relative violation of conservation."""
        out = self.standing + self.consumed + self.closed + self.expired
        return abs(self.opened - out) / max(self.opened, 1e-300)


class Cohorts:
    """Quantities by node and liquidation bin; one row more than nodes for partial remainders.

    Attributes:
        shift: bins from liquidation to entry per row; negative marks a node that is not allowed.
        beyond: per row, what stands with a liquidation off the grid.
        visited: when the mark was last at or below each bin (ns), 0 for never.
        origin: bin of the first column.
    """

    COUNTS = ("opened", "consumed", "closed", "expired")

    def __init__(self, shift: Bins, *, first_share: float, relief: int, at: int) -> None:
        """Empty, centred on bin `at`; `first_share` and `relief` describe partial liquidation."""
        self.shift = np.append(shift, REMAINDER_SHIFT)
        self.rows = len(self.shift)
        self.origin = at - BINS // 2
        self.cells: Floats = np.zeros((self.rows, BINS))
        self.beyond: Floats = np.zeros(self.rows)
        self.visited: NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        self._blocks: Floats | None = None
        self._rows: Floats | None = None
        self._standing: float | None = None
        self._buckets: tuple[tuple[int, int, int], Floats] | None = None
        self.first_share, self.relief = first_share, relief
        self.opened = self.consumed = self.closed = self.expired = 0.0

    # ------------------------------------------------------------------------------- reading

    def by_row(self) -> Floats:
        """Standing quantity per row, on and off the grid."""
        if self._rows is None:
            if self._blocks is None:
                self._blocks = _blocks(self.cells)
            self._rows = self._blocks.sum(axis=1) + self.beyond
        return self._rows

    def standing(self) -> float:
        """Standing quantity of the side."""
        if self._standing is None:
            self._standing = float(self.by_row().sum())
        return self._standing

    def ledger(self) -> Ledger:
        """Where everything that was ever opened is now."""
        return Ledger(self.opened, self.standing(), self.consumed, self.closed, self.expired)

    def window(self, first: int, count: int) -> Floats:
        """Cells of bins [first, first + count), zero off the grid, to be read; (rows, count)."""
        start = first - self.origin
        if 0 <= start <= BINS - count:
            return self.cells[:, start : start + count]
        found = np.zeros((self.rows, count))
        low, high = max(start, 0), min(start + count, BINS)
        if low < high:
            found[:, low - start : high - start] = self.cells[:, low:high]
        return found

    def buckets(self, first: int, count: int, width: int) -> Floats:
        """Sums over `count` buckets of `width` bins from bin `first` on; shape (rows, count).

        Kept until something changes, to be read only: most seconds the mark stays in its bin.
        """
        key = (first, count, width)
        if self._buckets is None or self._buckets[0] != key:
            self._buckets = key, together(self.window(first, count * width), width)
        return self._buckets[1]

    # ------------------------------------------------------------------------------- change

    def _changed(self) -> None:
        self._blocks = self._rows = self._standing = self._buckets = None

    def _changed_within(self, low: int, high: int) -> None:
        """Only the columns from `low` to `high` have changed."""
        blocks = self._blocks
        self._changed()
        if blocks is not None:
            first, last = low // BLOCK, -(-high // BLOCK)
            blocks[:, first:last] = _blocks(self.cells[:, first * BLOCK : last * BLOCK])
            self._blocks = blocks

    def insert(self, entries: Bins, quantities: Floats, mix: Floats, *, lowest: int) -> None:
        """Open `quantities` at distinct entry bins, split over the nodes by `mix`.

        Cells at or above `lowest`, the lowest bin the mark has visited since, are burnt fuel:
        whoever was there is gone, and what stands today is held by the other nodes. `mix` sums
        to 1 over the nodes.
        """
        bins = entries[None, :] - self.shift[:-1, None]
        alive = (bins < lowest) & (self.shift[:-1, None] >= 0) & (mix[:, None] > 0)
        share = np.where(alive, mix[:, None], 0.0)
        total = share.sum(axis=0)
        # Nobody left alive at an entry far above the lowest mark: it counts as the widest node.
        share[0, total <= 0] = 1.0
        total[total <= 0] = 1.0
        placed = share * (quantities / total)
        self._place(bins, placed)
        self.opened += float(quantities.sum())

    def _place(self, bins: Bins, placed: Floats) -> None:
        self._changed()
        column = bins - self.origin
        inside = (column >= 0) & (column < BINS)
        row = np.broadcast_to(np.arange(len(bins))[:, None], bins.shape)
        # Distinct entries give distinct cells within a row, so plain indexing adds them all.
        self.cells[row[inside], column[inside]] += placed[inside]
        self.beyond[:-1] += np.where(inside, 0.0, placed).sum(axis=1)

    def seed(self, entries: Bins, quantities: Floats, mix: Floats, *, lowest: Bins) -> None:
        """As `insert` for many moments of the past; entries may repeat.

        `lowest` is per moment. The dead are not replaced within their moment: the quantities are
        relative, and `scale` brings the survivors to today's open interest.
        """
        self._changed()
        for row in np.flatnonzero((self.shift[:-1] >= 0) & (mix > 0)).tolist():
            bins = entries - self.shift[row]
            alive = bins < lowest
            column = bins[alive] - self.origin
            mass = quantities[alive] * mix[row]
            inside = (column >= 0) & (column < BINS)
            self.cells[row] += np.bincount(column[inside], mass[inside], minlength=BINS)
            self.beyond[row] += float(mass[~inside].sum())
        self.opened = self.standing()

    def sweep(self, reached: int, before: int) -> Floats:
        """The mark fell from bin `before` to `reached`: consume what lies there; per row.

        Of positions that the venue closes in steps, the rest moves deeper by the relief, to be
        closed whole when the mark gets there.
        """
        nothing: Floats = np.zeros(self.rows)
        low = max(reached - self.origin, 0)
        high = min(before + 1 - self.origin, BINS)
        if low >= high:
            return nothing
        block = self.cells[:, low:high]
        swept: Floats = block.sum(axis=1)
        if not swept.any():
            return nothing
        # What is closed in steps and would lie below the mark still stands afterwards.
        column = np.arange(low, high) - self.relief
        survives = (column < low) & (column >= 0) if self.relief else np.zeros(high - low, bool)
        if survives.any():
            kept = np.where(survives, 1.0 - self.first_share, 0.0)
            moved = block[:-1] * kept
            swept[:-1] -= moved.sum(axis=1)
            self.cells[-1, column[survives]] += moved.sum(axis=0)[survives]
        block[:] = 0.0
        self._changed_within(max(low - self.relief, 0), high)
        self.consumed += float(swept.sum())
        return swept

    def visit(self, reached: int, at: int) -> None:
        """The mark is at bin `reached`: what lies there and above is spent as of now."""
        self.visited[max(reached - self.origin, 0) :] = at

    def leave(self, closed: float, expired: float, now: int) -> None:
        """Voluntary exits with the mark at bin `now`: of net closing, and of turnover.

        They are taken from the cohorts by profit and loss (`HAZARDS`); never more than stands.
        """
        wanted = closed + expired
        if wanted <= 0.0:
            return
        self._changed()
        reach = int(self.shift.max()) + 1
        entries = np.zeros(BINS + reach)
        for row in range(self.rows):
            shift = max(int(self.shift[row]), 0)
            entries[shift : shift + BINS] += self.cells[row]
        bounds = [min(max(now + b - self.origin, 0), BINS + reach) for b, _ in HAZARDS]
        masses = [
            float(entries[low:high].sum())
            for low, high in zip([0, *bounds[:-1]], bounds, strict=True)
        ]
        rates = [h for _, h in HAZARDS]
        out = float(self.beyond.sum())
        keeps = _survival([*masses, out], [*rates, BEYOND_HAZARD], wanted)
        factor = np.ones(BINS + reach)
        for low, high, keep in zip([0, *bounds[:-1]], bounds, keeps[:-1], strict=True):
            factor[low:high] = keep
        for row in range(self.rows):
            shift = max(int(self.shift[row]), 0)
            self.cells[row] *= factor[shift : shift + BINS]
        self.beyond *= keeps[-1]
        removed = sum(m * (1 - k) for m, k in zip([*masses, out], keeps, strict=True))
        self.closed += removed * closed / wanted
        self.expired += removed * expired / wanted

    def scale(self, factor: float, *, opening: bool = False) -> None:
        """Multiply everything; what goes counts as closed, or never opened with `opening`."""
        before = self.standing()
        self._changed()
        self.cells *= factor
        self.beyond *= factor
        if opening:
            self.opened *= factor
        else:
            self.closed += before - self.standing()

    def anchor(self, now: int) -> None:
        """Roll by whole bins when bin `now` has left the middle half; nothing changes its price.

        What leaves the grid stands `beyond`.
        """
        off = now - (self.origin + BINS // 2)
        if abs(off) <= BINS // 4:
            return
        self._changed()
        rolled = np.zeros_like(self.cells)
        visited = np.zeros_like(self.visited)
        if abs(off) < BINS:
            source = slice(max(off, 0), BINS + min(off, 0))
            target = slice(max(-off, 0), BINS - max(off, 0))
            rolled[:, target] = self.cells[:, source]
            visited[target] = self.visited[source]
        # Summed separately: a difference of totals would lose digits.
        gone = self.cells[:, : max(off, 0)] if off > 0 else self.cells[:, max(BINS + off, 0) :]
        self.beyond += gone.sum(axis=1)
        self.cells, self.visited, self.origin = rolled, visited, self.origin + off


def _blocks(cells: Floats) -> Floats:
    """Sums of each `BLOCK` bins by row, the number of which is a multiple of it."""
    sums: Floats = cells.reshape(len(cells), -1, BLOCK).sum(axis=2)
    return sums


def _survival(masses: list[float], rates: list[float], wanted: float) -> list[float]:
    """Share of each mass that stays when `wanted` leaves at the given relative rates.

    The exit time c solves sum(mass (1 - exp(-c rate))) = wanted, by Newton's method from below,
    which cannot overshoot because the left side is concave.
    """
    total = sum(masses)
    if wanted >= total:
        return [0.0] * len(masses)
    c = 0.0
    for _ in range(60):
        keeps = [exp(-c * r) for r in rates]
        left = wanted - sum(m * (1 - k) for m, k in zip(masses, keeps, strict=True))
        if left <= 1e-13 * wanted:
            break
        c += left / sum(m * r * k for m, r, k in zip(masses, rates, keeps, strict=True))
    return [exp(-c * r) for r in rates]
