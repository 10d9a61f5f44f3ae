"""Recorded hourly liquidations beside the labels and the maps, which are made without them.

They are of all exchanges, the maps of one: ranks can be compared, and the scale only as a ratio.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.backtest.heatmap import spearman
from monitor.backtest.history.files import Hours
from monitor.backtest.history.grading import DRAWS, interval
from monitor.backtest.history.inputs import Samples
from monitor.backtest.history.labels import RULES, returns
from monitor.backtest.history.map import MAPS, hours_of
from monitor.core.conditions import DIRECTIONS
from monitor.events import NS

Floats = NDArray[np.float64]

_HOUR: Final = 12
_HOUR_NS: Final = 3_600 * NS
_DAY_NS: Final = 86_400 * NS
_MONTH_NS: Final = 30 * _DAY_NS
_WEEK_HOURS: Final = 168
"""Fewer hours before do not say what is usual."""
_LEAST_HOURS: Final = 48


def liquidated(known: Hours | None, at: int, change: float) -> dict[str, float] | None:
    """USD of the losing side in the two hours the move lies in, and how rare the larger was."""
    if known is None:
        return None
    side = 0 if change < 0.0 else 1
    # The move begins at `at`, where the hour of the sample before may end.
    hour = int(hours_of(np.array(at + 1)))
    here = np.isin(known.at, (hour, hour + _HOUR_NS))
    rare = [r for h in (hour, hour + _HOUR_NS) if (r := _rarity(known, h, side)) is not None]
    return {"usd": float(known.usd[here, side].sum()), "quantile": max(rare)} if rare else None


def _rarity(known: Hours, hour: int, side: int) -> float | None:
    """Share of the hours of the month before with less liquidated; None where not known."""
    here = np.flatnonzero(known.at == hour)
    before = (known.at < hour) & (known.at >= hour - _MONTH_NS)
    if not len(here) or before.sum() < _WEEK_HOURS:
        return None
    return float((known.usd[before, side] < known.usd[here[0], side]).mean())


def confirmed(found: Sequence[Samples], known: Hours) -> dict[str, Any]:
    """How many onsets lie in an hour of unusual liquidations, the third part of A12's label."""
    out: dict[str, Any] = {}
    for name, rule in RULES.items():
        rare = [
            _rarity(known, int(hour), d)
            for s in found
            for d in range(len(DIRECTIONS))
            for hour in hours_of(s.at[s.onsets[name][:, d, 0] == 1.0])
        ]
        told = [r for r in rare if r is not None]
        out[name] = {
            "onsets": len(rare),
            "known": len(told),
            "confirmed": sum(r >= rule.quantile for r in told),
            "median_quantile": float(np.median(told)) if told else None,
        }
    return out


def against(found: Sequence[Samples], known: Hours, *, draws: int = DRAWS) -> dict[str, Any]:
    """How the maps' fuel in the way of the mark compares with what was liquidated, by hour.

    The scale is fitted on the first half of the hours and told for the second. Beside the maps
    stands the adverse way of the mark itself, which knows nothing of positions.
    """
    at, said = _by_hour(found)
    shared, ours, theirs = np.intersect1d(at, known.at, return_indices=True)
    out: dict[str, Any] = {"hours": len(shared), "sides": {}}
    if len(shared) < _LEAST_HOURS:
        out["refused"] = f"{len(shared)} hours in common, {_LEAST_HOURS} are the least"
        return out
    day, place = np.unique(shared // _DAY_NS, return_inverse=True)
    chance = np.random.Generator(np.random.PCG64(11))
    drawn = [np.arange(len(shared))]
    for _ in range(draws):
        picked = chance.integers(0, len(day), len(day))
        drawn.append(np.concatenate([np.flatnonzero(place == d) for d in picked]))
    half = len(shared) // 2
    for side, name in enumerate(("long", "short")):
        true = known.usd[theirs, side]
        models = {m: said[ours, k, side] for k, m in enumerate((*MAPS, "move"))}
        ranks = {
            m: np.array([spearman(true[d], values[d]) for d in drawn])
            for m, values in models.items()
        }
        scale = {
            m: float(true[:half].sum() / max(values[:half].sum(), 1e-9))
            for m, values in models.items()
        }
        out["sides"][name] = {
            "usd": float(true.sum()),
            "spearman": {m: interval(r) for m, r in ranks.items()},
            "map_less": {m: interval(ranks["map"] - ranks[m]) for m in (*MAPS[1:], "move")},
            "given_move": {
                m: interval(
                    np.array([_partial(true[d], models[m][d], models["move"][d]) for d in drawn])
                )
                for m in MAPS
            },
            "scale": {m: scale[m] for m in MAPS},
            "later": {
                m: float(scale[m] * models[m][half:].sum() / max(true[half:].sum(), 1e-9))
                for m in MAPS
            },
        }
    return out


def _partial(true: Floats, said: Floats, given: Floats) -> float:
    """Rank correlation of what the third leaves of the other two."""
    a, b, c = spearman(true, said), spearman(true, given), spearman(said, given)
    rest = (1.0 - b * b) * (1.0 - c * c)
    return (a - b * c) / rest**0.5 if rest > 0.0 else 0.0


def _by_hour(found: Sequence[Samples]) -> tuple[NDArray[np.int64], Floats]:
    """Whole hours, and sums by map and of the way of the mark, both sides, (n, maps + 1, 2)."""
    times, sums = [], []
    for s in found:
        skipped = len(s.stretch.at) - len(s.at)
        change = returns(s.stretch.price)[skipped:]
        way = np.column_stack((np.maximum(-change, 0.0), np.maximum(change, 0.0)))
        told = np.concatenate((s.fuel.swept, way[:, None]), axis=1)
        hour, place, count = np.unique(hours_of(s.at), return_inverse=True, return_counts=True)
        total = np.zeros((len(hour), *told.shape[1:]))
        np.add.at(total, place, told)
        whole = (count == _HOUR) & np.isfinite(total).all(axis=(1, 2))
        times.append(hour[whole])
        sums.append(total[whole])
    if not times:
        return np.empty(0, dtype=np.int64), np.empty((0, len(MAPS) + 1, len(DIRECTIONS)))
    return np.concatenate(times), np.concatenate(sums)
