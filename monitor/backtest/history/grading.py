"""Walk-forward fits on recorded samples, and their figures (model.md C2).

Every `REFIT_S` each model is fitted anew on everything before, and says the probabilities of the
time until the next fit. A sample teaches only once its horizon and the reading of open interest
after it are over (the embargo). Intervals are 90 %, a bootstrap over UTC days of all assets.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.backtest.fitting import LEAST_POSITIVES, TooFewPositivesError, logistic_fit
from monitor.backtest.history.files import SAMPLE_S
from monitor.backtest.history.inputs import COLUMNS, Samples
from monitor.backtest.history.labels import AHEAD
from monitor.backtest.metrics import (
    Series,
    best_alarms,
    losses,
    molchan,
    reliability,
)
from monitor.events import HORIZONS_S, NS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DRAWS: Final = 400
REFIT_S: Final = 7 * 86_400
FIRST_S: Final = 14 * 86_400
"""Time from the first sample to the first fit."""
LEAST_ONSETS: Final = 10
"""Rows before one onset are no independent witnesses: `fitting.LEAST_POSITIVES` of them may be
three cascades. A judgement."""
RIDGE: Final = 10.0
FALSE_PER_DAY: Final = (1.0, 10.0)

CLIMATOLOGY: Final = "base rate"
BASELINE: Final = "no map"
_VOLATILITY: Final = ("passage", "sigma_fast", "sigma_slow")
_NO_MAP: Final = (*_VOLATILITY, "interest", "funding")
PATH: Final = "price path"
_PATH: Final = (*_NO_MAP, "quarter", "hour", "extreme")
MODELS: Final = {
    "volatility": _VOLATILITY,
    "open interest z": ("interest",),
    "funding z": ("funding",),
    "persistence": ("recent",),
    BASELINE: _NO_MAP,
    PATH: _PATH,
    "public recipe": (*_NO_MAP, "fuel recipe", "near recipe"),
    "blind map": (*_NO_MAP, "fuel blind", "near blind"),
    "map": (*_NO_MAP, "fuel map", "near map"),
    "map and path": (*_PATH, "fuel map", "near map"),
}
"""Inputs of each. `BASELINE` is B5 without depth and prints, which nobody recorded; `PATH` is it
with where the price came from, of which a map knows."""
PAIRS: Final = (
    ("map", "public recipe"),
    ("map", "blind map"),
    ("map", PATH),
    ("map and path", PATH),
)
"""Compared beside each model with `BASELINE`."""
FIGURES: Final = ("pr_auc", "lift", "brier_skill", "log_skill")

_ANY_SIGN: Final = ("interest", "funding", "quarter", "hour", "extreme")
"""All others may only raise a probability when they rise."""
_MINUTES: Final = SAMPLE_S // 60


class Rows(Struct, frozen=True):
    """All samples under one label in one table, assets and directions below one another.

    Attributes:
        at: time (ns), shape (n,).
        x: shape (n, horizons, `COLUMNS`).
        y: shape (n, horizons).
        onset: whether the sample is an onset, shape (n,).
        piece: number of the stretch and direction, shape (n,); increasing.
    """

    at: NDArray[np.int64]
    x: Floats
    y: Floats
    onset: Flags
    piece: NDArray[np.int64]


class Walk(Struct, frozen=True):
    """What was said.

    Attributes:
        p: by model, shape (n, horizons); NaN where nothing was said.
        weeks: times (ns) of the fits.
        refused: by horizon, why there was no fit, for each time that there was none.
        weights: by horizon and model, of the last fit, per standard deviation.
    """

    p: dict[str, Floats]
    weeks: list[int]
    refused: list[dict[int, str]]
    weights: list[dict[str, dict[str, float]]]


def rows(found: Sequence[Samples], label: str) -> Rows:
    """The table of a label."""
    parts = [(s, d) for s in found for d in (0, 1)]
    return Rows(
        at=np.concatenate([s.at for s, _ in parts]),
        x=np.concatenate([s.x[label][:, d] for s, d in parts]),
        y=np.concatenate([s.y[label][:, d] for s, d in parts]),
        onset=np.concatenate([s.onsets[label][:, d, 0] == 1.0 for s, d in parts]),
        piece=np.concatenate([np.full(len(s.at), i) for i, (s, _) in enumerate(parts)]),
    )


def walked(table: Rows) -> Walk:
    """Probabilities of every model, each from what had been before."""
    p = {name: np.full(table.y.shape, np.nan) for name in (*MODELS, CLIMATOLOGY)}
    first, last = int(table.at.min()) + FIRST_S * NS, int(table.at.max())
    weeks = [w for w in range(first, last + 1, REFIT_S * NS) if _within(table.at, w).any()]
    refused: list[dict[int, str]] = [{} for _ in AHEAD]
    weights: list[dict[str, dict[str, float]]] = [{} for _ in AHEAD]
    for week in weeks:
        said = _within(table.at, week)
        for h, samples in enumerate(AHEAD):
            over = table.at + (samples + 1) * SAMPLE_S * NS <= week
            learnt = over & np.isfinite(table.y[:, h])
            y = table.y[learnt, h]
            count = int(table.onset[over].sum())
            try:
                if count < LEAST_ONSETS:
                    raise TooFewPositivesError(  # noqa: TRY301 (the fits below raise it too)
                        f"{count} onsets before, {LEAST_ONSETS} are the least"
                    )
                for name, inputs in MODELS.items():
                    columns = [COLUMNS.index(c) for c in inputs]
                    x = table.x[:, h][:, columns]
                    p[name][said, h], weights[h][name] = _said(x[learnt], y, x[said], inputs)
            except TooFewPositivesError as error:
                refused[h][week] = str(error)
                continue
            p[CLIMATOLOGY][said, h] = (y.sum() + 0.5) / (len(y) + 1.0)
    return Walk(p, weeks, refused, weights)


def _within(at: NDArray[np.int64], week: int) -> Flags:
    return (at >= week) & (at < week + REFIT_S * NS)


def _said(
    x: Floats, y: Floats, ahead: Floats, inputs: Sequence[str]
) -> tuple[Floats, dict[str, float]]:
    """Probabilities for `ahead` by a fit on `x` and `y`, scaled by what was learnt from alone."""
    known = np.isfinite(x)
    some = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / some
    spread = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(axis=0) / some)
    scale = np.where(spread > 1e-9, spread, 1.0)

    def standard(values: Floats) -> Floats:
        kept: Floats = np.where(np.isfinite(values), (values - mean) / scale, 0.0)
        return kept

    low = np.array([-np.inf if name in _ANY_SIGN else 0.0 for name in inputs])
    w = logistic_fit(standard(x), y, ridge=RIDGE, low=low)
    odds = w[0] + standard(ahead) @ w[1:]
    return 1.0 / (1.0 + np.exp(-odds)), dict(zip(inputs, w[1:].tolist(), strict=True))


# ---------------------------------------------------------------------------------- figures


def graded(table: Rows, walk: Walk, *, draws: int = DRAWS) -> dict[str, Any]:
    """Figures by horizon; of a horizon for which nothing was said, why."""
    out: dict[str, Any] = {}
    for h, horizon in enumerate(HORIZONS_S):
        said = np.isfinite(walk.p[BASELINE][:, h])
        known = said & np.isfinite(table.y[:, h])
        caught = int(table.onset[said].sum())
        figures: dict[str, Any] = {
            "fits": len(walk.weeks) - len(walk.refused[h]),
            "refused": {_date(week): why for week, why in walk.refused[h].items()},
            "rows": int(known.sum()),
            "events": int(table.y[known, h].sum()),
            "onsets": caught,
            "onset_days": len(set((table.at[said & table.onset] // (86_400 * NS)).tolist())),
            "weights": walk.weights[h],
        }
        if figures["events"] >= LEAST_POSITIVES and caught >= LEAST_ONSETS:
            figures |= _figures(table, walk, h, known, draws)
            figures |= _alarmed(table, walk, h, horizon // 60)
        else:
            figures["ungraded"] = f"{caught} onsets where something was said: nothing to grade by"
        out[str(horizon)] = figures
    return out


def _date(at: int) -> str:
    return str(np.datetime64(at // NS, "s"))[:10]


def _figures(table: Rows, walk: Walk, h: int, known: Flags, draws: int) -> dict[str, Any]:
    y = table.y[known, h]
    day, place = np.unique(table.at[known] // (86_400 * NS), return_inverse=True)
    chance = np.random.Generator(np.random.PCG64(11))
    picks = [chance.integers(0, len(day), len(day)) for _ in range(draws)]
    weight = np.array([np.ones(len(day)), *(np.bincount(p, minlength=len(day)) for p in picks)])
    names = [*MODELS, CLIMATOLOGY]
    models = {name: walk.p[name][known, h] for name in names}
    usual = [weight @ np.bincount(place, lost) for lost in losses(y, models[CLIMATOLOGY])]
    base = (weight @ np.bincount(place, y)) / (weight @ np.bincount(place))
    drawn = {}
    for name, p in models.items():
        area = block_precisions(y, p, place, weight)
        square, surprise = (weight @ np.bincount(place, lost) for lost in losses(y, p))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[name] = {
                "pr_auc": area,
                "lift": area / base,
                "brier_skill": 1.0 - square / usual[0],
                "log_skill": 1.0 - surprise / usual[1],
            }
    rival = drawn[BASELINE]
    return {
        "base": float(y.mean()),
        "days": len(day),
        "models": {n: {k: interval(v) for k, v in scores.items()} for n, scores in drawn.items()},
        "less_no_map": {
            name: {k: interval(scores[k] - rival[k]) for k in FIGURES}
            for name, scores in drawn.items()
            if name != BASELINE
        },
        "pairs": {
            f"{one} less {other}": {k: interval(drawn[one][k] - drawn[other][k]) for k in FIGURES}
            for one, other in PAIRS
        },
        "reliability": {
            name: msgspec.to_builtins(reliability(y, models[name])) for name in ("map", BASELINE)
        },
    }


def block_precisions(y: Floats, p: Floats, block: NDArray[np.int64], weight: Floats) -> Floats:
    """`metrics.average_precisions` where whole blocks are drawn, without a weight for each row.

    Only thresholds at which an event is won add to the area, so counts by block above those do.

    Args:
        y: 0 or 1, shape (n,).
        p: probabilities, shape (n,).
        block: number of each row's block, from 0, shape (n,).
        weight: how often each block was drawn, shape (draws, blocks).

    Returns:
        The area of each draw, shape (draws,); NaN without an event.
    """
    levels = np.unique(p[y == 1.0])[::-1]
    shown, hits = np.zeros((2, weight.shape[1], len(levels)))
    for b in range(weight.shape[1]):
        here = block == b
        for counted, values in ((shown[b], p[here]), (hits[b], p[here & (y == 1.0)])):
            counted[:] = len(values) - np.searchsorted(np.sort(values), levels, side="left")
    above, won = weight @ shown, weight @ hits
    gained = np.diff(won, axis=1, prepend=0.0)
    area = (won / np.maximum(above, 1e-300) * gained).sum(axis=1)
    total = gained.sum(axis=1)
    found: Floats = np.where(total > 0.0, area / np.maximum(total, 1e-300), np.nan)
    return found


def interval(values: Floats) -> dict[str, float]:
    """The figure, and 90 % of its draws."""
    low, high = np.nanquantile(values[1:], [0.05, 0.95])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _alarmed(table: Rows, walk: Walk, h: int, minutes: int) -> dict[str, Any]:
    """Alarms, counted in minutes: what a sample said stands until the next."""
    out: dict[str, Any] = {"alarms": {}, "molchan": {}}
    said = np.isfinite(walk.p[BASELINE][:, h])
    pieces = [np.flatnonzero(said & (table.piece == i)) for i in np.unique(table.piece)]
    for name in MODELS:
        p = walk.p[name][:, h]
        rows_of = [
            Series(p[i], table.y[i, h], [j for j in np.flatnonzero(table.onset[i]).tolist() if j])
            for i in pieces
            if len(i)
        ]
        out["molchan"][name] = molchan(rows_of, horizon_min=AHEAD[h])
        series = [
            Series(
                np.repeat(s.p, _MINUTES),
                np.repeat(s.y, _MINUTES),
                [j * _MINUTES for j in s.onsets],
            )
            for s in rows_of
        ]
        days = sum(float(np.isfinite(s.y).sum()) for s in series) / 2.0 / 1_440.0
        out["asset_days"] = days
        found = {}
        for limit in FALSE_PER_DAY:
            best = best_alarms(series, false_per_day=limit, horizon_min=minutes, days=days)
            leads = [lead for lead in best.leads_min if lead > 0]
            found[f"{limit:g}"] = {
                "threshold": best.threshold,
                "recall": best.recall,
                "onsets": best.onsets,
                "false_per_day": best.false_per_day,
                "median_lead_min": float(np.median(leads)) if leads else None,
                "median_lead_min_all": float(np.median(best.leads_min)),
            }
        out["alarms"][name] = found
    return out
