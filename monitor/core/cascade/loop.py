"""One fuel curve against one depth curve: how far a shock goes, and when it feeds itself.

The price stops where the book has absorbed the shock and everything the shock forces to close. With
the surplus ``S(u) = W D(u) - psi s L(beta u)`` that point is a generalised inverse of the running
maximum of S, so nothing iterates and nothing can fail to converge (model.md A8). Here W is the
share of displayed depth that survives, s the scale of the map, psi the flow that follows each
forced dollar after refill, and beta how much of a move the mark takes over.

Distances are logarithmic (`monitor.core.cascade.curves`), money is USD. These functions know no
direction: they take the two curves that meet in one. Not-a-number in an array they return means
that no such point lies within the grid; `Critical` and `Severity`, which are published, say None
instead.
"""

from bisect import bisect_left
from itertools import accumulate
from math import ceil, expm1, isfinite, isnan, log1p
from operator import itemgetter
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.events import Direction

Flags = NDArray[np.bool_]
Bins = NDArray[np.intp]

RUN: Final = 0.0075
"""A jump shorter than this is no cascade: the gain exceeds one there, but not for long enough."""

GAIN_CAP: Final = 100.0
"""No larger loop gain is reported: beyond it the number only says how empty the book is."""

NEAR: Final = 0.05
"""Distance within which the super-critical share is counted."""

_GRID_END: Final = float(DISTANCES[-1])
_LARGEST_USD: Final = 1e18
_LARGEST_LOAD: Final = 1e6
_SMALLEST_USD: Final = 1.0
_NOTHING: Final = 1e-280
_CENT: Final = 0.01
_TIE: Final = 1.0 + 1e-12
_ROUNDING: Final = 1e-11
_SOON: Final = 64
_ORDER: Final[Bins] = np.arange(POINTS)
_AHEAD: Final[Bins] = _ORDER[1:, None]


class Folds(Struct, frozen=True):
    """The first critical point of every node; arrays of shape (W, M), distances logarithmic.

    Attributes:
        critical_distance: where the price stands when it starts to run by itself.
        critical_usd: the sale into the book that brings it there; 0 when it runs already.
        landing: where the book next holds the same sale; nan also when `beyond`.
        jump: from there to the landing. At least this much when `beyond`.
        liquidated_usd: closed by force in between, psi not counted. At least, when `beyond`.
        beyond: a critical point was found and the book within the grid does not stop what follows.
        requote_distance: smallest move of the whole book after which closes push it on by `RUN`.
        gain: largest loop gain, at most `GAIN_CAP`.
        gain_from, gain_to: the window where it is found, the same at every node.
        supercritical_share: share of the distances within `NEAR` whose loop gain exceeds 1.
        reach: how far critical points were looked for.
    """

    critical_distance: Floats
    critical_usd: Floats
    landing: Floats
    jump: Floats
    liquidated_usd: Floats
    beyond: Flags
    requote_distance: Floats
    gain: Floats
    gain_from: float
    gain_to: float
    supercritical_share: Floats
    reach: float

    def node(self, survival: int, scale: int, direction: Direction) -> "Critical":
        """What is published of the node with these indices."""
        at = (survival, scale)

        def ratio(values: Floats) -> float | None:
            distance = float(values[at])
            return None if isnan(distance) else as_ratio(distance, direction)

        start, usd = float(self.critical_distance[at]), float(self.critical_usd[at])
        found, beyond = not isnan(start), bool(self.beyond[at])
        landing = start + float(self.jump[at])
        return Critical(
            shock_ratio=ratio(self.critical_distance),
            shock_usd=usd if found else None,
            landing_ratio=ratio(self.landing),
            jump_ratio=_further(start, landing, direction) if found and not beyond else None,
            liquidated_usd=float(self.liquidated_usd[at]) if found else None,
            beyond=beyond,
            requote_ratio=ratio(self.requote_distance),
            loop_gain=float(self.gain[at]),
            gain_from_ratio=as_ratio(self.gain_from, direction),
            gain_to_ratio=as_ratio(self.gain_to, direction),
            supercritical_share=float(self.supercritical_share[at]),
            reach_ratio=as_ratio(self.reach, direction),
        )


class Critical(Struct, frozen=True):
    """One node of `Folds` in ratios of the mark.

    None in `shock_ratio` and `requote_ratio`: no critical point up to `reach_ratio`. None in
    `landing_ratio` and `jump_ratio` with `beyond`: the price leaves the grid, and `liquidated_usd`
    is a lower bound. `jump_ratio` is relative to the price at the critical point.
    """

    shock_ratio: float | None
    shock_usd: float | None
    landing_ratio: float | None
    jump_ratio: float | None
    liquidated_usd: float | None
    beyond: bool
    requote_ratio: float | None
    loop_gain: float
    gain_from_ratio: float
    gain_to_ratio: float
    supercritical_share: float
    reach_ratio: float


def as_ratio(distance: float, direction: Direction) -> float:
    """A log distance as a share of the mark, positive in both directions."""
    return -expm1(-distance) if direction == "down" else expm1(distance)


def as_distance(ratio: float, direction: Direction) -> float:
    """The log distance of a share of the mark, the inverse of `as_ratio`.

    Raises:
        ValueError: a fall by the whole price or more.
    """
    if not ratio >= 0.0 or (direction == "down" and ratio >= 1.0) or not isfinite(ratio):
        raise ValueError(f"a move {direction} by {ratio} of the price")
    return -log1p(-ratio) if direction == "down" else log1p(ratio)


def _further(start: float, stop: float, direction: Direction) -> float:
    return as_ratio(stop - start, direction)


def gain_window(sigma_5min: float) -> float:
    """The window of the loop gain: half a five-minute standard deviation, at least 25 bp."""
    return min(max(0.0025, 0.5 * sigma_5min), _GRID_END)


def checked(curve: Floats, name: str) -> Floats:
    """The curve, if it is one.

    Raises:
        ValueError: another shape, not 0 at the mark, decreasing, or not a finite amount of money.
    """
    if curve.shape != (POINTS,):
        raise ValueError(f"{name} has shape {curve.shape}, not ({POINTS},)")
    # A comparison with not-a-number is false, so this refuses it as well.
    if curve[0] != 0.0 or not (curve[1:] >= curve[:-1]).all() or curve[-1] > _LARGEST_USD:
        raise ValueError(f"{name} does not rise from 0 to at most {_LARGEST_USD:g} USD")
    return curve


def marked(fuel: Floats, beta: float) -> Floats:
    """Forced closes by distance of the last price, of which the mark follows a share `beta`."""
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"mark pass-through {beta} is not between 0 and 1")
    return fuel if beta == 1.0 else np.interp(beta * DISTANCES, DISTANCES, fuel)


def solve(
    depth: Floats,
    fuel: Floats,
    *,
    survival: Floats,
    scale: Floats,
    psi: float,
    beta: float = 1.0,
    window: float,
    run: float = RUN,
) -> Folds:
    """The critical points of all nodes in one pass (model.md A8).

    Args:
        depth: displayed depth, as `monitor.core.cascade.curves` defines curves.
        fuel: forced closes on the same side of the mark, likewise.
        survival: W, shares of the depth that survive, shape (W,).
        scale: s, factors on the map, shape (M,).
        psi: flow that hits the book per forced dollar, what is refilled meanwhile taken off.
        beta: mark pass-through, 0 to 1.
        window: log distance over which the loop gain is measured, `gain_window`.
        run: shortest log distance that counts as a jump.

    Raises:
        ValueError: an input outside the domain given here.
    """
    checked(depth, "depth")
    pushed = marked(checked(fuel, "fuel"), beta)
    load = loads(survival, scale, psi)
    flat = _bins(run)
    points, beyond = _folds(depth, pushed, load, flat)
    shape = (len(survival), len(scale))
    start, stop, surplus, landing = points.reshape(4, *shape)
    sold = surplus * survival[:, None]
    np.maximum(sold, 0.0, out=sold)
    ends = np.interp(points[:2], DISTANCES, pushed)
    freed = (ends[1] - ends[0]).reshape(shape)
    freed *= scale
    steps = min(_bins(window), POINTS - 1)
    unit = loop_gain(depth, pushed, steps)
    widest = int(unit.argmax())
    near = np.sort(unit[: round(NEAR / STEP)])
    calm = near.searchsorted(1.0 / load, side="right")
    return Folds(
        critical_distance=start,
        critical_usd=sold,
        landing=landing,
        jump=stop - start,
        liquidated_usd=freed,
        beyond=beyond.reshape(shape),
        requote_distance=_requote(depth, pushed, load, flat).reshape(shape),
        gain=np.minimum(unit[widest] * load, GAIN_CAP).reshape(shape),
        gain_from=widest * STEP,
        gain_to=(widest + steps) * STEP,
        supercritical_share=(1.0 - calm / near.size).reshape(shape),
        reach=(POINTS - 1 - flat) * STEP,
    )


def loop_gain(depth: Floats, fuel: Floats, steps: int) -> Floats:
    """Loop gain from each distance over the next `steps` points, for W = psi = s = 1.

    Multiply by ``psi s / W``. `fuel` is as the mark sees it (`marked`), which holds the factor beta
    of the derivative already. Shape (POINTS - steps,).
    """
    # An empty book has no gain to divide by; a dollar there keeps the figure finite.
    absorbed = np.maximum(depth[steps:] - depth[:-steps], _SMALLEST_USD)
    gain: Floats = (fuel[steps:] - fuel[:-steps]) / absorbed
    return gain


def _bins(distance: float) -> int:
    if not 0.0 < distance <= _GRID_END:
        raise ValueError(f"a stretch of {distance} is not within the grid of {_GRID_END}")
    return max(1, ceil(distance / STEP - 1e-9))


def loads(survival: Floats, scale: Floats, psi: float) -> Floats:
    """Forced flow per unit of displayed depth. All that follows depends on the nodes by it alone.

    With ``r = psi s / W`` the surplus is ``W (D - r L)``: folds and landings are those of D - r L.

    Raises:
        ValueError: a factor that is not positive, or a load out of all proportion.
    """
    # A dozen nodes one by one are cheaper than as many calls for all of them.
    factors = scale.tolist()
    return np.array([load_of(w, s, psi) for w in survival.tolist() for s in factors])


def load_of(survival: float, scale: float, psi: float) -> float:
    """The same of one node.

    Raises:
        ValueError: likewise.
    """
    if not (psi > 0 and survival > 0 and scale > 0):
        raise ValueError(f"survival {survival}, scale {scale} and psi {psi} must be positive")
    load = psi * scale / survival
    if load > _LARGEST_LOAD:
        raise ValueError(f"psi s / W of {load:g} is beyond {_LARGEST_LOAD:g}")
    return load


def _folds(depth: Floats, fuel: Floats, load: Floats, run: int) -> tuple[Floats, Flags]:
    """Start, landing or end of grid, surplus at the start, and landing; and what runs off the grid.

    Shapes (4, nodes) and (nodes,); nan where a node has none.
    """
    points = np.full((4, load.size), np.nan)
    start, stop, held, landing = points
    beyond = np.zeros(load.size, dtype=np.bool_)
    found = _firsts(depth, fuel, load, run)
    at = (found < POINTS).nonzero()[0]
    if at.size == 0:
        return points, beyond
    first, own = found[at], load[at]
    surplus = own[:, None] * fuel
    np.subtract(depth, surplus, out=surplus)
    rows = _ORDER[: at.size]
    top = surplus[rows, first]
    # Rounding lets points before the landing differ from the top.
    slack = _ROUNDING * (depth[-1] + own * fuel[-1])
    end = (surplus > (top + slack)[:, None]).argmax(axis=1)
    low, high = surplus[rows, end - 1], surplus[rows, end]
    start[at], held[at] = STEP * first, top
    # A dozen nodes one by one are cheaper than as many calls for all of them.
    columns = (at.tolist(), end.tolist(), top.tolist(), low.tolist(), high.tolist())
    for node, bins, held_usd, before, after in zip(*columns, strict=True):
        if bins == 0:
            beyond[node], stop[node] = True, _GRID_END
            continue
        below = min(before, held_usd)
        landing[node] = stop[node] = STEP * (bins - 1 + (held_usd - below) / (after - below))
    return points, beyond


def _firsts(depth: Floats, fuel: Floats, load: Floats, run: int) -> Bins:
    """For each load the first point from which it runs by itself; `POINTS` if none does.

    The running maximum of S is flat from i over `run` points, and not from anywhere before, exactly
    if i is the first point that no point of the next `run` exceeds: a greater S before i would be
    such a point itself. That is ``r >= max_j (D[i+j] - D[i]) / (L[i+j] - L[i])``, where the nodes
    only enter by r.
    """
    last = POINTS - run
    soon = min(_SOON, last)
    # The first is where the least so far falls to the load. Ties are risk, whichever way their last
    # bit falls.
    wanted = -_TIE * load
    found = (-_least(depth, fuel, _ORDER[:soon], run)).searchsorted(wanted)
    late = found == soon
    if soon < last and late.any():
        # What the largest load left reaches the end of the run from; elsewhere nothing holds.
        ends, starts = slice(soon + run, POINTS), slice(soon, last)
        holds = _TIE * _TIE * load[late].max() * (fuel[ends] - fuel[starts])
        begin = (holds >= depth[ends] - depth[starts]).nonzero()[0] + soon
        if begin.size:
            place = (-_least(depth, fuel, begin, run)).searchsorted(wanted[late])
            found[late] = np.append(begin, POINTS)[place]
        else:
            found[late] = POINTS
    found[found == last] = POINTS
    return found


def _least(depth: Floats, fuel: Floats, begin: Bins, run: int) -> Floats:
    """The least load that runs from any of the points `begin` up to each, of their shape."""
    ahead = begin + _AHEAD[:run]
    risen = depth.take(ahead)
    risen -= depth.take(begin)
    freed = fuel.take(ahead)
    before = fuel.take(begin)
    # A gap in the book with less than a cent of forced closes in it is no cascade.
    nothing = freed[-1] <= before + _CENT
    freed -= before
    # Where nothing is freed yet the book must not rise either.
    risen /= np.maximum(freed, _NOTHING, out=freed)
    least = risen.max(axis=0)
    least[nothing] = np.inf
    found: Floats = np.minimum.accumulate(least)
    return found


def _requote(depth: Floats, fuel: Floats, load: Floats, run: int) -> Floats:
    """Smallest move of the book from which it is pushed on by `run`; nan if none within reach.

    From k the price does not stop within the run if ``D[j] < r L[k + j]`` at each of its points.
    L rises, so each point asks for k no smaller than where L passes D[j] / r, less j.
    """
    passed = fuel.searchsorted(depth[:run] / load[:, None], side="right")
    least = (passed - _ORDER[:run]).max(axis=1)
    return np.where(least <= POINTS - 1 - run, STEP * least, np.nan)


class Severity(Struct, frozen=True):
    """What a cascade would do if it came, over the nodes that have a critical point (A12).

    Attributes:
        weight: share of the nodes' weight that has a critical point; None elsewhere if it is 0.
        beyond: share of that whose price leaves the grid: there the figures are lower bounds.
        jump_ratio, liquidated_usd: expected value, then the 10 % and 90 % quantiles.
    """

    weight: float
    beyond: float | None
    jump_ratio: tuple[float, float, float] | None
    liquidated_usd: tuple[float, float, float] | None


def severity(folds: Folds, weights: Floats, direction: Direction) -> Severity:
    """The severity over nodes of these weights, shape (W, M).

    Raises:
        ValueError: a negative weight, or none.
    """
    # A dozen nodes one by one are cheaper than as many calls for all of them.
    shares: list[float] = weights.ravel().tolist()
    distances: list[float] = folds.critical_distance.ravel().tolist()
    whole = sum(shares)
    if weights.shape != folds.jump.shape or not min(shares) >= 0.0 or not whole > 0.0:
        raise ValueError(f"weights {weights} do not fit the nodes")
    has = [n for n, distance in enumerate(distances) if not isnan(distance)]
    total = sum(shares[n] for n in has)
    if total <= 0.0:
        return Severity(0.0, None, None, None)
    chosen = [shares[n] / total for n in has]
    jumps, freed, beyond = (
        values.ravel().tolist() for values in (folds.jump, folds.liquidated_usd, folds.beyond)
    )
    sign = -1.0 if direction == "down" else 1.0
    return Severity(
        weight=total / whole,
        beyond=sum((share for share, n in zip(chosen, has, strict=True) if beyond[n]), 0.0),
        jump_ratio=_spread([abs(expm1(sign * jumps[n])) for n in has], chosen),
        liquidated_usd=_spread([freed[n] for n in has], chosen),
    )


def _spread(values: list[float], weights: list[float]) -> tuple[float, float, float]:
    mean = sum(value * weight for value, weight in zip(values, weights, strict=True))
    ranked = sorted(zip(values, weights, strict=True), key=itemgetter(0))
    below = list(accumulate(weight for _, weight in ranked))
    low, high = (bisect_left(below, share - 1e-9, hi=len(below) - 1) for share in (0.1, 0.9))
    return mean, ranked[low][0], ranked[high][0]
