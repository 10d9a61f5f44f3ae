"""What is published of the maps: buckets, intervals, cumulative figures, and the asset's pool.

`Estimate` is what one map believes, with its moments; `pooled` adds estimates up, `published` turns
one into a `Heatmap`. Nothing here remembers anything.
"""

from collections.abc import Sequence
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
"""Distances from the mark for the cumulative figures (design.md 7)."""

_BELOW: Final[Floats] = np.array([log(1.0 - d) for d in (0.0, *BANDS)])
_ABOVE: Final[Floats] = np.array([log(1.0 + d) for d in (0.0, *BANDS)])
_EDGES: Final[Floats] = np.arange(0.0, BUCKET * BUCKETS + 1, BUCKET)


class Estimate(Struct, frozen=True):
    """Means and variances per bucket, for both sides in one array of shape (2, BUCKETS)."""

    name: str
    at: int
    first: int
    usd: Floats
    variance: Floats
    systematic: Floats
    mark: float
    open_interest_usd: float
    coverage: float
    heard: float
    confidence: float
    level_sd: float
    venues: tuple[str, ...]
    missing: tuple[str, ...] = ()


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
        moments = np.concatenate((e.usd, e.variance, e.systematic))
        sums += _shifted(moments, offset) if offset else moments
    interest = sum(e.open_interest_usd for e in estimates)

    def mean(name: str) -> float:
        return float(sum(getattr(e, name) * e.open_interest_usd for e in estimates) / interest)

    return Estimate(
        name=name,
        at=max(e.at for e in estimates),
        first=largest.first,
        usd=sums[:2],
        variance=sums[2:4],
        systematic=sums[4:],
        mark=largest.mark,
        open_interest_usd=interest,
        coverage=mean("coverage"),
        heard=mean("heard"),
        confidence=mean("confidence") * len(estimates) / (len(estimates) + len(missing)),
        level_sd=mean("level_sd"),
        venues=tuple(dict.fromkeys(venue for e in estimates for venue in e.venues)),
        missing=tuple(missing),
    )


def _shifted(values: Floats, offset: float) -> Floats:
    """Values moved by a fractional number of buckets; what leaves the window is lost to it."""
    whole = int(offset // 1)
    part = offset - whole
    padded = np.zeros((values.shape[0], values.shape[1] + 2))
    padded[:, 1:-1] = values
    mixed = (1.0 - part) * padded[:, 1:] + part * padded[:, :-1]
    moved = np.zeros_like(values)
    n = values.shape[1]
    low, high = max(whole, 0), min(n, n + 1 + whole)
    if low < high:
        moved[:, low:high] = mixed[:, low - whole : high - whole]
    return moved


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
    rounded: list[list[float]] = (np.rint(rows * 100.0) / 100.0).tolist()
    return rounded


def fuel(e: Estimate, direction: Direction) -> Floats:
    """Forced closes by distance from the mark, as `monitor.core.cascade.curves` defines curves."""
    return by_distance(_edges(e), e.usd[0 if direction == "down" else 1], e.mark, direction)


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
    whole = float(usd[i:j].sum())
    return max(0.0, whole + float(usd[j]) * (far - j) - float(usd[i]) * (near - i))


def _place(e: Estimate, edge: float) -> float:
    """Buckets below a log price, as far as the window goes."""
    return min(max((edge / STEP - e.first) / BUCKET, 0.0), float(BUCKETS))


def by_distance(edges: Floats, usd: Floats, mark: float, direction: Direction) -> Floats:
    """The same of buckets `usd` of one side, shape (n,), between log prices `edges`, (n + 1,)."""
    here = log(mark)
    cumulative = _cumulative(usd)
    away = here - DISTANCES if direction == "down" else here + DISTANCES
    standing = np.interp(away, edges, cumulative)
    found: Floats = np.maximum.accumulate(np.abs(standing - standing[0]))
    return found


def _edges(e: Estimate) -> Floats:
    """Log prices between the buckets, shape (BUCKETS + 1,)."""
    edges: Floats = (e.first + _EDGES) * STEP
    return edges


def _cumulative(usd: Floats) -> Floats:
    found = np.zeros(len(usd) + 1)
    usd.cumsum(out=found[1:])
    return found


def _at_risk(e: Estimate) -> list[AtRisk]:
    """Cumulative USD between the mark and each distance; a bucket counts in proportion."""
    edges = _edges(e)
    below, above = _cumulative(e.usd[0]), _cumulative(e.usd[1])
    here = log(e.mark)
    longs = np.interp(here + _BELOW, edges, below)
    shorts = np.interp(here + _ABOVE, edges, above)
    usd = _cents(np.array((longs[0] - longs[1:], shorts[1:] - shorts[0])))
    return [AtRisk(*row) for row in zip(BANDS, *usd, strict=True)]
