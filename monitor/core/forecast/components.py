"""What a risk is made of, in a trader's terms, and how bad it would be (model.md A12).

Components explain; none of them is a probability of a cascade but `proximity`.
"""

from collections.abc import Sequence
from math import erf, inf, isfinite, sqrt

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.forecast.features import Features, PerHorizon

Floats = NDArray[np.float64]


class Components(Struct, frozen=True):
    """Parts of the risk in one direction, each 0 to 1, None where not known.

    Attributes:
        fuel: F / (1 + F): forced USD within a normal move against what the book can take; 0.5
            where they are equal.
        gain: g / (1 + g): 0.5 where each forced dollar causes one more; above it feeds itself.
        proximity: chance, per horizon, that an ordinary move lights it.
        thinness: 0.6 where the book is 40 % of usual.
        refill_failure: 1 where makers do not come back.
        heat: liquidations trigger liquidations more than usual (0.5: as usual).
        crowding: one-sided, expensive carry, as a quantile.
        contagion: other venues and coins will be pulled along.
        plumbing: prices or engines cannot be trusted.
    """

    fuel: float | None
    gain: float | None
    proximity: PerHorizon | None
    thinness: float | None
    refill_failure: float | None
    heat: float | None
    crowding: float | None
    contagion: float | None
    plumbing: float | None


def components(features: Features, *, skew: float | None = None) -> Components:
    """The table of A12; `skew` is the z-score of positioning towards the side at risk."""
    f = features
    depth = _known(f.depth)
    refill = _known(f.refill)
    heat = _known(f.endogeneity)
    chances = f.structural
    if chances is not None and not all(isfinite(p) for p in chances):
        chances = None
    return Components(
        fuel=_saturated(f.fuel),
        gain=_saturated(f.gain),
        proximity=None
        if chances is None
        else (_clip(chances[0]), _clip(chances[1]), _clip(chances[2])),
        thinness=None if depth is None else 1.0 - _clip(depth),
        refill_failure=None if refill is None else 1.0 - _clip(refill),
        heat=None if heat is None else _clip(2.0 * heat + 0.5),
        crowding=crowding(f.interest, f.funding, skew),
        contagion=_saturated(f.contagion),
        plumbing=worst([f.plumbing]),
    )


def crowding(
    interest: float | None, funding: float | None, skew: float | None = None
) -> float | None:
    """Normal quantile of the mean of the z-scores that are known; None where none is.

    Funding counts only while the side at risk pays (`funding` above 0).
    """
    carry = _known(funding)
    scores = [_known(interest), None if carry is None else max(carry, 0.0), _known(skew)]
    known = [z for z in scores if z is not None]
    if not known:
        return None
    return 0.5 + 0.5 * erf(sum(known) / len(known) / sqrt(2.0))


def worst(parts: Sequence[float | None]) -> float | None:
    """The largest of the parts that are known, within [0, 1]; None where none is."""
    known = [_clip(p) for p in (_known(part) for part in parts) if p is not None]
    return max(known) if known else None


class Severity(Struct, frozen=True):
    """How bad a cascade would be, given that there is one: mean and 10 to 90 % range.

    Attributes:
        jump: log distance between the critical point and the landing.
        liquidated_usd: force-closed on the way.
        critical_move: median log distance to the critical point by price.
        critical_shock_usd: median one-sided flow to it; None where flow alone does not reach it.
        possible: weight of the nodes that have a critical point, 0 to 1.
    """

    jump: tuple[float, float, float]
    liquidated_usd: tuple[float, float, float]
    critical_move: float
    critical_shock_usd: float | None
    possible: float


def severity(
    moves: Floats, shocks: Floats, jumps: Floats, liquidated_usd: Floats, weights: Floats
) -> Severity | None:
    """Severity over the nodes of depth survival and map scale, all arrays of shape (nodes,).

    A node without a critical point has an infinite move. None where none has one, or where a
    landing is not known to be finite.
    """
    here = np.isfinite(moves) & (weights > 0.0)
    if not here.any():
        return None
    weight = weights[here]
    if not (np.isfinite(jumps[here]).all() and np.isfinite(liquidated_usd[here]).all()):
        return None
    shock = weighted_quantile(shocks[here], weight, 0.5)
    return Severity(
        jump=_range(jumps[here], weight),
        liquidated_usd=_range(liquidated_usd[here], weight),
        critical_move=weighted_quantile(moves[here], weight, 0.5),
        critical_shock_usd=shock if isfinite(shock) else None,
        possible=min(1.0, float(weight.sum())),
    )


def weighted_quantile(values: Floats, weights: Floats, q: float) -> float:
    """The least value at or below which lies a share `q` of the weight."""
    order = np.argsort(values, kind="stable")
    nearer = np.cumsum(weights[order])
    found = int(np.searchsorted(nearer, q * nearer[-1] * (1.0 - 1e-12)))
    return float(values[order[min(found, len(order) - 1)]])


def _range(values: Floats, weights: Floats) -> tuple[float, float, float]:
    mean = float((values * weights).sum() / weights.sum())
    return mean, weighted_quantile(values, weights, 0.1), weighted_quantile(values, weights, 0.9)


def _known(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _saturated(ratio: float | None) -> float | None:
    # An infinite ratio is the worst there is, not an unknown one.
    if ratio == inf:
        return 1.0
    known = _known(ratio)
    return None if known is None else max(known, 0.0) / (1.0 + max(known, 0.0))
