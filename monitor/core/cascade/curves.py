"""The grid of distances on which depth and fuel are compared.

A curve is a float64 array of shape (POINTS,): cumulative USD between the mark and each distance,
non-decreasing, 0 at the mark. Distances are logarithmic and positive in the direction of the
shock: ln(mark / price) downwards, where bids absorb what longs are forced to sell, and
ln(price / mark) upwards, where asks absorb what shorts are forced to buy.
"""

from bisect import bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP: Final = 0.0005
"""Log distance between two points: 5 bp."""

POINTS: Final = 601
"""Points of a curve, the mark included: 30 %."""

DISTANCES: Final[Floats] = np.arange(POINTS, dtype=np.float64) * STEP

USD_MAX: Final = 1e15
"""More USD than anything here can be worth: a number that says so is no number."""

_PLACES: Final[list[float]] = DISTANCES.tolist()


def value_at(curve: Floats, distance: float) -> float:
    """The curve at one distance, linear between its points, which is what `np.interp` does.

    For a single distance that costs several times as much.
    """
    after = bisect_right(_PLACES, distance)
    if after in (0, POINTS):
        return float(curve[max(after - 1, 0)])
    low, high = float(curve[after - 1]), float(curve[after])
    slope = (high - low) / (_PLACES[after] - _PLACES[after - 1])
    return slope * (distance - _PLACES[after - 1]) + low
