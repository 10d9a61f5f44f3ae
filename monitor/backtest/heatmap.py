"""How well the liquidation map says what the simulator knows (model.md C2), beside baselines.

    cascade-monitor backtest heatmap --seeds 100-119 --out DIR

Metrics, per asset map over all venues, on the published buckets within 8 % of the mark:

- ``wasserstein``: Wasserstein-1 of the normalised shapes, % of price, mean of both sides;
- ``spearman``: rank correlation over buckets, mean of both sides;
- ``top_decile``: share of the true mass in the tenth of buckets called largest (chance 0.1);
- ``information``: of the dollars force-closed in the following quarter of an hour, the mean
  log ratio of the map's density to the uniform one, within the distances that the mark reached;
- ``mass_ratio``: estimated over true USD, sums over all moments; ``mass_factor``: by how much
  one map's level is typically off, exp of the median absolute log ratio;
- ``covered``: share of buckets whose truth lies in the 80 % interval (ours only).

Truth is the positions that a price liquidates; those with a stop order before that are left out,
because they never print (their share is reported). All intervals are bootstraps over seeds: the
moments of one run are one draw.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.backtest.command import Command, progress, seeds
from monitor.backtest.page import page
from monitor.backtest.tape import FIRST_S, PRINTS, Tape, Truth, hear, record
from monitor.core.heatmap.calibration import DEFAULT_PRIOR, Prior, ThrottleCorrection, Weights
from monitor.core.heatmap.grid import STEP
from monitor.core.heatmap.map import Map, Parameters
from monitor.core.heatmap.margin import MarginTable, distances
from monitor.core.heatmap.pooling import BUCKET, Estimate, pooled, published
from monitor.core.heatmap.priors import SIMULATED
from monitor.events import NS, Heatmap
from monitor.sim.parameters import Variant

Floats = NDArray[np.float64]
Density = Callable[[Floats], Floats]

REACH: Final = 0.08
WIDTH: Final = BUCKET * STEP
AFTER_NS: Final = 900 * NS
REACHED: Final = 0.0025
"""Sweeps shorter than this say nothing about where on the map prints lie (C2)."""
RECIPE: Final = {10.0: 0.35, 25.0: 0.30, 50.0: 0.20, 100.0: 0.15}
"""Leverage shares of the common public recipe."""
FLOOR: Final = 0.02
"""Share of the uniform density mixed into every model before taking logarithms."""


class Moment(msgspec.Struct):
    """One graded moment: bucket distances and USD per bucket, truth and every model, by side."""

    seed: int
    variant: str
    edges: list[Floats]
    truth: list[Floats]
    stopped: float
    models: dict[str, list[Floats]]
    low: list[Floats]
    high: list[Floats]
    scale: tuple[float, float]
    closed: list[Floats]
    reached: list[float]


def play(
    tape: Tape, *, prior: Prior, parameters: Parameters, pool: bool = True
) -> tuple[list[Map], list[list[Estimate]]]:
    """All venues' maps after the tape, and their estimates at every graded moment."""
    correction = ThrottleCorrection()
    shared = Weights(prior) if pool else None
    maps = [
        Map(i, prior=prior, parameters=parameters, correction=correction, pool=shared)
        for i in tape.instruments
    ]
    for m, candles, interests in zip(maps, tape.candles, tape.interests, strict=True):
        m.history(candles, interests)
    due = [t.at for t in tape.truths]
    graded: list[list[Estimate]] = []
    kinds = [PRINTS[i.venue] for i in tape.instruments]
    for second in tape.seconds:
        if len(graded) < len(due) and second.at > due[len(graded)]:
            graded.append(_estimates(maps, due[len(graded)]))
        hear(maps[second.venue], second, kinds[second.venue])
    while len(graded) < len(due):
        graded.append(_estimates(maps, due[len(graded)]))
    return maps, graded


def _estimates(maps: Sequence[Map], at: int) -> list[Estimate]:
    found = [m.estimate(at) for m in maps]
    return [e for e in found if e is not None]


# ------------------------------------------------------------------------------ one moment


def moments(tape: Tape, *, prior: Prior, parameters: Parameters) -> list[Moment]:
    """Every graded moment of a tape, with the baselines' answers."""
    _, graded = play(tape, prior=prior, parameters=parameters)
    return [
        _moment(tape, truth, estimates, prior)
        for truth, estimates in zip(tape.truths, graded, strict=True)
    ]


def _moment(tape: Tape, truth: Truth, estimates: list[Estimate], prior: Prior) -> Moment:
    together = pooled(tape.asset, estimates)
    assert together is not None, "a tape has open interest and marks"
    snapshot = published(together)
    interest = sum(e.open_interest_usd for e in estimates)
    edges, ours, low, high = [], [], [], []
    for side in (0, 1):
        e, picked = _buckets(snapshot, side)
        edges.append(e)
        names = (
            ("long_usd", "long_low", "long_high")
            if side == 0
            else ("short_usd", "short_low", "short_high")
        )
        usd, lower, upper = (np.array(getattr(snapshot, n))[picked] for n in names)
        ours.append(usd)
        low.append(lower)
        high.append(upper)
    true, stopped = _true(truth, edges)
    closed, reached = _closed(tape, truth, edges)
    models = {"map": ours} | {
        name: [density(e, side) for side, e in enumerate(edges)]
        for name, density in baselines(tape, truth, estimates, prior, interest).items()
    }
    return Moment(
        seed=tape.seed,
        variant=tape.variant,
        edges=edges,
        truth=true,
        stopped=stopped,
        models=models,
        low=low,
        high=high,
        scale=(snapshot.scale_low, snapshot.scale_high),
        closed=closed,
        reached=reached,
    )


def _buckets(snapshot: Heatmap, side: int) -> tuple[Floats, NDArray[np.int64]]:
    """Edges, as log distance from the mark going outwards, and indices of the buckets between."""
    edges = log(snapshot.first_price / snapshot.mark) + WIDTH * np.arange(snapshot.n + 1)
    here = int(np.searchsorted(edges, 0.0, side="right")) - 1
    count = round(REACH / WIDTH)
    if side == 0:
        picked = here - np.arange(count)
        return np.concatenate(([0.0], -edges[picked])), picked
    picked = here + np.arange(count)
    return np.concatenate(([0.0], edges[picked + 1])), picked


def _true(truth: Truth, edges: list[Floats]) -> tuple[list[Floats], float]:
    """USD of positions per bucket at their liquidation price; and the share left out for stops."""
    marks = np.array(list(truth.marks.values()))[np.array(truth.venue)]
    side, away = np.array(truth.side), np.array(truth.distance)
    stop = np.array(truth.has_stop)
    base = np.array(truth.base)
    found, total, out = [], 0.0, 0.0
    for s in (0, 1):
        here = (side == s) & (away < REACH)
        usd = base[here] * marks[here] * np.exp(away[here] * (1 if s else -1))
        free = ~stop[here]
        found.append(np.histogram(away[here][free], edges[s], weights=usd[free])[0])
        total += float(usd.sum())
        out += float(usd[~free].sum())
    return found, out / max(total, 1e-9)


def _closed(tape: Tape, truth: Truth, edges: list[Floats]) -> tuple[list[Floats], list[float]]:
    """USD force-closed per bucket in the time after, and how far the largest venue's mark went."""
    later = [p for p in tape.forced if truth.at < p.at <= truth.at + AFTER_NS]
    found = []
    for s in (0, 1):
        own = [p for p in later if p.side == s]
        away = np.array([log(p.mark / truth.marks[p.venue]) * (1 if s else -1) for p in own])
        found.append(np.histogram(away, edges[s], weights=[p.usd for p in own])[0])
    first = tape.instruments[0].venue
    path = [x.mark for x in tape.seconds if x.venue == 0 and truth.at < x.at <= truth.at + AFTER_NS]
    start = truth.marks[first]
    if not path:
        return found, [0.0, 0.0]
    return found, [max(0.0, log(start / min(path))), max(0.0, log(max(path) / start))]


# -------------------------------------------------------------------------------- baselines


def baselines(
    tape: Tape, truth: Truth, estimates: list[Estimate], prior: Prior, interest: float
) -> dict[str, Callable[[Floats, int], Floats]]:
    """The four answers to beat, each USD per bucket given edges and side."""

    def climatology(edges: Floats, side: int) -> Floats:
        known = np.concatenate(([0.0], prior.climatology[side]))
        grid = np.arange(len(known)) * 0.0025
        share = np.diff(np.interp(edges, grid, known))
        return interest * prior.share[side] * share

    def uniform(edges: Floats, side: int) -> Floats:
        mass = float(climatology(np.array([0.0, REACH]), side)[0])
        return mass * np.diff(edges) / REACH

    def static(edges: Floats, side: int) -> Floats:
        total = np.zeros(len(edges) - 1)
        leverage = np.array(prior.leverage)
        for instrument, e in zip(tape.instruments, estimates, strict=True):
            away = distances(
                MarginTable(instrument),
                ("long", "short")[side],
                leverage,
                price=e.mark,
                position_usd=Parameters().typical_usd,
            )
            mix = np.where(np.isnan(away), 0.0, prior.mix[side])
            mass = e.open_interest_usd * prior.share[side] * mix / mix.sum()
            total += np.histogram(np.nan_to_num(away, nan=9.0), edges, weights=mass)[0]
        return total

    def recipe(edges: Floats, side: int) -> Floats:
        return _recipe(tape, truth, edges, side=side, interest=interest)

    return {
        "uniform": uniform,
        "climatology": climatology,
        "static profile": static,
        "public recipe": recipe,
    }


def _recipe(tape: Tape, truth: Truth, edges: Floats, *, side: int, interest: float) -> Floats:
    """Open interest at past closes in fixed shares at 1 -/+ 1/L, cleared where price has been."""
    candles = [c for c in tape.candles[0] if c.at <= truth.at]
    path = [x.mark for x in tape.seconds if x.venue == 0 and x.at <= truth.at]
    # The run itself as five-minute candles.
    for i in range(0, len(path), 300):
        piece = path[i : i + 300]
        candles.append(type(candles[0])(0, min(piece), max(piece), piece[-1]))
    close = np.array([c.close for c in candles])
    low = np.minimum.accumulate(np.array([c.low for c in candles])[::-1])[::-1]
    high = np.maximum.accumulate(np.array([c.high for c in candles])[::-1])[::-1]
    after_low, after_high = np.append(low[1:], path[-1]), np.append(high[1:], path[-1])
    mark = truth.marks[tape.instruments[0].venue]
    found = np.zeros(len(edges) - 1)
    for leverage, share in RECIPE.items():
        price = close * (1 - 1 / leverage if side == 0 else 1 + 1 / leverage)
        alive = price < after_low if side == 0 else price > after_high
        away = np.log(price[alive] / mark) * (1 if side else -1)
        weight = np.full(len(away), interest * share / len(close))
        found += np.histogram(away, edges, weights=weight)[0]
    return found


# ---------------------------------------------------------------------------------- metrics


def wasserstein(truth: Floats, model: Floats, edges: Floats) -> float:
    """Area between the cumulative shapes, % of price; both spread evenly within buckets."""
    if truth.sum() <= 0 or model.sum() <= 0:
        return float("nan")
    gap = np.abs(np.cumsum(truth) / truth.sum() - np.cumsum(model) / model.sum())
    middle = 0.5 * (gap + np.concatenate(([0.0], gap[:-1])))
    return float((middle * np.diff(edges)).sum() * 100)


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation with mean ranks for ties."""
    ranks = [_ranks(x) for x in (a, b)]
    if min(r.std() for r in ranks) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(x: Floats) -> Floats:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def top_decile(truth: list[Floats], model: list[Floats]) -> float:
    """Share of the true mass in the tenth of all buckets where the model has most."""
    true, said = np.concatenate(truth), np.concatenate(model)
    count = len(true) // 10
    order = np.argsort(-said, kind="stable")[:count]
    return float(true[order].sum() / max(float(true.sum()), 1e-9))


def information(moment: Moment, name: str) -> tuple[float, float]:
    """(sum over sides of USD times log density ratio to uniform, USD) within what was reached."""
    gain, usd = 0.0, 0.0
    for side in (0, 1):
        if moment.reached[side] < REACHED:
            continue
        edges, y = moment.edges[side], moment.closed[side]
        inside = edges[:-1] < moment.reached[side]
        width = np.diff(edges)[inside]
        flat = width / width.sum()
        model = moment.models[name][side][inside]
        shape = model / model.sum() if model.sum() > 0 else flat
        density = (1 - FLOOR) * shape + FLOOR * flat
        gain += float((y[inside] * np.log(density / flat)).sum())
        usd += float(y[inside].sum())
    return gain, usd


def measured(moment: Moment, name: str) -> dict[str, float]:
    """All metrics of one model at one moment."""
    truth, model, edges = moment.truth, moment.models[name], moment.edges
    gain, usd = information(moment, name)
    both = range(2)
    found = {
        "wasserstein": float(np.mean([wasserstein(truth[s], model[s], edges[s]) for s in both])),
        "spearman": float(np.mean([spearman(truth[s], model[s]) for s in both])),
        "top_decile": top_decile(truth, model),
        "estimated": float(sum(model[s].sum() for s in both)),
        "true": float(sum(truth[s].sum() for s in both)),
        "gain": gain,
        "closed": usd,
    }
    if name == "map":
        inside = [
            (truth[s] >= moment.low[s] - 0.005) & (truth[s] <= moment.high[s] + 0.005) for s in both
        ]
        found["covered"] = float(np.mean(np.concatenate(inside)))
        ratio = found["true"] / found["estimated"]
        found["scale_covered"] = float(moment.scale[0] <= ratio <= moment.scale[1])
    return found


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Metrics over several moments: means, but ratios of sums for mass and information.

    A dollar force-closed in one run weighs as much as one in another, within a cap: no single
    crash may be more than a fifth of the sum, else the figure would be that crash's.
    """
    mean = {k: float(np.nanmean([r[k] for r in rows])) for k in rows[0]}
    closed = np.array([r["closed"] for r in rows])
    gain = np.array([r["gain"] for r in rows])
    weight = np.minimum(1.0, 0.2 * closed.sum() / np.maximum(closed, 1e-9))
    out = {k: mean[k] for k in ("wasserstein", "spearman", "top_decile")}
    out["information"] = float((gain * weight).sum() / max(float((closed * weight).sum()), 1e-9))
    said, true = (np.array([r[k] for r in rows]) for k in ("estimated", "true"))
    out["mass_ratio"] = float(said.sum() / max(float(true.sum()), 1e-9))
    # The typical error of one map's level, as a factor: the other half of the truth about mass.
    ratios = np.log(np.maximum(said, 1.0) / np.maximum(true, 1.0))
    out["mass_factor"] = float(np.exp(np.median(np.abs(ratios))))
    for name in ("covered", "scale_covered"):
        if name in mean:
            out[name] = mean[name]
    return out


# ----------------------------------------------------------------------------------- report


def graded(all_moments: Sequence[Moment], *, draws: int = 400) -> dict[str, Any]:
    """Metrics by model with 90 % seed-block bootstrap intervals, and ours less each baseline."""
    blocks: dict[tuple[str, int], list[Moment]] = {}
    for m in all_moments:
        blocks.setdefault((m.variant, m.seed), []).append(m)
    keys = sorted(blocks)
    names = list(all_moments[0].models)
    rows = {n: [[measured(m, n) for m in blocks[k]] for k in keys] for n in names}
    chance = np.random.Generator(np.random.PCG64(7))
    picks = [chance.integers(0, len(keys), len(keys)) for _ in range(draws)]
    models: dict[str, Any] = {}
    drawn: dict[str, list[dict[str, float]]] = {}
    for n in names:
        drawn[n] = [summary([r for i in pick for r in rows[n][i]]) for pick in picks]
        models[n] = {
            k: {"value": v, **_interval([d[k] for d in drawn[n]])}
            for k, v in summary([r for block in rows[n] for r in block]).items()
        }
    against = {
        n: {
            k: {
                "value": models["map"][k]["value"] - models[n][k]["value"],
                **_interval([a[k] - b[k] for a, b in zip(drawn["map"], drawn[n], strict=True)]),
            }
            for k in ("wasserstein", "spearman", "top_decile", "information")
        }
        for n in names
        if n != "map"
    }
    return {
        "runs": len(keys),
        "moments": len(all_moments),
        "share_with_stops": float(np.mean([m.stopped for m in all_moments])),
        "models": models,
        "map_less_baseline": against,
    }


def _interval(values: list[float]) -> dict[str, float]:
    low, high = np.nanquantile(values, [0.05, 0.95])
    return {"low": float(low), "high": float(high)}


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The issue's targets, each met or not."""
    found = []
    for metric, better in (("wasserstein", -1), ("information", 1), ("top_decile", 1)):
        for name, difference in result["map_less_baseline"].items():
            d = difference[metric]
            met = d["high"] < 0 if better < 0 else d["low"] > 0
            found.append({"target": f"{metric} better than {name}", "met": bool(met), **d})
    for metric, low, high in (("mass_ratio", 0.8, 1.25), ("covered", 0.75, 0.85)):
        value = result["models"]["map"][metric]
        met = low <= value["value"] <= high
        found.append({"target": f"{metric} within {low}-{high}", "met": met, **value})
    return found


def report(
    seeds: Sequence[int],
    *,
    variants: Sequence[Variant] = ("first", "second"),
    minutes: int = 90,
    prior: Prior = SIMULATED.prior,
    parameters: Parameters = SIMULATED.parameters,
    tapes: Callable[[int, Variant], Tape] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Grade the map on simulated runs; `tapes` may supply recorded ones."""
    found: list[Moment] = []
    plain: list[Moment] = []
    for variant in variants:
        for seed in seeds:
            tape = tapes(seed, variant) if tapes else record(seed, variant=variant, minutes=minutes)
            found.extend(moments(tape, prior=prior, parameters=parameters))
            shipped = moments(tape, prior=DEFAULT_PRIOR, parameters=Parameters())
            plain.extend(shipped)
            progress(f"{variant} {seed}")
    result = graded(found)
    by_variant = {v: graded([m for m in found if m.variant == v]) for v in variants}
    return {
        "seeds": list(seeds),
        "minutes": minutes,
        "all": result,
        "verdicts": verdicts(result),
        "by_variant": by_variant,
        "shipped_prior": graded(plain),
        "profile": _profile(found),
    }


def _profile(found: Sequence[Moment]) -> dict[str, Any]:
    """Mean USD by distance, for the picture."""
    n = min(len(m.truth[0]) for m in found)
    models = ["truth", *found[0].models]
    out: dict[str, Any] = {"step": WIDTH * 100}
    for name in models:
        out[name] = [
            [
                float(x)
                for x in np.mean(
                    [(m.truth if name == "truth" else m.models[name])[s][:n] for m in found], axis=0
                )
            ]
            for s in (0, 1)
        ]
    return out


# ---------------------------------------------------------------------------- command line


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=seeds, default="100-119", metavar="A-B", help="a range A-B or a list A,B,C"
    )
    parser.add_argument(
        "--variant", choices=("first", "second", "both"), default="both", help="of the market"
    )
    parser.add_argument("--minutes", type=_minutes, default=90, metavar="N", help="of each run")
    parser.add_argument("--out", type=Path, default=Path("heatmap-report"), metavar="DIR")


def _minutes(text: str) -> int:
    least = (FIRST_S + int(AFTER_NS / NS)) // 60 + 1
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"{text!r}: at least {least}, so that there is a graded moment and a time after it"
        )
    return int(text)


def _run(options: argparse.Namespace) -> None:
    variants: tuple[Variant, ...] = get_args(Variant)
    if options.variant != "both":
        variants = (options.variant,)
    options.out.mkdir(parents=True, exist_ok=True)  # better now than when the result is there
    with progress("markets graded", len(options.seeds) * len(variants)) as done:
        result = report(options.seeds, variants=variants, minutes=options.minutes, progress=done)
    body = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (options.out / "heatmap.json").write_bytes(body)
    (options.out / "heatmap.html").write_text(page(result), encoding="utf-8")
    for v in result["verdicts"]:
        line = f"{'met   ' if v['met'] else 'MISSED'} {v['target']}: {v['value']:.3f}"
        sys.stdout.write(f"{line} [{v['low']:.3f}, {v['high']:.3f}]\n")
    sys.stdout.write(f"{options.out / 'heatmap.html'}\n")


COMMAND: Final = Command(
    "heatmap", "grade the liquidation map on simulated truth", _arguments, _run
)
