"""The quantities that follow from one moment's curves and maps (model.md D).

Functions of what they are given, which remember nothing; None says that it cannot be known. Curves
are those of `monitor.core.cascade.curves`, distances logarithmic, money USD.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, log, sqrt
from statistics import median
from typing import Final

import numpy as np

from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.core.cascade.impact import stop_of_flow
from monitor.core.cascade.insurance import executed, shortfall
from monitor.core.cascade.loop import as_distance, as_ratio
from monitor.core.forecast.passage import first_passage
from monitor.core.forecast.volatility import Forecast
from monitor.core.heatmap.pooling import Estimate, fuel_between
from monitor.core.instrument import InstrumentState
from monitor.events import Direction, StressPoint

SHOCKS: Final = (0.01, 0.03, 0.05, 0.1)
SURVIVALS: Final = (0.5, 0.25, 0.08)
"""Moves of all books, as ratios, and shares of their depth that survive (model.md D)."""

SHORTFALL_SHOCK: Final = 0.05
SHORTFALL_SURVIVAL: Final = 0.08
"""The sale after which funds are asked what they would lose, and the depth left then."""

MASS_QUANTILES: Final = (0.1, 0.5)

NEAR: Final = 0.01
"""Ratio within which positions are at the brink, and depth is what stands against them."""

CLUSTER_REACH: Final = 0.05
CLUSTER_STEPS: Final = 10
"""How far away clusters are looked for, and how wide one is: 50 bp."""

BESIDE_STEPS: Final = 6
"""Width of a cluster, and of the stretch on either side, when depth is compared: 30 bp."""

TAIL_S: Final = 900.0
TAIL_MOST: Final = 1e6

_END: Final = float(DISTANCES[-1])
_EXCLUDED: Final = 1e-28
"""Chances this small are rounding errors."""


def stress_grid(
    depth: Floats, fuel: Floats, *, psi: float, direction: Direction
) -> list[StressPoint]:
    """Where each of `SHOCKS` ends for each of `SURVIVALS`: the requote shock of model.md A8.

    All books are taken as one; `monitor.core.cascade.stress` keeps the venues apart.
    """
    moves = np.array([as_distance(shock, direction) for shock in SHOCKS])
    reached = moves[:, None] + DISTANCES
    pushed = psi * np.interp(reached, DISTANCES, fuel)
    outside = reached > _END + 1e-9
    found = []
    for survival in SURVIVALS:
        surplus = survival * depth - pushed
        surplus[outside] = -1.0
        stops = (surplus >= 0.0).argmax(axis=1).tolist()
        for row, stop in enumerate(stops):
            high = float(surplus[row, stop])
            if high < 0.0:
                point = StressPoint(SHOCKS[row], survival, None, float(fuel[-1]))
            else:
                low = float(surplus[row, stop - 1]) if stop else 0.0
                walked = STEP * (stop - high / (high - low)) if stop and high > low else STEP * stop
                end = float(moves[row]) + walked
                point = StressPoint(
                    SHOCKS[row], survival, as_ratio(end, direction), within(fuel, end)
                )
            found.append(point)
    return found


def within(curve: Floats, distance: float) -> float:
    """What a curve holds within a log distance; between two points linearly."""
    place = min(max(distance, 0.0), _END) / STEP
    i = min(int(place), POINTS - 2)
    low = float(curve[i])
    return low + (place - i) * (float(curve[i + 1]) - low)


def mass_distances(fuel: Floats, direction: Direction) -> dict[str, float]:
    """Distances, as ratios, within which `MASS_QUANTILES` of all that can be liquidated stand."""
    total = float(fuel[-1])
    if not total > 0.0:
        return {}
    found = {}
    for q in MASS_QUANTILES:
        wanted = q * total
        i = max(int(np.searchsorted(fuel, wanted)), 1)
        low, high = float(fuel[i - 1]), float(fuel[i])
        part = (wanted - low) / (high - low) if high > low else 1.0
        found[f"{q:g}"] = as_ratio(STEP * (i - 1 + part), direction)
    return found


def brought_near(fuel: Floats, move: float, direction: Direction) -> float:
    """USD that a move has brought within `NEAR` of the mark; negative for what it took away.

    `move` is logarithmic and positive in the direction.
    """
    near = as_distance(NEAR, direction)
    return within(fuel, near) - within(fuel, near - move)


def cluster(fuel: Floats) -> float | None:
    """Log distance of the middle of the largest cluster within `CLUSTER_REACH`; None without."""
    last = round(CLUSTER_REACH / STEP)
    mass = fuel[CLUSTER_STEPS : last + 1] - fuel[: last + 1 - CLUSTER_STEPS]
    k = int(mass.argmax())
    return STEP * (k + CLUSTER_STEPS / 2) if mass[k] > 0.0 else None


def around_cluster(depth: Floats, reach: float, fuel: Floats) -> tuple[float, float] | None:
    """Depth at the largest cluster that a book shows, and the mean of that on either side.

    The stretches are equally wide and lie evenly about it, so that depth growing with distance
    makes no difference. None where the book does not show as much, or nothing stands there.
    """
    w = BESIDE_STEPS
    last = min(int(reach / STEP + 1e-9), POINTS - 1) - 2 * w
    if last < w:
        return None
    mass = fuel[2 * w : last + w + 1] - fuel[w : last + 1]
    k = w + int(mass.argmax())
    if not mass[k - w] > 0.0:
        return None
    a, b, c, d = (float(depth[k + i * w]) for i in (-1, 0, 1, 2))
    return c - b, 0.5 * (b - a + d - c)


def withdrawal(pairs: Sequence[tuple[float, float]]) -> float | None:
    """How far books avoid their clusters: 0 not at all, 1 entirely, negative if they gather."""
    at, beside = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
    return (beside - at) / (beside + at) if beside + at > 0.0 else None


def worn_shortfalls(
    depth: Floats,
    fuel: Floats,
    venues: Mapping[str, tuple[Floats, float]],
    *,
    psi: float,
    maintenance: float,
    direction: Direction,
) -> tuple[float, dict[str, float]]:
    """What insurance funds would lose after a sale into a worn book, and each venue's (A13.4).

    The sale would move the book by `SHORTFALL_SHOCK` while `SHORTFALL_SURVIVAL` of it is left. All
    books are taken as one. `venues` have their part of the fuel and their own maintenance margin;
    `maintenance` is that of all together.
    """
    usd = SHORTFALL_SURVIVAL * within(depth, as_distance(SHORTFALL_SHOCK, direction))
    stops = stop_of_flow(depth, fuel, np.array([usd]), survival=SHORTFALL_SURVIVAL, psi=psi)
    stop = _END if isnan(float(stops[0])) else float(stops[0])
    fills = executed(depth, fuel, stop, flow_usd=usd, survival=SHORTFALL_SURVIVAL, psi=psi)
    found = {
        venue: shortfall(part, fills, stop, maintenance=rate, direction=direction)
        for venue, (part, rate) in venues.items()
    }
    return shortfall(fuel, fills, stop, maintenance=maintenance, direction=direction), found


def tail_ratio(distance: float, volatility: Forecast) -> float | None:
    """Chance of a move within 15 minutes over what a normal distribution gives it.

    At most `TAIL_MOST`, and that also where the normal distribution excludes it (model.md A10).
    """
    x, sigma = np.array([distance]), volatility.sigma[2]
    if not (distance > 0.0 and sigma > 0.0):
        return None
    normal = float(first_passage(x, sigma, TAIL_S, vol_of_vol=0.0)[0])
    mixed = first_passage(
        x,
        sigma,
        TAIL_S,
        vol_of_vol=volatility.vol_of_vol[2],
        jump_rate=volatility.jump_rate,
        jump_size=volatility.jump_size,
    )
    chance = float(mixed[0])
    if normal < _EXCLUDED or chance > normal * TAIL_MOST:
        return TAIL_MOST
    return chance / normal


def passed_over(estimate: Estimate, last: float, direction: Direction) -> float:
    """USD that stands between an instrument's mark and the price last traded (A13.2).

    Positions there are closed when the mark follows; 0 where trades are on the other side of it.
    """
    here, there = log(estimate.mark), log(last)
    if (there < here) != (direction == "down"):
        return 0.0
    return fuel_between(estimate, direction, min(here, there), max(here, there))


# ---------------------------------------------------------------------------------------- prices


def price_gap(marks: Sequence[float]) -> float | None:
    """Largest distance of a mark from the median of all, a ratio; None for fewer than two."""
    if len(marks) < 2:
        return None
    middle = median(marks)
    return max(abs(mark / middle - 1.0) for mark in marks)


def stablecoin_deviation(states: Sequence[InstrumentState], at: int) -> float | None:
    """What a USDT is worth less than a dollar, from prices of the asset quoted in either.

    Index prices where all have one, which no perpetual's premium moves; else marks. None where
    the asset is not listed with both quotes.
    """
    fresh = [s for s in states if s.mark is not None and s.hears_mark(at)]
    stable = [s for s in fresh if s.spec.kind == "linear" and "USDT" in s.spec.symbol]
    dollar = [s for s in fresh if s.spec.kind == "inverse"]
    if not stable or not dollar:
        return None
    by_index = all(s.hears_index(at) for s in stable + dollar)
    values = [
        [(s.index if by_index else s.mark) or 0.0 for s in group] for group in (stable, dollar)
    ]
    in_stable = median(p / s.spec.multiplier for p, s in zip(values[0], stable, strict=True))
    in_dollar = median(p / s.spec.multiplier for p, s in zip(values[1], dollar, strict=True))
    return 1.0 - in_dollar / in_stable if in_stable > 0.0 else None


def daily(sigma: float) -> float:
    """Volatility of a day from that per root second."""
    return sigma * sqrt(86_400.0) if isfinite(sigma) else 0.0
