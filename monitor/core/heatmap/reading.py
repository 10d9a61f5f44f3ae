"""Means and spreads per bucket of several maps at once (model.md A6).

The maps of an asset are read together once a second, because small arrays cost by the call and not
by their length.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.heatmap.grid import together
from monitor.core.heatmap.pooling import BUCKET, BUCKETS
from monitor.events import NS

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

FACED: Final = BUCKETS // 2 + 1
"""Buckets of a side, from its far end to the mark's; beyond the mark it has no climatology."""

BURNT_MOST: Final = 2.0
"""The climatology elsewhere grows at most by this for what is burnt near the mark."""

HOUR_NS: Final = 3_600 * NS


class Spread(Struct, frozen=True):
    """How a map's buckets come about, the same for all that started from one belief.

    Attributes:
        refill_h, refill_start: as in `Parameters`.
        wholes: share of the liquidatable notional that the climatology holds, long and short.
        noise_usd: variance over mean of what stands in a bucket, by position sizes.
        shape_sd: relative standard deviation of a bucket beyond that.
    """

    refill_h: float
    refill_start: float
    wholes: tuple[float, float]
    noise_usd: float
    shape_sd: float


class Reading(Struct, frozen=True):
    """One map: pairs are long and short, each along the bins that its side counts.

    Attributes:
        first: bin where the window begins.
        visited: when the mark was last in each bin (ns), shape (FACED * BUCKET,).
        climate: share of the climatology per bucket, nothing burnt, shape (2, FACED).
        heard, doubt: mean and variance of what stands, in quantities, shape (FACED,).
        counts: factors on `heard`, on the climatology, on both together, and on `doubt`.
        unit: USD per unit of quantity, shape (BUCKETS,), by price.
    """

    first: int
    visited: tuple[Times, Times]
    climate: Floats
    heard: tuple[Floats, Floats]
    doubt: tuple[Floats, Floats]
    counts: tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
    unit: Floats


def unspent(visited: Times, at: int, spread: Spread) -> Floats:
    """Share of a bin's climatology that has come back since the mark was there; any shape."""
    age_h = (at - visited) / HOUR_NS
    # Rational rather than exponential recovery: exact on every machine.
    found: Floats = (1 - spread.refill_start) * age_h
    age_h += spread.refill_h
    found /= age_h
    found += spread.refill_start
    found[visited == 0] = 1.0
    return found


def moments(readings: Sequence[Reading], spread: Spread, at: int) -> Floats:
    """Means, variances and systematic errors in USD at `at` (ns), shape (maps, 6, BUCKETS).

    Of each a row of longs and one of shorts, by price.
    """
    counts = np.array([row for reading in readings for row in reading.counts])
    own, other, scale, doubted = counts.T[:, :, None]
    blended = np.array([row for reading in readings for row in reading.heard])
    blended *= own
    climate = _climates(readings, spread, at)
    climate *= other
    blended += climate
    blended *= scale
    doubt = np.array([row for reading in readings for row in reading.doubt])
    doubt *= doubted
    units = np.array([reading.unit for reading in readings])
    found = np.zeros((len(readings), 6, BUCKETS))
    # Shorts count downwards. Beyond the mark nobody of a side is left.
    for side, step, faced in ((0, 1, slice(0, FACED)), (1, -1, slice(BUCKETS - FACED, BUCKETS))):
        usd, variance = found[:, side, faced], found[:, 2 + side, faced]
        systematic, unit = found[:, 4 + side, faced], units[:, faced]
        np.multiply(blended[side::2, ::step], unit, out=usd)
        np.multiply(doubt[side::2, ::step], unit, out=variance)
        variance *= unit
        np.multiply(usd, spread.noise_usd, out=systematic)
        variance += systematic
        np.multiply(usd, spread.shape_sd, out=systematic)
    return found


def _climates(readings: Sequence[Reading], spread: Spread, at: int) -> Floats:
    """Share of the climatology per bucket, shape (2 maps, FACED).

    Survivors elsewhere hold what is not burnt.
    """
    visited = np.array([row for reading in readings for row in reading.visited])
    left = together(unspent(visited, at, spread), BUCKET)
    left /= BUCKET
    left *= np.array([reading.climate for reading in readings]).reshape(-1, FACED)
    climate = np.zeros((len(visited), BUCKETS))
    np.maximum(left, 0.0, out=climate[:, :FACED])
    factors = [
        min(BURNT_MOST, spread.wholes[i % 2] / total) if total > 0.0 else 1.0
        for i, total in enumerate(climate.sum(axis=1).tolist())
    ]
    faced: Floats = climate[:, :FACED]
    faced *= np.array(factors)[:, None]
    return faced
