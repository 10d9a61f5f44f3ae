"""What the forecast is worth on simulated runs it was not fitted on (model.md C2).

    cascade-monitor backtest skill --train 200-215 --seeds 300-319 --runs DIR --out DIR

Every model is fitted on the training seeds by the same logistic regression with the same bounds
and calibration (`fit`) and graded on the others: ours, B1 to B5 without a map, and B6 to B8 with
another map through the same solver. B0 says the training base rate. Both directions are pooled.
Intervals are 90 %, a bootstrap over seeds: the minutes of a run, and the two markets of a seed,
are one draw. Beside it the named scenarios run through the whole engine with its phases (`stages`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.backtest import stages
from monitor.backtest.command import Command, progress, seeds
from monitor.backtest.fit import (
    KINDS,
    OURS,
    WARM_MIN,
    gathered,
    options_of_runs,
    table,
    variant,
)
from monitor.backtest.fitting import base_rates, said
from monitor.backtest.markdown import figure, head, reliability_table
from monitor.backtest.metrics import (
    Series,
    average_precisions,
    best_alarms,
    losses,
    molchan,
    reliability,
)
from monitor.backtest.runs import Run
from monitor.events import HORIZONS_S

Floats = NDArray[np.float64]

DRAWS: Final = 400
CLIMATOLOGY: Final = "B0 base rate"
FALSE_PER_DAY: Final = (1.0, 10.0)
COLUMNS: Final = (
    "model",
    "PR-AUC",
    "lift",
    "Brier skill",
    "log skill",
    "ours less it (PR-AUC)",
    "Molchan",
    "recall at 1/day",
    "at 10/day",
    "median lead, min",
)
STAGED: Final = (
    "scenario",
    "runs",
    "with a burst",
    "watch before",
    "warning before",
    "critical before",
    "median lead of warning, s",
    "cascading during",
    "exhausted after",
    "watch raised",
    "warning raised",
    "other side: watch",
    "other side: warning",
    "quality alert",
    "lowered by the outage",
)
FIGURES: Final = ("pr_auc", "lift", "brier_skill", "log_skill")


class OverlapError(Exception):
    """Some seeds are to fit and to grade."""


def report(train: Sequence[Run], test: Sequence[Run], *, draws: int = DRAWS) -> dict[str, Any]:
    """All figures of the models, by market and pooled.

    Raises:
        TooFewPositivesError: the training runs have too few events for a fit.
    """
    _, y_train = table(train, OURS)
    base = np.array(base_rates(y_train))
    models = {kind.name: variant(train, kind) for kind in KINDS}
    p: dict[str, Floats] = {}
    for kind in KINDS:
        x, _ = table(test, kind)
        p[kind.name] = said(models[kind.name], x)
    _, y = table(test, OURS)
    p[CLIMATOLOGY] = np.tile(base, (len(y), 1))
    return {
        "train": _counted(train),
        "test": _counted(test),
        "all": graded(test, y, p, draws=draws),
        "by_market": {
            name: graded(
                [run for run in test if run.variant == name],
                y[_rows_of(test, name)],
                {model: values[_rows_of(test, name)] for model, values in p.items()},
                draws=draws,
            )
            for name in sorted({run.variant for run in test})
        },
        "weights": {
            name: msgspec.to_builtins(models[name].weights) for name in (OURS.name, "B5 no map")
        },
    }


def _counted(found: Sequence[Run]) -> dict[str, Any]:
    y = np.concatenate([run.labels[WARM_MIN:] for run in found])
    causal = [run.onsets for run in found]
    public = [run.public() for run in found]
    both = sum(int((_near(c) & (q == 1.0)).sum()) for c, q in zip(causal, public, strict=True))
    return {
        "runs": len(found),
        "seeds": sorted({run.seed for run in found}),
        "minutes": len(found[0].x),
        "runs_with_onset": sum(bool(c.any()) for c in causal),
        "onsets": [int(sum(c[:, d].sum() for c in causal)) for d in (0, 1)],
        "rows": np.isfinite(y).sum(axis=(0, 1)).tolist(),
        "events": np.nansum(y, axis=(0, 1)).astype(int).tolist(),
        "public_onsets": [int(sum(np.nansum(q[:, d]) for q in public)) for d in (0, 1)],
        "public_near_causal": both,
    }


def _near(onset: NDArray[np.bool_], minutes: int = 5) -> NDArray[np.bool_]:
    found = onset.copy()
    for i, d in zip(*np.nonzero(onset), strict=True):
        found[max(0, i - minutes) : i + minutes + 1, d] = True
    return found


def _rows_of(found: Sequence[Run], market: str) -> NDArray[np.bool_]:
    each = [2 * (len(run.x) - WARM_MIN) for run in found]
    return np.repeat([run.variant == market for run in found], each)


# ---------------------------------------------------------------------------------- grading


def graded(found: Sequence[Run], y: Floats, p: dict[str, Floats], *, draws: int) -> dict[str, Any]:
    """Figures of every model over each horizon; rows as `fit.table` gives them."""
    each = [2 * (len(run.x) - WARM_MIN) for run in found]
    block = np.repeat([run.seed for run in found], each)
    out: dict[str, Any] = {}
    for h, horizon in enumerate(HORIZONS_S):
        known = np.isfinite(y[:, h])
        models = {name: values[known, h] for name, values in p.items()}
        figures = _figures(y[known, h], models, block[known], draws)
        for name in models:
            series = _series(found, y[:, h], p[name][:, h])
            days = sum(float(np.isfinite(s.y).sum()) for s in series) / 2.0 / 1440.0
            minutes = horizon // 60
            if name != CLIMATOLOGY:
                figures["models"][name]["alarms"] = {
                    f"{limit:g}": _alarmed(series, limit, minutes, days) for limit in FALSE_PER_DAY
                }
                figures["models"][name]["molchan"] = molchan(series, horizon_min=minutes)
            figures["days"] = days
        figures["reliability"] = {
            name: msgspec.to_builtins(reliability(y[known, h], models[name]))
            for name in (OURS.name, "B5 no map")
        }
        out[str(horizon)] = figures
    return out


def _alarmed(series: Sequence[Series], limit: float, minutes: int, days: float) -> dict[str, Any]:
    best = best_alarms(series, false_per_day=limit, horizon_min=minutes, days=days)
    caught = [lead for lead in best.leads_min if lead > 0]
    return {
        "threshold": best.threshold,
        "recall": best.recall,
        "onsets": best.onsets,
        "false": best.false,
        "false_per_day": best.false_per_day,
        "median_lead_min": float(np.median(caught)) if caught else None,
        "median_lead_min_all": float(np.median(best.leads_min)) if best.leads_min else None,
    }


def _series(found: Sequence[Run], y: Floats, p: Floats) -> list[Series]:
    series = []
    start = 0
    for run in found:
        n = len(run.x) - WARM_MIN
        onset = run.onsets[WARM_MIN:]
        for d in (0, 1):
            own = slice(start + d, start + 2 * n, 2)
            # Only what could be forecast: the horizon of the last minutes is not over.
            told = np.flatnonzero(np.isfinite(y[own]))
            last = int(told[-1]) + 1 if len(told) else 0
            onsets = [i for i in np.flatnonzero(onset[:, d]).tolist() if 0 < i <= last]
            series.append(Series(p[own][:last], y[own][:last], onsets))
        start += 2 * n
    return series


def _figures(
    y: Floats, models: dict[str, Floats], block: NDArray[np.int64], draws: int
) -> dict[str, Any]:
    names = sorted(set(block.tolist()))
    chance = np.random.Generator(np.random.PCG64(11))
    place = np.searchsorted(names, block)
    weights = np.ones((1 + draws, len(y)))
    for draw in weights[1:]:
        picked = chance.integers(0, len(names), len(names))
        draw[:] = np.bincount(picked, minlength=len(names))[place]
    usual = [weights @ lost for lost in losses(y, models[CLIMATOLOGY])]
    base = (weights @ y) / weights.sum(axis=1)
    drawn = {name: _scores(y, p, weights, base, usual) for name, p in models.items()}
    out: dict[str, Any] = {
        "rows": len(y),
        "events": int(y.sum()),
        "base": float(y.mean()) if len(y) else None,
        "models": {},
        "ours_less": {},
    }
    for name, scores in drawn.items():
        out["models"][name] = {k: _interval(scores[k]) for k in FIGURES}
        if name != OURS.name:
            ours = drawn[OURS.name]
            out["ours_less"][name] = {k: _interval(ours[k] - scores[k]) for k in FIGURES}
    return out


def _scores(
    y: Floats, p: Floats, weights: Floats, base: Floats, usual: list[Floats]
) -> dict[str, Floats]:
    """`FIGURES` of one model, the figure first and then its draws."""
    area = average_precisions(y, p, weights)
    square, surprise = (weights @ lost for lost in losses(y, p))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "pr_auc": area,
            "lift": area / base,
            "brier_skill": 1.0 - square / usual[0],
            "log_skill": 1.0 - surprise / usual[1],
        }


def _interval(values: Floats) -> dict[str, float]:
    """The figure, and 90 % of its draws."""
    low, high = np.nanquantile(values[1:], [0.05, 0.95])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


# ------------------------------------------------------------------------------------ tables


def tables(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines: list[str] = []
    for title, part in (("Both markets", result["all"]), *_markets(result)):
        for horizon, figures in part.items():
            lines += _table(title, int(horizon) // 60, figures)
    for horizon, figures in result["all"].items():
        title = f"Reliability, {int(horizon) // 60} min"
        lines += reliability_table(title, figures["reliability"], 3)
    if "stages" in result:
        lines += _staged(result["stages"])
    return "\n".join(lines) + "\n"


def _markets(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"Market `{name}`", part) for name, part in result["by_market"].items()]


def _table(title: str, minutes: int, figures: dict[str, Any]) -> list[str]:
    about = f"{title}, {minutes} min: {figures['events']} of {figures['rows']} minutes"
    lines = head(about, COLUMNS)
    for name, m in figures["models"].items():
        less = figures["ours_less"].get(name)
        alarms = m.get("alarms")
        few, many = (alarms["1"], alarms["10"]) if alarms else (None, None)
        cells = [
            name,
            figure(m["pr_auc"]),
            f"{m['lift']['value']:.1f}",
            figure(m["brier_skill"]),
            figure(m["log_skill"]),
            figure(less["pr_auc"]) if less else "",
            f"{m['molchan']:.2f}" if "molchan" in m else "",
            f"{few['recall']:.2f}" if few else "",
            f"{many['recall']:.2f}" if many else "",
            f"{many['median_lead_min']:.0f}" if many and many["median_lead_min"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _staged(found: dict[str, Any]) -> list[str]:
    lines = head("Scenarios", STAGED)
    for name, s in found.items():
        cells = [
            name,
            str(s["runs"]),
            str(s["bursts"]),
            *(_percent(s["before"][level]) for level in stages.LEVELS),
            "" if s["median_lead_s"]["warning"] is None else f"{s['median_lead_s']['warning']:.0f}",
            _percent(s["cascading_during"]),
            _percent(s["exhausted_after"]),
            _percent(s["raised"]["watch"]),
            _percent(s["raised"]["warning"]),
            _percent(s["raised_other_side"]["watch"]),
            _percent(s["raised_other_side"]["warning"]),
            _percent(s["quality_alert"]),
            _percent(s["lowered_in_outage"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


# ---------------------------------------------------------------------------- command line


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train", type=seeds, default="200-215", metavar="A-B", help="seeds that fit the models"
    )
    parser.add_argument(
        "--seeds", type=seeds, default="300-319", metavar="A-B", help="seeds that grade them"
    )
    options_of_runs(parser)
    parser.add_argument("--out", type=Path, default=Path("skill-report"), metavar="DIR")


def _run(options: argparse.Namespace) -> None:
    both = set(options.train) & set(options.seeds)
    if both:
        raise OverlapError(f"seeds {sorted(both)} are to fit and to grade: choose others")
    options.out.mkdir(parents=True, exist_ok=True)
    train = gathered(options, options.train, "training markets")
    test = gathered(options, options.seeds, "markets graded")
    result = report(train, test)
    with progress("scenarios", len(stages.NAMES) * len(options.seeds)) as done:
        result["stages"] = stages.summary(stages.table(options.seeds, progress=done))
    body = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (options.out / "skill.json").write_bytes(body)
    text = tables(result)
    (options.out / "skill.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{text}{options.out / 'skill.json'}\n")


COMMAND: Final = Command("skill", "grade the forecast on simulated runs", _arguments, _run)
