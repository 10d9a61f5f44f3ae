"""What is published of the maps: buckets, intervals, cumulative figures, and the asset's pool.

`Estimate` is what one map believes, with its moments; `pooled` adds estimates up, `published` turns
one into a `Heatmap`. Nothing here remembers anything.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, exp, floor, log
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.cascade.curves import DISTANCES
from monitor.core.heatmap.calibration import interval
from monitor.core.heatmap.grid import STEP, price_of
from monitor.events import AtRisk, Direction, Heatmap, HeatmapRow

Floats = NDArray[np.float64]

BUCKET: Final = 5
"""Bins per published bucket: 25 bp. Buckets begin at multiples of it, on every venue alike."""

BUCKETS: Final = 260
"""Published buckets, half of them on either side of the mark: 28 % below to 38 % above."""

BANDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Distances from the mark for the cumulative figures."""

_BELOW: Final[Floats] = np.array([log(1.0 - d) for d in (0.0, *BANDS)])
_ABOVE: Final[Floats] = np.array([log(1.0 + d) for d in (0.0, *BANDS)])
_EDGES: Final[Floats] = np.arange(0.0, BUCKET * BUCKETS + 1, BUCKET)


class Estimate(Struct, frozen=True):
    """Means, variances and systematic errors per bucket, of longs and of shorts each.

    They are the `rows`, in this order, shape (6, BUCKETS), to be read only.
    """

    name: str
    at: int
    first: int
    rows: Floats
    mark: float
    open_interest_usd: float
    coverage: float
    heard: float
    confidence: float
    level_sd: float
    venues: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def usd(self) -> Floats:
        """Means, shape (2, BUCKETS)."""
        return self.rows[:2]

    @property
    def variance(self) -> Floats:
        """Variances from counting, shape (2, BUCKETS)."""
        return self.rows[2:4]

    @property
    def systematic(self) -> Floats:
        """Standard deviations that all buckets and venues share, shape (2, BUCKETS)."""
        return self.rows[4:]


def pooled(
    name: str, estimates: Sequence[Estimate], *, missing: Sequence[str] = (), by: str = "distance"
) -> Estimate | None:
    """What an asset or a venue holds: its instruments' estimates added up; None without any.

    ``distance`` moves every map so that the marks agree: the shock that liquidates is a move of
    each venue's own mark. ``price`` adds at equal prices, for instruments whose basis is real.
    The mark of the largest open interest is the reference. Instruments that are `missing` take
    their share of the confidence away, each the same, since their size is not known.
    """
    if not estimates:
        return None
    assert by in ("distance", "price"), by
    largest = max(estimates, key=lambda e: e.open_interest_usd)
    sums = np.zeros((6, BUCKETS))
    for e in estimates:
        basis = log(largest.mark / e.mark) / (BUCKET * STEP) if by == "distance" else 0.0
        offset = (e.first - largest.first) // BUCKET + basis
        # Errors of shape come from the same prior on every venue: they add, not cancel.
        _add(sums, e.rows, offset)
    interest = sum(e.open_interest_usd for e in estimates)

    def mean(name: str) -> float:
        return float(sum(getattr(e, name) * e.open_interest_usd for e in estimates) / interest)

    return Estimate(
        name=name,
        at=max(e.at for e in estimates),
        first=largest.first,
        rows=sums,
        mark=largest.mark,
        open_interest_usd=interest,
        coverage=mean("coverage"),
        heard=mean("heard"),
        confidence=mean("confidence") * len(estimates) / (len(estimates) + len(missing)),
        level_sd=mean("level_sd"),
        venues=tuple(dict.fromkeys(venue for e in estimates for venue in e.venues)),
        missing=tuple(missing),
    )


def _add(sums: Floats, values: Floats, offset: float) -> None:
    """Add values moved by a fractional number of buckets; what leaves the window is lost to it."""
    whole = int(offset // 1)
    part = offset - whole
    rows, n = values.shape
    if part:
        mixed = np.empty((rows, n + 1))
        np.multiply(values, 1.0 - part, out=mixed[:, :-1])
        mixed[:, -1] = 0.0
        mixed[:, 1:] += part * values
        values = mixed
    low, high = max(whole, 0), min(n, values.shape[1] + whole)
    if low < high:
        sums[:, low:high] += values[:, low - whole : high - whole]


def published(e: Estimate) -> Heatmap:
    """An estimate in the form that is published: rounded to cents, intervals, bands."""
    low, high = interval(e.usd, e.variance + e.systematic**2)
    scale = exp(1.2816 * e.level_sd)
    long_usd, short_usd, long_low, short_low, long_high, short_high = _cents(
        np.concatenate((e.usd, low, high))
    )
    return Heatmap(
        name=e.name,
        first_price=price_of(e.first),
        log_step=BUCKET * STEP,
        n=BUCKETS,
        long_usd=long_usd,
        short_usd=short_usd,
        long_low=long_low,
        long_high=long_high,
        short_low=short_low,
        short_high=short_high,
        scale_low=1.0 / scale,
        scale_high=scale,
        mark=e.mark,
        coverage=e.coverage,
        heard=e.heard,
        confidence=e.confidence,
        provenance="heard" if e.heard > 0.5 else "warm_start",
        at_risk=_at_risk(e),
        venues=list(e.venues),
        missing=list(e.missing),
    )


def row_of(heatmap: Heatmap, reach: float) -> HeatmapRow:
    """The part of a map within a log distance of the mark, for the two-dimensional picture."""
    middle = floor(log(heatmap.mark / heatmap.first_price) / heatmap.log_step)
    half = ceil(reach / heatmap.log_step)
    low, high = max(0, middle - half), min(heatmap.n, middle + half + 1)
    return HeatmapRow(
        mark=heatmap.mark,
        first_price=heatmap.first_price * exp(low * heatmap.log_step),
        log_step=heatmap.log_step,
        long_usd=[round(usd) for usd in heatmap.long_usd[low:high]],
        short_usd=[round(usd) for usd in heatmap.short_usd[low:high]],
    )


def _cents(rows: Floats) -> list[list[float]]:
    # Rounded, so that the last bits of exp do not reach anybody's digest.
    cents = rows * 100.0
    np.rint(cents, out=cents)
    cents /= 100.0
    rounded: list[list[float]] = cents.tolist()
    return rounded


def fuel(e: Estimate, direction: Direction) -> Floats:
    """Forced closes by distance from the mark, as `monitor.core.cascade.curves` defines curves."""
    return by_distance(_edges(e.first), e.usd[0 if direction == "down" else 1], e.mark, direction)


def fuel_within(e: Estimate, direction: Direction, distance: float) -> float:
    """Forced closes within one log distance of the mark."""
    here = log(e.mark)
    if direction == "down":
        return fuel_between(e, direction, here - distance, here)
    return fuel_between(e, direction, here, here + distance)


def fuel_between(e: Estimate, direction: Direction, low: float, high: float) -> float:
    """Forced closes of one side between two log prices; a bucket counts in proportion."""
    near, far = _place(e, low), _place(e, high)
    usd = e.usd[0 if direction == "down" else 1]
    i, j = min(int(near), BUCKETS - 1), min(int(far), BUCKETS - 1)
    # Some twenty buckets are added up faster one by one.
    values: list[float] = usd[i : j + 1].tolist()
    return max(0.0, sum(values[:-1]) + values[-1] * (far - j) - values[0] * (near - i))


def _place(e: Estimate, edge: float) -> float:
    """Buckets below a log price, as far as the window goes."""
    return min(max((edge / STEP - e.first) / BUCKET, 0.0), float(BUCKETS))


def by_distance(edges: Floats, usd: Floats, mark: float, direction: Direction) -> Floats:
    """The same of buckets `usd` of one side, shape (n,), between log prices `edges`, (n + 1,)."""
    here = log(mark)
    cumulative = _cumulative(usd)
    away = here - DISTANCES if direction == "down" else here + DISTANCES
    found: Floats = np.interp(away, edges, cumulative)
    found -= float(found[0])
    np.abs(found, out=found)
    np.maximum.accumulate(found, out=found)
    return found


@lru_cache(maxsize=64)
def _edges(first: int) -> Floats:
    """Log prices between the buckets from bin `first` on, shape (BUCKETS + 1,), to be read only."""
    edges: Floats = (first + _EDGES) * STEP
    return edges


def _cumulative(usd: Floats) -> Floats:
    found = np.zeros(len(usd) + 1)
    usd.cumsum(out=found[1:])
    return found


def _at_risk(e: Estimate) -> list[AtRisk]:
    """Cumulative USD between the mark and each distance; a bucket counts in proportion."""
    edges = _edges(e.first)
    below, above = _cumulative(e.usd[0]), _cumulative(e.usd[1])
    here = log(e.mark)
    longs = np.interp(here + _BELOW, edges, below)
    shorts = np.interp(here + _ABOVE, edges, above)
    usd = _cents(np.array((longs[0] - longs[1:], shorts[1:] - shorts[0])))
    return [AtRisk(*row) for row in zip(BANDS, *usd, strict=True)]
