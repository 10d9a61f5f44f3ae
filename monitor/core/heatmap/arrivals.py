"""What the past of open interest says about when today's positions came.

Candles show where the price was, not who came. A crowd of the last hour leaves its trace in open
interest alone.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.events import Candle

Floats = NDArray[np.float64]
Interests = Sequence[tuple[int, float]]
"""End of a period (ns) and one-sided open interest in base units, oldest first."""


def arrivals(interests: Interests, candles: Sequence[Candle], *, inverse: bool) -> Floats:
    """Share of the last open interest that came during each candle and is still there.

    With the readings O_t, an increase of O in a period has come in the candles that ended in it,
    and every later fall takes the same share of all who stand (model.md A4 without ages): of an
    increase d_i there is left d_i / O_now * prod_j>i min(1, O_j / O_j-1). What the shares leave of
    1 was there before the readings begin. The shape is that of `candles`; all 0 without readings.

    Only ratios count, so that a history on another scale than the live reading does no harm.
    `inverse` contracts are conserved in USD, so their readings count at the price of their time.
    """
    found = np.zeros(len(candles))
    rows = [(at, base) for at, base in interests if base > 0.0]
    if len(rows) < 3 or not candles:
        return found
    ends = [c.at for c in candles]
    held = [base for _, base in rows]
    if inverse:
        held = [base * candles[max(bisect_right(ends, at) - 1, 0)].close for at, base in rows]
    # A single reading that its neighbours contradict is a fault, not a crowd that came and went.
    middle = [sorted(three)[1] for three in zip(held, held[1:], held[2:], strict=False)]
    held = [held[0], *middle, held[-1]]
    stays = 1.0
    for i in range(len(rows) - 1, 0, -1):
        at, before, after = rows[i][0], held[i - 1], held[i]
        if at < ends[0]:
            break
        if after > before:
            first, last = bisect_right(ends, rows[i - 1][0]), bisect_right(ends, at)
            if first == last:  # no candle of its own: the next one, or the newest
                first = min(first, len(ends) - 1)
                last = first + 1
            found[first:last] += (after - before) * stays / held[-1] / (last - first)
        else:
            stays *= after / before
    total = float(found.sum())
    return found / max(total, 1.0)
