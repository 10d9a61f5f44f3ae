"""What forced closes lose beyond their margin, who pays for it, and how long that lasts (A13.4).

Distances are logarithmic (`monitor.core.cascade.curves`), money is USD.
"""

from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import DISTANCES, STEP, Floats
from monitor.core.cascade.impact import inverse
from monitor.core.cascade.loop import checked
from monitor.events import Direction

_GRID_END: Final = float(DISTANCES[-1])


class VenueFund(Struct, frozen=True):
    """The insurance fund of a venue, as far as it covers an asset.

    `unvalued` are currencies it also holds, for which no price is known; `usd` is without them.
    """

    usd: float
    unvalued: list[str]


class Runway(Struct, frozen=True):
    """How long a venue's insurance fund lasts (model.md A13.4); None for what is not known.

    Attributes:
        name: the venue's.
        fund_usd: the whole pool, which other assets fall back on as well.
        shortfall_usd: what it would have to pay, at least.
        ratio: fund over shortfall; None also when none is expected.
        adl_risk: it does not last, so winners would be closed as well.
        unvalued: currencies in the fund that are not in `fund_usd`.
    """

    name: str
    fund_usd: float | None
    shortfall_usd: float | None
    ratio: float | None
    adl_risk: bool | None
    unvalued: list[str]


def runway(
    venue: str, fund: VenueFund | None, shortfall_usd: float | None, *, at_least: bool = False
) -> Runway:
    """The runway of a venue's fund against a shortfall, or against more than that (`at_least`).

    Against a lower bound it can be said that a fund does not last, not that it does.
    """
    usd, unvalued = (None, []) if fund is None else (fund.usd, fund.unvalued)
    if at_least and (usd is None or shortfall_usd is None or usd >= shortfall_usd):
        return Runway(venue, usd, shortfall_usd, None, None, unvalued)
    if shortfall_usd is not None and shortfall_usd <= 0.0:
        return Runway(venue, usd, shortfall_usd, None, adl_risk=False, unvalued=unvalued)
    if usd is None or shortfall_usd is None:
        return Runway(venue, usd, shortfall_usd, None, None, unvalued)
    ratio = max(usd, 0.0) / shortfall_usd
    return Runway(venue, usd, shortfall_usd, ratio, adl_risk=ratio < 1.0, unvalued=unvalued)


def executed(
    depth: Floats, fuel: Floats, stop: float, *, flow_usd: float, survival: float, psi: float
) -> Floats:
    """How far from the mark the closes of each distance execute, when a sale ends at `stop`.

    Where the book has absorbed the sale of `flow_usd` and all closes nearer than they. Where the
    book ends, the end of the grid is taken, so that what is lost is a lower bound.
    """
    freed = np.minimum(checked(fuel, "fuel"), np.interp(stop, DISTANCES, fuel))
    return within_grid(inverse(checked(depth, "depth"), (flow_usd + psi * freed) / survival))


def shortfall(
    fuel: Floats, fills: Floats, stop: float, *, maintenance: float, direction: Direction
) -> float:
    """E[SF] in USD, ``sum H[k] max(0, slip(k) - m)``, of what is closed up to `stop`.

    Args:
        fuel: whose closes are asked about, all of them or a part.
        fills: where they execute, as `executed` says.
        stop: how far the price goes.
        maintenance: margin that is left to lose, as a share of notional.
        direction: where the price goes.
    """
    freed = np.minimum(fuel, np.interp(stop, DISTANCES, fuel))
    return loss(freed, fills, maintenance, direction)


def loss(freed: Floats, fills: Floats, maintenance: float, direction: Direction) -> float:
    """Sum of what each bin's closes lose beyond their margin.

    Bin k holds ``freed[k] - freed[k-1]``, is set off on average in its middle and executed where
    `fills` says, no better than there.
    """
    mass = np.diff(freed)
    slip = np.maximum(0.5 * (fills[1:] + fills[:-1]) - (DISTANCES[1:] - 0.5 * STEP), 0.0)
    ratio = -np.expm1(-slip) if direction == "down" else np.expm1(slip)
    return float((mass * np.maximum(ratio - maintenance, 0.0)).sum())


def within_grid(distances: Floats) -> Floats:
    """Distances with the end of the grid for those beyond it."""
    return np.nan_to_num(distances, nan=_GRID_END)
