"""Simulated runs for fitting and grading: what was known each minute, and what then happened.

A run is a market of random fragility with news of random size, so that there are cascades, near
misses and quiet hours (`stage`). The engine hears it (`hearing`); at the end of each minute the
inputs of the forecast are noted for both directions, and once more with the map replaced by each
rival's (model.md C2, B6-B8).

Maps begin with the prior that was fitted to this market on seeds of its own, as a user's is fitted
to the real one.

Two labels. The primary one is causal: a twin with the same chance and the same people, in which
forced orders do not touch the book, tells how far the forced orders moved the price (C1). Its
onset is the first minute in which that displacement, counted from at least the twin's price, grew
by `ENDOGENOUS` within five minutes while the losing side was force-closed. The other is the public
rule of A12 on marks, open interest and all forced closes, with what is usual learnt within the run
(`PUBLIC_RULE`), since a run is too short for the rule's own memory.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from monitor.backtest.fitting import rows
from monitor.backtest.hearing import Hearing, configured
from monitor.backtest.rivals import Rivals
from monitor.backtest.tape import setting
from monitor.core.conditions import DIRECTIONS, SIDE_OF, SIGN
from monitor.core.engine import Engine
from monitor.core.forecast.features import Features
from monitor.core.forecast.label import MINUTE_NS, Labeller, LabelRule, Minute
from monitor.core.forecast.norm import Norm
from monitor.events import HORIZONS_S
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS, Asset, Variant
from monitor.sim.scenarios import Scenario, scenario

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MINUTES: Final = 90
ENDOGENOUS: Final = 0.0075
"""Log displacement by forced orders that counts as a cascade of a major (model.md C2)."""
WINDOW_S: Final = 300
REFRACTORY_MIN: Final = 30
PUBLIC_RULE: Final = LabelRule(least_min=10, least_sums=15, beyond=inf)
Z_LEAST_S: Final = 600.0
"""Hearing after which a run's own open interest and funding have a norm (B2, B3)."""
DEEP: Final = {"depth_scale": 2.0, "crowd_share": 0.0, "volatility_scale": 0.5}
STURDY: Final = {"depth_scale": 1.4, "crowd_share": 0.03}


def stage(seed: int) -> Scenario:
    """The scenario of a seed: of four, three have three pieces of news of 0.4 to 3 %.

    They meet a market of random fragility, a deep one without a crowd (mostly near misses), and
    one in between; the fourth has the news of `random`, which mostly come after the run.
    """
    kind = seed % 4
    if kind == 3:
        return scenario("random", seed)
    drawn = setting(seed)
    changes = ({}, DEEP, STURDY)[kind]
    return replace(drawn, overrides=drawn.overrides | changes)


class Run:
    """One run as arrays over its minutes; n minutes, directions down and up.

    Attributes:
        x: inputs of the forecast, (n, 2, horizons, inputs); NaN where missing.
        rivals: the inputs that come from a map by each rival's, (n, 2, rivals, horizons, 3): the
            columns of `rivals.MAPPED`.
        z: open interest and funding as z-scores of the run, (n, 2, 2).
        told: low, high, close of the mark and open interest in base units, (n, 4).
        forced: USD force-closed by minute and direction, (n, 2).
        path: log price less the twin's by second, the first being 0, (60 n + 1,).
        first: start (ns).
    """

    ARRAYS: Final = ("x", "rivals", "z", "told", "forced", "path")

    def __init__(self, seed: int, variant: str, first: int, arrays: Mapping[str, Floats]) -> None:
        """`arrays` holds `ARRAYS`."""
        self.seed, self.variant, self.first = seed, variant, first
        self.asset = asset_of(seed).name
        self.x, self.rivals, self.z = arrays["x"], arrays["rivals"], arrays["z"]
        self.told, self.forced, self.path = arrays["told"], arrays["forced"], arrays["path"]

    @cached_property
    def onsets(self) -> Flags:
        """Causal onsets by minute, (n, 2)."""
        return causal(self.path, self.forced)[0]

    @cached_property
    def labels(self) -> Floats:
        """`labelled` by the causal onsets, (n, 2, horizons)."""
        return labelled(self.onsets.astype(np.float64))

    def public(self, rule: LabelRule = PUBLIC_RULE) -> Floats:
        """A12's T1 onsets by minute: 1, 0 or NaN where the rule cannot tell, (n, 2)."""
        labeller = Labeller(rule)
        found = np.full((len(self.told), 2), np.nan)
        for i, ((low, high, close, interest), (down, up)) in enumerate(
            zip(self.told.tolist(), self.forced.tolist(), strict=True)
        ):
            at = self.first + (i + 1) * MINUTE_NS
            for verdict in labeller.heard(Minute(at, low, high, close, interest, down, up)):
                row = (verdict.at - self.first) // MINUTE_NS - 1
                if verdict.onsets is not None:
                    found[row, DIRECTIONS.index(verdict.direction)] = float(1 in verdict.onsets)
        return found


def asset_of(seed: int) -> Asset:
    """Assets go by the seed, so that all are graded."""
    return ASSETS[seed % len(ASSETS)]


def run(seed: int, variant: Variant, *, minutes: int = MINUTES) -> Run:
    """Run and hear the market of a seed."""
    asset = asset_of(seed)
    market = Market(stage(seed), seed=seed, variant=variant, assets=(asset,))
    twin = Market(stage(seed), seed=seed, variant=variant, assets=(asset,), impact=False)
    rivals = Rivals(market, asset.name)
    engine = Engine(configured(60, prior="simulated"))
    hearing = Hearing(market, engine)
    heard = engine.assets[asset.name]
    norms = (Norm(least_s=Z_LEAST_S), Norm(least_s=Z_LEAST_S))
    first = market.at
    features: list[Features] = []
    mapped: list[Floats] = []
    told, forced = np.full((minutes, 4), np.nan), np.zeros((minutes, 2))
    z = np.full((minutes, 2, 2), np.nan)
    path = np.zeros(minutes * 60 + 1)
    marks: list[float] = []
    for second in range(1, minutes * 60 + 1):
        hearing.second()
        twin.step()
        path[second] = float(market.log_price()[0] - twin.log_price()[0])
        minute = (second - 1) // 60
        for d, direction in enumerate(DIRECTIONS):
            forced[minute, d] += hearing.forced.get((asset.name, SIDE_OF[direction]), 0.0)
        price = heard.conditions.price()
        rivals.heard(price)
        if price is not None:
            marks.append(price)
        if second % 60:
            continue
        at = market.at
        mapped.append(rivals.inputs(at, heard))
        features += [heard.outlooks[direction].features for direction in DIRECTIONS]
        interest, funding = heard.conditions.interest(at), heard.conditions.funding(at)
        for i, (value, signs) in enumerate(((interest, (1.0, 1.0)), (funding, (1.0, -1.0)))):
            if value is not None:
                norms[i].heard(at, value)
                known = norms[i].z(value)
                z[minute, :, i] = np.nan if known is None else known * np.array(signs)
        if marks and interest is not None:
            told[minute] = min(marks), max(marks), marks[-1], interest
        marks = marks[-1:]
    x = rows(features)
    arrays = {
        "x": x.reshape(minutes, 2, *x.shape[1:]),
        "rivals": np.array(mapped),
        "z": z,
        "told": told,
        "forced": forced,
        "path": path,
    }
    return Run(seed, variant, first, arrays)


def labelled(onset: Floats) -> Floats:
    """Whether an onset comes within each horizon after each minute, (n, 2, horizons).

    NaN where the run ends before the horizon does, where it is not known, and for `REFRACTORY_MIN`
    after an onset: there can be no other then, and minutes in the middle of a cascade would count
    as false alarms.

    Args:
        onset: 1, 0 or NaN by minute and direction, (n, 2).
    """
    n = len(onset)
    found = np.full((n, 2, len(HORIZONS_S)), np.nan)
    for h, horizon in enumerate(HORIZONS_S):
        ahead = horizon // 60
        for i in range(n - ahead):
            later = onset[i + 1 : i + 1 + ahead]
            sure = (later == 1.0).any(axis=0)
            unknown = np.where(np.isnan(later).any(axis=0), np.nan, 0.0)
            found[i, :, h] = np.where(sure, 1.0, unknown)
    for i, d in zip(*np.nonzero(onset == 1.0), strict=True):
        found[i : i + REFRACTORY_MIN, d] = np.nan
    return found


def causal(path: Floats, forced: Floats) -> tuple[Flags, Floats]:
    """Onsets by minute and direction, and how far the displacement grew.

    Args:
        path: log price less the twin's by second, the first being 0, shape (60 n + 1,).
        forced: USD force-closed by minute and direction, shape (n, 2).
    """
    n = len(forced)
    onset, moved = np.zeros((n, 2), dtype=np.bool_), np.zeros((n, 2))
    for d, direction in enumerate(DIRECTIONS):
        away = np.maximum(SIGN[direction] * path, 0.0)
        padded = np.concatenate((np.full(WINDOW_S, np.inf), away))
        lowest = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_S + 1).min(axis=1)
        grown = away - lowest
        moved[:, d] = grown[1:].reshape(n, 60).max(axis=1)
        closed = np.array([forced[max(0, i - 4) : i + 1, d].sum() for i in range(n)])
        last = -REFRACTORY_MIN - 1
        for i in range(n):
            if moved[i, d] >= ENDOGENOUS and closed[i] > 0.0:
                # What goes on without a pause is one event.
                onset[i, d] = i - last > REFRACTORY_MIN
                last = i if onset[i, d] else last
    return onset, moved


# ------------------------------------------------------------------------------------- files


def saved(path: Path, found: Run) -> None:
    """Write a run; `loaded` reads it."""
    arrays = {name: getattr(found, name) for name in Run.ARRAYS}
    np.savez_compressed(path, first=np.array(found.first), **arrays)


def runs(
    seeds: Sequence[int],
    variants: Sequence[Variant],
    *,
    minutes: int = MINUTES,
    directory: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Run]:
    """The runs of these seeds; those that stand in `directory` are read, the others kept there."""
    found = []
    for variant in variants:
        for seed in seeds:
            path = None if directory is None else directory / f"{variant}-{seed}-{minutes}.npz"
            if path is not None and path.exists():
                with np.load(path) as arrays:
                    one = Run(seed, variant, int(arrays["first"]), dict(arrays))
            else:
                one = run(seed, variant, minutes=minutes)
                if path is not None:
                    saved(path, one)
            found.append(one)
            progress(f"{variant} {seed}")
    return found
