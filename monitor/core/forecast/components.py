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
