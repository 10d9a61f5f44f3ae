"""The grid of distances on which depth and fuel are compared.

A curve is a float64 array of shape (POINTS,): cumulative USD between the mark and each distance,
non-decreasing, 0 at the mark. Distances are logarithmic and positive in the direction of the
shock: ln(mark / price) downwards, where bids absorb what longs are forced to sell, and
ln(price / mark) upwards, where asks absorb what shorts are forced to buy.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP: Final = 0.0005
"""Log distance between two points: 5 bp."""

POINTS: Final = 601
"""Points of a curve, the mark included: 30 %."""

DISTANCES: Final[Floats] = np.arange(POINTS, dtype=np.float64) * STEP
