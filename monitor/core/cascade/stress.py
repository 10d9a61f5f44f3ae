"""What-if: the path of one shock through an asset's venues, and who would have to pay for it."""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log
from statistics import median
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from monitor.core.cascade.coupling import ALPHA, Coupled, Pressure, couple
from monitor.core.cascade.curves import DISTANCES, POINTS, STEP, Floats
from monitor.core.cascade.impact import inverse, mark_pass_through
from monitor.core.cascade.insurance import Runway, VenueFund, loss, runway, within_grid
from monitor.core.cascade.loop import as_distance, as_ratio, checked, marked
from monitor.events import Direction, Side

DEPEGS: Final = (0.005, 0.02, 0.10, 0.35)
"""Deviations of a collateral for which it is said what they would close (model.md A13.5)."""

SETTLED: Final = 1e-4
"""Last rounds that together move the asset less than this log distance, a basis point, and close
less than `CLOSED` more, a share, are not told."""

CLOSED: Final = 1e-2
"""Share of what is closed in the end."""

NEARBY: Final = (0.9, 1.1)
"""Factors on a shock whose ends are told beside its own: near a fold they lie far apart."""

_WEIGHED: Final = round(0.01 / STEP)
_SMALLEST: Final = 1e-6


class VenueCurves(Struct, frozen=True):
    """What is known of one venue in the direction of the shock; None for what is not.

    `depth` and `fuel` are bids and longs for a fall, asks and shorts for a rise. `maintenance` is
    the maintenance margin as a share of notional at which positions there are closed. `name` is
    the venue's or ``venue:symbol``. `unheard` names the inputs that are not heard now, for which
    something else stands in these curves.
    """

    name: str
    mark: float | None
    depth: Floats | None
    fuel: Floats | None
    maintenance: float | None
    unheard: Sequence[str] = ()


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
    venue's book within it is used up (`beyond`); the amounts are lower bounds then, and those of
    the other venues hold as long as none of `unclosed_usd` is closed, of which arbitrage would
    bring them a part. That is what else stands on its map, as far as the grid reaches.
    `forced_flow_usd` is psi times what is liquidated, of which arbitrage takes a share to the other
    books. `shortfall_usd` is None while the maintenance margin is unknown.
    """

    name: str
    mark: float
    landing_price: float | None
    landing_ratio: float | None
    liquidated_usd: float
    unclosed_usd: float
    forced_flow_usd: float
    shortfall_usd: float | None
    beyond: bool


class Nearby(Struct, frozen=True, gc=False):
    """Where a slightly other shock ends; `landing_ratio` is None with `beyond`, as in `Stress`."""

    shock_ratio: float
    landing_ratio: float | None
    liquidated_usd: float
    beyond: bool


class Missing(Struct, frozen=True):
    """A venue the answer does not contain, and what is not known of it."""

    name: str
    unknown: list[str]


class Held(Struct, frozen=True):
    """A venue the answer counts, and what of it is not heard now, so that something stands in."""

    name: str
    unheard: list[str]


class Stress(Struct, frozen=True):
    """The answer to one what-if.

    Attributes:
        shock_ratio: the move of all books that starts it, signed.
        side: the positions it closes.
        mark: median of the venues' marks; None if no venue is known.
        landing_price, landing_ratio: where it ends, weighed by depth; None with `beyond`, or when
            no venue is known.
        seen_price, seen_ratio: the same of the venues that are not beyond; None if there are none.
        amplification: log distance of the end over that of the shock, None with `beyond` likewise.
        liquidated_usd: closed by force on all venues; None if no venue is known.
        shortfall_usd: what insurance funds lose; None if unknown for a venue.
        beyond: some venue's price leaves the grid, or its book is used up: sums are lower bounds.
        path: round by round, the shock alone first, no farther than the grid reaches; without
            the last rounds where they add nothing.
        funds: who would have to pay for it, by venue.
        missing: venues left out, which are not counted as 0.
        unheard: venues counted although their book or mark is not heard now.
        survival: share of displayed depth that survives.
        psi: forced flow per forced dollar.
        psi_capped: the estimate of it is as large as one may be, more than forced closes plausibly
            draw with them: what is said is an upper bound.
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
    seen_price: float | None
    seen_ratio: float | None
    amplification: float | None
    liquidated_usd: float | None
    shortfall_usd: float | None
    beyond: bool
    nearby: list[Nearby]
    path: list[Step]
    venues: list[VenueStress]
    funds: list[Runway]
    missing: list[Missing]
    unheard: list[Held]
    survival: float
    psi: float
    psi_capped: bool
    beta: float
    within_s: float | None
    spot_share: float | None


def stress(
    shock: float,
    venues: Sequence[VenueCurves],
    *,
    survival: float,
    psi: float,
    psi_capped: bool = False,
    scale: float = 1.0,
    within_s: float | None = None,
    spot_share: float | None = None,
    alphas: Mapping[str, float] | None = None,
    funds: Mapping[str, VenueFund] | None = None,
    unlisted: Sequence[str] = (),
) -> Stress:
    """How a move of all books by `shock`, a signed ratio, goes on; positive squeezes shorts.

    Args:
        shock: -0.03 for a fall by 3 %.
        venues: their curves in the direction of the shock.
        survival: share of displayed depth that survives.
        psi: forced flow per forced dollar.
        psi_capped: whether it stands at its cap, which is passed on.
        scale: factor on the map.
        within_s: how soon after the shock its end is asked for; None: when the mark has followed
            the price entirely, which takes two and a half minutes.
        spot_share: share of the shock that spot makes as well, which is in the mark at once. Only
            asked with `within_s`; unknown counts as all of it.
        alphas: share of a displacement that is arbitraged away, by name; `ALPHA` elsewhere.
        funds: insurance funds by venue.
        unlisted: names of those that are followed and whose venue has not listed them.

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
    missing += [Missing(name, ["specification"]) for name in unlisted]
    side: Side = "long" if shock < 0.0 else "short"
    if not known:
        return Stress(
            shock, side, None, None, None, None, None, None, None, None, beyond=False, nearby=[],
            path=[], venues=[], funds=[], missing=missing, unheard=[], survival=survival, psi=psi,
            psi_capped=psi_capped, beta=beta, within_s=within_s, spot_share=spot_share,
        )  # fmt: skip
    pressures = [p for _, _, p in known]
    end = couple(pressures, psi=psi, scale=scale)
    lost = [
        _lost(i, pressures, end, v.maintenance, psi=psi, scale=scale, direction=direction)
        for i, (v, _, _) in enumerate(known)
    ]
    rows = [
        _venue(
            v.name,
            mark,
            end,
            i,
            lost=lost[i],
            direction=direction,
            there=scale * float(p.fuel[-1]),
        )
        for i, (v, mark, p) in enumerate(known)
    ]
    mark = median(mark for _, mark, _ in known)
    path = _path(pressures, end, mark, psi=psi, scale=scale, direction=direction)
    beyond = any(end.beyond)
    seen = _seen(pressures, end, direction)
    total = [x for x in lost if x is not None]
    return Stress(
        shock_ratio=shock,
        side=side,
        mark=mark,
        landing_price=None if beyond else path[-1].price,
        landing_ratio=None if beyond else path[-1].move_ratio,
        seen_price=None if seen is None else mark * (1.0 + seen),
        seen_ratio=None if seen is None else _ratio(seen),
        amplification=None if beyond else _ratio(_mean(pressures, end.moves) / start),
        liquidated_usd=_usd(sum(end.liquidated_usd)),
        shortfall_usd=_usd(sum(total)) if len(total) == len(lost) else None,
        beyond=beyond,
        nearby=[
            _nearby(pressures, start * factor, psi=psi, scale=scale, direction=direction)
            for factor in NEARBY
        ],
        path=path,
        venues=rows,
        funds=_runways(rows, missing, funds or {}),
        missing=missing,
        unheard=[Held(v.name, list(v.unheard)) for v, _, _ in known if v.unheard],
        survival=survival,
        psi=psi,
        psi_capped=psi_capped,
        beta=beta,
        within_s=within_s,
        spot_share=spot_share,
    )


def _nearby(
    pressures: list[Pressure], start: float, *, psi: float, scale: float, direction: Direction
) -> Nearby:
    end = couple([replace(p, requote=start) for p in pressures], psi=psi, scale=scale)
    beyond = any(end.beyond)
    landing = _signed(_mean(pressures, end.moves), direction)
    return Nearby(
        shock_ratio=_ratio(_signed(start, direction)),
        landing_ratio=None if beyond else _ratio(landing),
        liquidated_usd=_usd(sum(end.liquidated_usd)),
        beyond=beyond,
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
    name: str,
    mark: float,
    end: Coupled,
    i: int,
    *,
    lost: float | None,
    direction: Direction,
    there: float,
) -> VenueStress:
    beyond, sign = end.beyond[i], -1.0 if direction == "down" else 1.0
    return VenueStress(
        name=name,
        mark=mark,
        landing_price=None if beyond else mark * exp(sign * end.moves[i]),
        landing_ratio=None if beyond else _ratio(_signed(end.moves[i], direction)),
        liquidated_usd=_usd(end.liquidated_usd[i]),
        unclosed_usd=_usd(max(there - end.liquidated_usd[i], 0.0)),
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
        ratio = _ratio(_signed(distance, direction))
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
            <= CLOSED * steps[last].liquidated_usd
        )
    )
    return [*steps[:told], steps[last]]


def _seen(pressures: list[Pressure], end: Coupled, direction: Direction) -> float | None:
    """Where the venues end up that are not beyond, a signed ratio; None if all are."""
    seen = [(p, m) for p, m, gone in zip(pressures, end.moves, end.beyond, strict=True) if not gone]
    if not seen:
        return None
    distance = _mean([p for p, _ in seen], [m for _, m in seen])
    return _signed(distance, direction)


def _signed(distance: float, direction: Direction) -> float:
    """A log distance as a ratio of the mark, below zero for a fall."""
    return (-1.0 if direction == "down" else 1.0) * as_ratio(distance, direction)


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


def _usd(value: float) -> float:
    # To the cent, so that the last bits of exp reach nobody's digest.
    return round(value, 2)


def _ratio(value: float) -> float:
    return round(value, 12)
