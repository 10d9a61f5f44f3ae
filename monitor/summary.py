"""What people read off a liquidation map: cumulative figures and largest clusters, in words.

Pure; the table, the picture and whoever writes a sentence say the same thing in the same words.
"""

from math import ceil, log10
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.events import Heatmap, Side

Floats = NDArray[np.float64]

REACH: Final = 0.10
"""Distance from the mark within which people look."""

AT_RISK: Final = (0.01, 0.02, 0.05)
"""Distances whose cumulative figures are written out."""

CLUSTER_REACH: Final = 3
"""Buckets that belong to a cluster at most, on either side of its peak."""


class Cluster(Struct, frozen=True):
    """A peak of the map: prices from `low` to `high` hold `usd`, most of it around `price`."""

    side: Side
    low: float
    high: float
    price: float
    usd: float


def clusters(heatmap: Heatmap, side: Side, *, count: int, reach: float) -> list[Cluster]:
    """The largest peaks of a side within a distance of the mark, largest first.

    A cluster is a bucket with its neighbours as far as they hold at least half as much; no bucket
    is in two.
    """
    usd = np.array(heatmap.long_usd if side == "long" else heatmap.short_usd)
    edges = edges_of(heatmap)
    inside = (edges[:-1] >= heatmap.mark * (1 - reach)) & (edges[1:] <= heatmap.mark * (1 + reach))
    left = np.where(inside, usd, 0.0)
    found: list[Cluster] = []
    while len(found) < count and left.max() > 0.0:
        peak = int(left.argmax())
        low = high = peak
        while low > max(0, peak - CLUSTER_REACH) and left[low - 1] >= left[peak] / 2:
            low -= 1
        last = min(len(left) - 1, peak + CLUSTER_REACH)
        while high < last and left[high + 1] >= left[peak] / 2:
            high += 1
        found.append(
            Cluster(
                side=side,
                low=float(edges[low]),
                high=float(edges[high + 1]),
                price=float(np.sqrt(edges[peak] * edges[peak + 1])),
                usd=float(left[low : high + 1].sum()),
            )
        )
        left[low : high + 1] = 0.0
    return sorted(found, key=lambda c: -c.usd)


def edges_of(heatmap: Heatmap) -> Floats:
    """Prices between which the buckets lie, one more than there are buckets."""
    found: Floats = heatmap.first_price * np.exp(heatmap.log_step * np.arange(heatmap.n + 1))
    return found


def at_risk(heatmap: Heatmap, side: Side) -> tuple[str, ...]:
    """``longs closed if the mark falls by 1 %: $12.3M``, ``2 %: ...``: cumulative."""
    start = f"{side}s closed if the mark {'falls' if side == 'long' else 'rises'} by "
    parts = []
    for band in heatmap.at_risk:
        if any(abs(band.distance - d) < 1e-9 for d in AT_RISK):
            usd = band.long_usd if side == "long" else band.short_usd
            parts.append(f"{percent(band.distance)}: {dollars(usd)}")
    return (start + parts[0], *parts[1:]) if parts else (start + "...: not known",)


def percent(share: float) -> str:
    """``40 %``, ``0.25 %``: two digits that matter."""
    return f"{share * 100:.2g} %" if share < 0.0995 else f"{share:.0%}".replace("%", " %")


def dollars(usd: float) -> str:
    """Three digits that matter: ``$12.3M``, ``$1.25B``, ``$840k``."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(usd) >= 0.9995 * size:
            value = usd / size
            return f"${value:.{max(0, 2 - int(log10(abs(value)) + 1e-9))}f}{unit}"
    return f"${usd:.0f}"


def price_text(price: float, span: float) -> str:
    """A price with as many decimals as its neighbours on an axis of that span need."""
    return f"{price:,.{min(10, max(0, ceil(2 - log10(span))))}f}"
