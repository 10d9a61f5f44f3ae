"""Curves of what a book would absorb, and how they continue where nobody shows a book.

Everything here is a function of one reading of one side; what must be remembered between two
readings is in `monitor.core.depth.liquidity`.
"""

from collections.abc import Iterable
from functools import cache
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, USD_MAX, Floats

KAPPA: Final = 1.16
"""Usual exponent of cumulative depth over distance (model.md A7)."""

KAPPA_SD: Final = 0.25
KAPPA_MIN, KAPPA_MAX = 0.6, 2.0

FIT_POINTS: Final = 4
"""A book that shows less than this many steps says nothing about its exponent."""

INDEPENDENT: Final = 8
"""As many independent readings a fitted half of a curve counts for, however many points it has:
the errors of neighbouring sums are nearly the same."""

FIT_SD: Final = 0.05
"""A fit is never believed to be better than this, in ln USD: few large orders make a book."""

MAX_DISTANCE: Final = float(DISTANCES[-1])
_LOGS: Final[Floats] = np.log(DISTANCES[1:])


class Curve(Struct, frozen=True):
    """Depth of one side by distance from the mid price.

    Attributes:
        usd: shape (POINTS,), cumulative USD, non-decreasing, 0 at the mid price; to be read only. A
            held curve is already halved.
        reach: log distance as far as the venue shows the book; beyond it `usd` is extrapolated,
            or a lower bound where more is displayed than the extrapolation says. 0 when the price
            has left what was shown: then all of it is a lower bound.
        kappa: exponent of the continuation beyond the reach.
        age_s: seconds since the book was last believed.
        stale: whether this is a curve held from before the book was lost.
    """

    usd: Floats
    reach: float
    kappa: float
    age_s: float
    stale: bool

    def distance(self, usd: float) -> float:
        """Log distance within which `usd` rest; `MAX_DISTANCE` at the most, meaning *at least*."""
        if usd <= 0.0:
            return 0.0
        after = int(np.searchsorted(self.usd, usd))
        if after >= POINTS:
            return MAX_DISTANCE
        low, high = float(self.usd[after - 1]), float(self.usd[after])
        return STEP * (after - 1 + (usd - low) / (high - low))


def tail_exponent(usd: Floats, reach: float) -> float:
    """Exponent of ``D(u) ~ u^kappa`` on the outer half of what lies within `reach` (model.md A7).

    `usd` has shape (POINTS,). The slope of ln D over ln u is shrunk to N(`KAPPA`, `KAPPA_SD`^2) by
    its own error and clipped to [`KAPPA_MIN`, `KAPPA_MAX`].
    """
    points = min(int(reach / STEP + 1e-9), POINTS - 1)
    first = (points + 1) // 2
    if points < FIT_POINTS or not usd[first] > 0.0:
        return KAPPA
    x, spread = _centred(first, points)
    count = len(x)
    y = np.log(usd[first : points + 1])
    y -= y.sum() / count
    slope = float(x @ y) / spread
    scatter = max((float(y @ y) - slope * slope * spread) / max(count - 2, 1), FIT_SD**2)
    information = spread * min(1.0, INDEPENDENT / count) / scatter
    prior = KAPPA_SD**-2
    kappa = (slope * information + KAPPA * prior) / (information + prior)
    return min(max(kappa, KAPPA_MIN), KAPPA_MAX)


@cache
def _centred(first: int, last: int) -> tuple[Floats, float]:
    """Logarithms of the distances `first` to `last` less their mean, and their sum of squares.

    At most one entry for each of the `POINTS` reaches that there are.
    """
    x = _LOGS[first - 1 : last]
    x = x - x.sum() / len(x)
    return x, float(x @ x)


def continued(usd: Floats, reach: float, anchor_usd: float, kappa: float) -> Floats:
    """The curve with its tail (model.md A7).

    Args:
        usd: shape (POINTS,), what is displayed, cumulative.
        reach: log distance, above 0, as far as all is displayed.
        anchor_usd: what is displayed within `reach`.
        kappa: exponent of the tail.

    Beyond the reach ``D(u) = D(reach) (u / reach)^kappa``, but never less than is displayed, nor
    more than there can be.
    """
    points = min(int(reach / STEP + 1e-9), POINTS - 1)
    if points == POINTS - 1:
        return usd
    beyond = slice(points + 1, POINTS)
    # Exponent and logarithm of a few hundred points are cheaper than as many powers.
    tail = anchor_usd * np.exp(kappa * (_LOGS[points:] - np.log(reach)))
    whole = usd.copy()
    whole[beyond] = np.maximum(np.minimum(tail, USD_MAX), usd[beyond])
    return whole


def pooled(curves: Iterable[Curve]) -> Curve | None:
    """The curves of an asset's instruments as one; None without any.

    USD are added by distance from each instrument's own mid price, since arbitrage keeps the
    distances together, not the prices. The pool reaches as far as its shortest curve, is as old as
    its oldest, and stale as soon as one of them is; its exponent is that of the sum at the far end.
    """
    found = list(curves)
    if not found:
        return None
    usd = found[0].usd.copy()
    for curve in found[1:]:
        usd += curve.usd
    total = float(usd[-1])
    weighted = sum(curve.kappa * float(curve.usd[-1]) for curve in found)
    return Curve(
        usd=usd,
        reach=min(curve.reach for curve in found),
        kappa=weighted / total if total > 0.0 else KAPPA,
        age_s=max(curve.age_s for curve in found),
        stale=any(curve.stale for curve in found),
    )
