"""Who stands on the maps of an asset: where they entered, how highly geared, under which rules."""

from collections.abc import Iterable, Sequence
from math import log

import numpy as np

from monitor.core.cascade.curves import STEP, Floats
from monitor.core.heatmap.grid import BINS, bin_of, mirrored
from monitor.core.heatmap.map import Map
from monitor.core.heatmap.pooling import BUCKET
from monitor.core.instrument import InstrumentState
from monitor.events import Direction


class Standing:
    """Entry prices and leverage over all maps, each of them read when it is its turn."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, Floats]] = {}
        self._geared: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}

    def read(self, state: InstrumentState) -> None:
        """Take one instrument's map as it is now."""
        name, standing = state.spec.name, state.map
        if standing is None or standing.cohorts is None:
            self._entries.pop(name, None)
            self._geared.pop(name, None)
            return
        self._entries[name] = entries(standing, state.spec.multiplier)
        self._geared[name] = (leverage(standing, 0), leverage(standing, 1))

    def concentration(self) -> float | None:
        """Herfindahl index of entries in buckets of 25 bp; None without a map."""
        parts = list(self._entries.values())
        return concentration(together(parts)[1]) if parts else None

    def leverage(self, direction: Direction) -> float | None:
        """Mean leverage of longs (down) or shorts (up), by USD; None without a map."""
        rows = [geared[0 if direction == "down" else 1] for geared in self._geared.values()]
        usd = sum(row[0] for row in rows)
        return sum(row[1] for row in rows) / usd if usd > 0.0 else None


def entries(standing: Map, multiplier: float = 1.0) -> tuple[int, Floats]:
    """USD by entry price, both sides: the first bucket of 25 bp, counted from price 1, and all.

    `multiplier` is the instrument's, so that prices are those of one unit of the asset. What a
    partial liquidation left is not counted: its entry is not known.
    """
    assert standing.cohorts is not None, "asked only of a map that has begun"
    unit = standing.mark_price if standing.table.kind == "linear" else 1.0
    moved = round(log(multiplier) / STEP)
    found: list[tuple[int, Floats]] = []
    for side, cohorts in enumerate(standing.cohorts):
        first, reach = cohorts.origin, int(cohorts.shift.max())
        sums = np.zeros(BINS + reach + 1)
        # Nobody of a side stands beyond the mark.
        here = bin_of(standing.mark_price)
        cells = cohorts.cells[:, : max((here if side == 0 else mirrored(here)) + 1 - first, 0)]
        width = cells.shape[1]
        for row in range(cohorts.rows - 1):
            shift = int(cohorts.shift[row])
            if shift >= 0:
                sums[shift : shift + width] += cells[row]
        if side == 1:
            # Shorts are kept in mirrored bins.
            sums, first = sums[::-1], -(first + len(sums))
        found.append(folded(first - moved, sums * unit))
    return together(found)


def folded(first: int, values: Floats) -> tuple[int, Floats]:
    """Bins summed up into buckets of `BUCKET`."""
    before = first % BUCKET
    after = -(before + len(values)) % BUCKET
    padded = np.concatenate((np.zeros(before), values, np.zeros(after)))
    return first // BUCKET, padded.reshape(-1, BUCKET).sum(axis=1)


def together(parts: Sequence[tuple[int, Floats]]) -> tuple[int, Floats]:
    """Histograms of the same buckets added up."""
    low = min(first for first, _ in parts)
    high = max(first + len(values) for first, values in parts)
    total = np.zeros(high - low)
    for first, values in parts:
        total[first - low : first - low + len(values)] += values
    return low, total


def concentration(values: Floats) -> float | None:
    """Herfindahl index: the sum of squared shares."""
    total = float(values.sum())
    return float((values * values).sum()) / total**2 if total > 0.0 else None


def leverage(standing: Map, side: int) -> tuple[float, float]:
    """USD that stands on one side (0 long, 1 short), and the same times its leverage.

    What a partial liquidation left is not counted: its leverage is not known.
    """
    assert standing.cohorts is not None, "asked only of a map that has begun"
    unit = standing.mark_price if standing.table.kind == "linear" else 1.0
    mass = (standing.weights.mean(side) * standing.cohorts[side].by_row())[:-1] * unit
    return float(mass.sum()), float((mass * np.array(standing.prior.leverage)).sum())


def maintenance(states: Iterable[InstrumentState]) -> dict[str, float]:
    """Maintenance margin of the smallest positions, by venue."""
    found: dict[str, float] = {}
    for s in states:
        if s.spec.tiers:
            rate = s.spec.tiers[0].rate
            found[s.spec.venue] = min(rate, found.get(s.spec.venue, rate))
    return found


def fees(states: Iterable[InstrumentState]) -> dict[str, float]:
    """Liquidation fee by venue, where it is known."""
    return {
        s.spec.venue: s.spec.liquidation_fee for s in states if s.spec.liquidation_fee is not None
    }


def deleveraged(states: Iterable[InstrumentState]) -> dict[str, int]:
    """Auto-deleveragings by venue, where transfers were heard; elsewhere nothing is known."""
    found: dict[str, int] = {}
    for s in states:
        if s.transfers:
            found[s.spec.venue] = found.get(s.spec.venue, 0) + s.deleveraged
    return found
