"""What-if: the path of one shock through the venues of an asset, and who would have to pay for it.

Also the question of the same kind what a fall of the collateral's own price does to liquidation
distances (model.md A13.5).
"""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log
from statistics import median
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.core.cascade.coupling import ALPHA, Coupled, Pressure, couple
from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.core.cascade.impact import inverse, mark_pass_through
from monitor.core.cascade.insurance import Runway, VenueFund, loss, runway, within_grid
from monitor.core.cascade.loop import as_distance, as_ratio, checked, marked, solve
from monitor.events import Direction, Side

DEPEGS: Final = (0.005, 0.02, 0.10, 0.35)
"""Deviations of a collateral for which the map is shown again (model.md A13.5)."""

SETTLED: Final = 1e-5
"""Last rounds that together move the asset less than this log distance, 0.1 bp, and close less
than a thousandth more, are not told."""

_GRID_END: Final = float(DISTANCES[-1])
_WEIGHED: Final = round(0.01 / STEP)
_SMALLEST: Final = 1e-6


class VenueCurves(Struct, frozen=True):
    """What is known of one venue in the direction of the shock; None for what is not.

    `depth` and `fuel` are bids and longs for a fall, asks and shorts for a rise. `maintenance` is
    the maintenance margin as a share of notional at which positions there are closed. `name` is
    the venue's or ``venue:symbol``.
    """

    name: str
    mark: float | None
    depth: Floats | None
    fuel: Floats | None
    maintenance: float | None


class Step(Struct, frozen=True, gc=False):
    """One round of closes: where the asset stands after it and what has happened up to there.

    Attributes:
        move_ratio: signed, relative to the mark, venues weighed by their depth within 1 %.
        price: the same as a price.
        liquidated_usd: closed by force so far.
        forced_flow_usd: what the books have to take for it so far: psi times that. Some of it is
            sold by others who follow, some is matched by what is quoted anew.
    """

    move_ratio: float
    price: float
    liquidated_usd: float
    forced_flow_usd: float


class VenueStress(Struct, frozen=True, gc=False):
    """One venue at the end of a shock.

    `landing_price` and `landing_ratio` (signed) are None where the price leaves the grid or the
    venue's book within it is used up (`beyond`); the amounts are lower bounds then.
    `forced_flow_usd` is psi times what is liquidated, of which arbitrage takes a share to the other
    books. `shortfall_usd` is None while the maintenance margin is unknown.
    """

    name: str
    mark: float
    landing_price: float | None
    landing_ratio: float | None
    liquidated_usd: float
    forced_flow_usd: float
    shortfall_usd: float | None
    beyond: bool


class Missing(Struct, frozen=True):
    """A venue the answer does not contain, and what is not known of it."""

    name: str
    unknown: list[str]


class Stress(Struct, frozen=True):
    """The answer to one what-if.

    Attributes:
        shock_ratio: the move of all books that starts it, signed.
        side: the positions it closes.
        mark: median of the venues' marks; None if no venue is known.
        landing_price, landing_ratio: where it ends, weighed by depth; None with `beyond`, or when
            no venue is known.
        amplification: log distance of the end over that of the shock, None likewise.
        liquidated_usd: closed by force on all venues; None if no venue is known.
        shortfall_usd: what insurance funds lose; None if unknown for a venue.
        beyond: some venue's price leaves the grid: what is said is a lower bound.
        path: round by round, the shock alone first, no farther than the grid reaches; without
            the last rounds where they add nothing.
        funds: who would have to pay for it, by venue.
        missing: venues left out, which are not counted as 0.
        survival: share of displayed depth that survives.
        psi: forced flow per forced dollar.
        beta: share of the move that the mark has taken over, which closes positions.
        within_s: how soon after the shock; None: late enough for the mark to have followed.
        spot_share: share of the shock that spot makes as well; None where it does not matter or is
            not known, and all of it is taken to be.
    """

    shock_ratio: float
    side: Side
    mark: float | None
    landing_price: float | None
    landing_ratio: float | None
    amplification: float | None
    liquidated_usd: float | None
    shortfall_usd: float | None
    beyond: bool
    path: list[Step]
    venues: list[VenueStress]
    funds: list[Runway]
    missing: list[Missing]
    survival: float
    psi: float
    beta: float
    within_s: float | None
    spot_share: float | None


def stress(
    shock: float,
    venues: Sequence[VenueCurves],
    *,
    survival: float,
    psi: float,
    scale: float = 1.0,
    within_s: float | None = None,
    spot_share: float | None = None,
    alphas: Mapping[str, float] | None = None,
    funds: Mapping[str, VenueFund] | None = None,
) -> Stress:
    """How a move of all books by `shock`, a signed ratio, goes on; positive squeezes shorts.

    Args:
        shock: -0.03 for a fall by 3 %.
        venues: their curves in the direction of the shock.
        survival: share of displayed depth that survives.
        psi: forced flow per forced dollar.
        scale: factor on the map.
        within_s: how soon after the shock its end is asked for; None: when the mark has followed
            the price entirely, which takes two and a half minutes.
        spot_share: share of the shock that spot makes as well, which is in the mark at once. Only
            asked with `within_s`; unknown counts as all of it.
        alphas: share of a displacement that is arbitraged away, by name; `ALPHA` elsewhere.
        funds: insurance funds by venue.

    Raises:
        ValueError: no shock, a fall by everything, a time or share that is none, or curves that are
            none.
    """
    if abs(shock) < _SMALLEST:
        raise ValueError(f"a shock of {shock} is none")
    direction: Direction = "down" if shock < 0.0 else "up"
    start = as_distance(abs(shock), direction)
    beta = 1.0
    if within_s is None:
        spot_share = None
    else:
        beta = mark_pass_through(within_s, 1.0 if spot_share is None else spot_share)
    known: list[tuple[VenueCurves, float, Pressure]] = []
    missing = []
    for v in venues:
        mark = v.mark if v.mark is not None and v.mark > 0.0 and isfinite(v.mark) else None
        if v.depth is None or v.fuel is None or mark is None:
            parts = (("mark", mark), ("depth", v.depth), ("fuel", v.fuel))
            missing.append(Missing(v.name, [name for name, part in parts if part is None]))
            continue
        pressure = Pressure(
            depth=checked(v.depth, f"depth of {v.name}"),
            fuel=checked(v.fuel, f"fuel of {v.name}"),
            alpha=ALPHA if alphas is None else alphas.get(v.name, ALPHA),
            survival=survival,
            beta=beta,
            requote=start,
        )
        known.append((v, mark, pressure))
    side: Side = "long" if shock < 0.0 else "short"
    if not known:
        return Stress(
            shock, side, None, None, None, None, None, None, beyond=False, path=[], venues=[],
            funds=[], missing=missing, survival=survival, psi=psi, beta=beta, within_s=within_s,
            spot_share=spot_share,
        )  # fmt: skip
    pressures = [p for _, _, p in known]
    end = couple(pressures, psi=psi, scale=scale)
    lost = [
        _lost(i, pressures, end, v.maintenance, psi=psi, scale=scale, direction=direction)
        for i, (v, _, _) in enumerate(known)
    ]
    rows = [
        _venue(v.name, mark, end, i, lost=lost[i], direction=direction)
        for i, (v, mark, _) in enumerate(known)
    ]
    mark = median(mark for _, mark, _ in known)
    path = _path(pressures, end, mark, psi=psi, scale=scale, direction=direction)
    beyond = any(end.beyond)
    total = [x for x in lost if x is not None]
    return Stress(
        shock_ratio=shock,
        side=side,
        mark=mark,
        landing_price=None if beyond else path[-1].price,
        landing_ratio=None if beyond else path[-1].move_ratio,
        amplification=None if beyond else _ratio(_mean(pressures, end.moves) / start),
        liquidated_usd=_usd(sum(end.liquidated_usd)),
        shortfall_usd=_usd(sum(total)) if len(total) == len(lost) else None,
        beyond=beyond,
        path=path,
        venues=rows,
        funds=_runways(rows, missing, funds or {}),
        missing=missing,
        survival=survival,
        psi=psi,
        beta=beta,
        within_s=within_s,
        spot_share=spot_share,
    )


def _runways(
    rows: Sequence[VenueStress], missing: Sequence[Missing], funds: Mapping[str, VenueFund]
) -> list[Runway]:
    """Each venue's fund against what all its instruments lose; unknown if that is of one."""
    lost: dict[str, float | None] = {}
    for row in rows:
        venue = row.name.partition(":")[0]
        before, more = lost.get(venue, 0.0), row.shortfall_usd
        lost[venue] = None if before is None or more is None else before + more
    for left_out in missing:
        lost[left_out.name.partition(":")[0]] = None
    beyond = {row.name.partition(":")[0] for row in rows if row.beyond}
    return [
        runway(venue, funds.get(venue), usd, at_least=venue in beyond)
        for venue, usd in lost.items()
    ]


def _venue(
    name: str, mark: float, end: Coupled, i: int, *, lost: float | None, direction: Direction
) -> VenueStress:
    beyond, sign = end.beyond[i], -1.0 if direction == "down" else 1.0
    return VenueStress(
        name=name,
        mark=mark,
        landing_price=None if beyond else mark * exp(sign * end.moves[i]),
        landing_ratio=None if beyond else _ratio(sign * as_ratio(end.moves[i], direction)),
        liquidated_usd=_usd(end.liquidated_usd[i]),
        forced_flow_usd=_usd(end.absorbed_usd[i]),
        shortfall_usd=None if lost is None else _usd(lost),
        beyond=beyond,
    )


def _path(
    pressures: list[Pressure],
    end: Coupled,
    mark: float,
    *,
    psi: float,
    scale: float,
    direction: Direction,
) -> list[Step]:
    moves = np.array(end.path)
    sign = -1.0 if direction == "down" else 1.0
    # The closes of a round are those which the moves of the round before have set off.
    swept = np.zeros(len(moves))
    for i, p in enumerate(pressures):
        swept[1:] += scale * np.interp(p.beta * moves[:-1, i], DISTANCES, p.fuel)
    steps = []
    for row, freed in zip(end.path, swept.tolist(), strict=True):
        distance = _mean(pressures, row)
        ratio = _ratio(sign * as_ratio(distance, direction))
        price = mark * exp(sign * distance)
        steps.append(Step(ratio, price, _usd(freed), _usd(psi * freed)))
    last = len(steps) - 1
    told = next(
        i
        for i, step in enumerate(steps)
        if i == last
        or (
            abs(log(steps[last].price / step.price)) < SETTLED
            and steps[last].liquidated_usd - step.liquidated_usd
            <= 1e-3 * steps[last].liquidated_usd
        )
    )
    return [*steps[:told], steps[last]]


def _mean(pressures: list[Pressure], moves: list[float]) -> float:
    weights = [float(p.depth[_WEIGHED]) for p in pressures]
    if not any(weights):
        weights = [1.0] * len(weights)
    total = sum(w * m for w, m in zip(weights, moves, strict=True))
    return total / sum(weights)


def _lost(
    i: int,
    pressures: list[Pressure],
    end: Coupled,
    maintenance: float | None,
    *,
    psi: float,
    scale: float,
    direction: Direction,
) -> float | None:
    """E[SF] of one coupled venue; the shared displacement grows as its own closes do."""
    if maintenance is None:
        return None
    p = pressures[i]
    freed = scale * marked(p.fuel, p.beta)
    until = float(np.interp(end.moves[i], DISTANCES, freed))
    freed = np.minimum(freed, until)
    total = sum(end.absorbed_usd)
    shared = inverse(
        sum((q.survival * q.depth for q in pressures), np.zeros(POINTS)),
        freed / until * total if until > 0.0 else np.zeros(POINTS),
    )
    local = inverse(p.depth, psi * freed / p.survival)
    pushed = p.alpha * within_grid(shared) + (1.0 - p.alpha) * within_grid(local)
    return loss(freed, p.requote + pushed, maintenance, direction)


# ----------------------------------------------------------------------------------- collateral


class Depeg(Struct, frozen=True):
    """The map while a collateral is off its peg.

    Attributes:
        deviation: of the collateral, 0.02 for 2 %.
        at_once_usd: closed without any move of the price.
        at_risk_usd: closed within 5 % of the mark, those at once included.
        critical_distance: the critical move; None if there is none up to `reach`.
        reach: how far the shifted map is known.
    """

    deviation: float
    at_once_usd: float
    at_risk_usd: float
    critical_distance: float | None
    reach: float


def depegged(
    fuel: Floats, *, deviation: float, margin_share: float, leverage: float, cross: float = 1.0
) -> Floats:
    """A fuel curve while a collateral has lost `deviation` of its value (model.md A13.5).

    The cross-margined share of it moves by ``margin_share * deviation / leverage`` toward the
    mark. What would be closed at once is in the first step. Beyond the end of the grid nothing is
    known to move in: the curve stays flat there, a lower bound.

    Raises:
        ValueError: a share outside 0 to 1, or a leverage that is not positive.
    """
    if not (0 <= deviation <= 1 and 0 <= margin_share <= 1 and 0 <= cross <= 1 and leverage > 0):
        raise ValueError(f"deviation {deviation}, share {margin_share}, cross {cross}")
    nearer = np.interp(DISTANCES + margin_share * deviation / leverage, DISTANCES, fuel)
    moved = (1.0 - cross) * fuel + cross * nearer
    moved[0] = 0.0
    return moved


def depegs(
    depth: Floats,
    fuel: Floats,
    *,
    margin_share: float,
    leverage: float,
    cross: float = 1.0,
    survival: float,
    psi: float,
    scale: float = 1.0,
) -> list[Depeg]:
    """The map and the critical move for each of `DEPEGS`."""
    rows = []
    near = round(0.05 / STEP)
    for deviation in DEPEGS:
        shift = margin_share * deviation / leverage
        moved = depegged(
            fuel, deviation=deviation, margin_share=margin_share, leverage=leverage, cross=cross
        )
        folds = solve(
            depth, moved, survival=np.array([survival]), scale=np.array([scale]), psi=psi,
            window=0.0025,
        )  # fmt: skip
        critical = float(folds.critical_distance[0, 0])
        rows.append(
            Depeg(
                deviation=deviation,
                at_once_usd=_usd(scale * cross * float(np.interp(shift, DISTANCES, fuel))),
                at_risk_usd=_usd(scale * float(moved[near])),
                critical_distance=critical if critical >= 0.0 else None,
                reach=min(folds.reach, max(0.0, _GRID_END - shift)),
            )
        )
    return rows


def _usd(value: float) -> float:
    # To the cent, so that the last bits of exp reach nobody's digest.
    return round(value, 2)


def _ratio(value: float) -> float:
    return round(value, 12)
