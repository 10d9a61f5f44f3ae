"""How a shock would run in either direction, as solved, and how likely something sets it off.

Depth is put against fuel, the critical points are found over what is uncertain in both, and the
chance of reaching them is taken for both directions and all horizons at once.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import exp, inf, isnan, sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.curves import Floats, value_at
from monitor.core.cascade.impact import stop_of_requote
from monitor.core.cascade.loop import Folds, as_ratio, gain_window, solve
from monitor.core.conditions import Conditions
from monitor.core.depth.survival import NODES
from monitor.core.forecast.coefficients import LABEL_SIGMAS
from monitor.core.forecast.features import PerHorizon
from monitor.core.forecast.label import LabelRule
from monitor.core.forecast.passage import first_passage, structural
from monitor.core.forecast.volatility import Forecast as Volatility
from monitor.events import HORIZONS_S, Direction

LABEL: Final = LabelRule()

SCALE_NODES: Final = (-sqrt(3.0), 0.0, sqrt(3.0))
SCALE_WEIGHTS: Final[Floats] = np.array([1.0, 4.0, 1.0]) / 6.0
"""Gauss-Hermite over the level of the map, which is lognormal."""

USUAL_W: Final = 0.5
"""Survival at which one number has to stand for all: the median of the nodes (A7)."""

MOVED: Final = 2.0
"""Standard deviations over 15 minutes of the move that fuel, depth, amplification are told of."""

LARGEST_MOVE: Final = 0.25
"""Log distance up to which amplification is asked for: beyond it too little of the grid is left."""

_NODES: Final = len(NODES) * len(SCALE_NODES)
_TAU: Final[Floats] = np.array(HORIZONS_S, dtype=np.float64)


class Chain(Struct, frozen=True):
    """The mechanism of one direction: critical points, chance of reaching them, what follows.

    Attributes:
        folds, weights: by node of survival and level of the map, shape (W, M).
        critical: median critical move, sale and landing; None where most nodes have none.
        requote: at the same node, the smallest move of the whole book, as news makes it, that
            closes push on; None where none does.
        reached: chance per horizon that the critical point is reached.
        gain, supercritical_share: as in `Folds`, the mean of the nodes.
        fuel_ratio: fuel over depth within two standard deviations; None without depth.
        amplification: of a move of as many, at the node whose critical point is told, so that a
            move past that point runs as far as it says; None where it runs beyond what is seen.
        psi: flow that hits the book for each forced dollar.
    """

    folds: Folds
    weights: Floats
    critical: tuple[float, float, float | None] | None
    requote: float | None
    reached: PerHorizon
    gain: float
    supercritical_share: float
    fuel_ratio: float | None
    amplification: float | None
    psi: float


class Prospect(Struct, frozen=True):
    """What volatility and the curves say of both directions.

    Attributes:
        passage: chance per horizon of the label's own move; knows no map.
        chains: of the directions in which there is both depth and fuel.
    """

    passage: PerHorizon
    chains: dict[Direction, Chain]


def psi(conditions: Conditions, direction: Direction) -> float:
    """Flow that hits the book for each forced dollar, what is refilled meanwhile taken off."""
    return conditions.psi(direction) * (1.0 - (conditions.absorbed(direction) or 0.0))


def prospect(
    curves: Mapping[Direction, tuple[Floats, Floats]],
    *,
    level_sd: float,
    volatility: Volatility,
    conditions: Conditions,
) -> Prospect:
    """Solve every direction of which there are curves of depth and fuel.

    `level_sd` is the log standard deviation of the map's level.
    """
    scale = np.array([exp(z * level_sd) for z in SCALE_NODES])
    window = gain_window(volatility.sigma[1] * sqrt(300.0))
    pushed = {d: psi(conditions, d) for d in curves}
    folds, weights, survivals = [], [], []
    for d, (depth, fuel) in curves.items():
        moves = conditions.moves_sigma(d)
        survival, shares = conditions.survival(d).nodes(max(0.0, moves[0]) if moves else 0.0)
        found = solve(depth, fuel, survival=survival, scale=scale, psi=pushed[d], window=window)
        folds.append(found)
        weights.append(shares[:, None] * SCALE_WEIGHTS)
        survivals.append(survival)
    passage, reached = _chances(folds, weights, volatility, conditions.flow_sigma())
    reach = MOVED * volatility.sigma[2] * sqrt(900.0)
    chains = {}
    for i, (d, (depth, fuel)) in enumerate(curves.items()):
        forced, resting = value_at(fuel, reach), USUAL_W * value_at(depth, reach)
        middle = _middle(folds[i], weights[i])
        node = divmod(middle, len(scale))
        requote = float(folds[i].requote_distance.flat[middle])
        chains[d] = Chain(
            folds=folds[i],
            weights=weights[i],
            critical=_critical(folds[i], middle, d),
            requote=None if isnan(requote) else as_ratio(requote, d),
            reached=reached[i],
            gain=_mean(folds[i].gain, weights[i]),
            supercritical_share=_mean(folds[i].supercritical_share, weights[i]),
            fuel_ratio=forced / resting if resting > 0.0 else None,
            amplification=_amplification(
                depth, float(scale[node[1]]) * fuel, reach, float(survivals[i][node[0]]), pushed[d]
            ),
            psi=pushed[d],
        )
    return Prospect(passage, chains)


def _chances(
    folds: list[Folds], weights: list[Floats], volatility: Volatility, sigma_flow: float | None
) -> tuple[PerHorizon, list[PerHorizon]]:
    """Per horizon, that the label's move is reached, and each direction's critical point."""
    wanted = max(LABEL.least_move, LABEL_SIGMAS * volatility.day * sqrt(300.0))
    # What does not happen at any size needs an infinite one.
    points = np.array([(found.requote_distance, found.critical_usd) for found in folds])
    points = points.reshape(-1, 2, _NODES)
    points[np.isnan(points)] = inf
    moves = np.empty(1 + points[:, 0].size)
    moves[0], moves[1:] = wanted, points[:, 0].ravel()
    by_price = first_passage(
        moves,
        np.array(volatility.sigma[1:])[:, None],
        _TAU[:, None],
        vol_of_vol=np.array(volatility.vol_of_vol[1:])[:, None],
        jump_rate=volatility.jump_rate,
        jump_size=volatility.jump_size,
    )
    reached = structural(
        by_price[:, 1:].reshape(len(_TAU), -1, _NODES),
        points[:, 1],
        np.array(weights).reshape(-1, _NODES),
        tau=_TAU,
        sigma_flow=sigma_flow,
    )
    return _per_horizon(by_price[:, 0]), [_per_horizon(row) for row in reached.T]


def _per_horizon(values: Floats) -> PerHorizon:
    p = values.tolist()
    return p[0], p[1], p[2]


def _middle(folds: Folds, weights: Floats) -> int:
    """The node that half of the weight lies below, by critical distance and then by loop gain."""
    distances: list[float] = folds.critical_distance.ravel().tolist()
    gains: list[float] = folds.gain.ravel().tolist()
    keys = [(inf if isnan(x) else x, -gain) for x, gain in zip(distances, gains, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shares: list[float] = weights.ravel().tolist()
    below = list(accumulate(shares[n] for n in order))
    return order[min(bisect_left(below, 0.5 * below[-1]), len(order) - 1)]


def _critical(
    folds: Folds, middle: int, direction: Direction
) -> tuple[float, float, float | None] | None:
    """Of one node, in ratios of the mark; None without a critical point."""
    distance = float(folds.critical_distance.flat[middle])
    if isnan(distance):
        return None
    landing = float(folds.landing.flat[middle])
    return (
        as_ratio(distance, direction),
        float(folds.critical_usd.flat[middle]),
        None if isnan(landing) else as_ratio(landing, direction),
    )


def _amplification(
    depth: Floats, fuel: Floats, move: float, survival: float, pushed: float
) -> float | None:
    start = min(move, LARGEST_MOVE)
    if start <= 0.0:
        return None
    stop = stop_of_requote(depth, fuel, start, survival=survival, psi=pushed)
    return None if isnan(stop) else stop / start


def _mean(values: Floats, weights: Floats) -> float:
    return float((values * weights).sum() / weights.sum())
