"""Other maps through the same solver (model.md C2, B6-B8): what the inputs would have been.

- ``recipe``: the common public recipe (`heatmap.RECIPE`): open interest at past closes in fixed
  leverage shares, cleared where the price has been;
- ``static``: the average profile, which hangs on the mark and knows no past;
- ``oracle``: the simulator's positions at their true liquidation prices, those with a stop order
  before that left out, as in the report of the map; asked every third minute, because it is
  dear, and seen from the mark of now.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from monitor.backtest.heatmap import RECIPE
from monitor.core.alerts.budget import Budget
from monitor.core.alerts.rules import AlertRules
from monitor.core.asset import Asset
from monitor.core.cascade.curves import DISTANCES, Floats
from monitor.core.conditions import DIRECTIONS, SIDE_OF, SIGN
from monitor.core.forecast.coefficients import MODEL
from monitor.core.forecast.features import INPUTS
from monitor.core.heatmap.calibration import DEFAULT_PRIOR
from monitor.core.heatmap.map import Parameters
from monitor.core.heatmap.margin import MarginTable, distances
from monitor.core.heatmap.pooling import Estimate
from monitor.core.risk import Outlook, foreseen
from monitor.events import HORIZONS_S, Direction
from monitor.sim.market import Market
from monitor.sim.truth import positions

RIVALS: Final = ("recipe", "static", "oracle")
MAPPED: Final = ("structural", "gain", "fuel")
"""Inputs that come from a map."""

_COLUMNS: Final = [INPUTS.index(name) for name in MAPPED]
_CANDLE_S: Final = 300
_ORACLE_EVERY_MIN: Final = 3


class Rivals:
    """The rivals' answers in one run."""

    def __init__(self, market: Market, asset: str) -> None:
        """`market` has not moved yet."""
        self._market, self._asset = market, asset
        venue = market.venues[0].name
        tick = market.contract(venue, asset).tick_usd
        past = np.array([price for _, price in market.past(venue, asset)]) * tick
        self._closes = past[1:].tolist()
        self._lows = np.minimum(past[1:], past[:-1]).tolist()
        self._highs = np.maximum(past[1:], past[:-1]).tolist()
        self._candle: list[float] = []
        self._asked = 0
        self._truth: dict[str, NDArray[np.float64]] = {}
        rules = AlertRules()
        self._outlooks = {
            (name, d): Outlook(asset, d, model=MODEL, rules=rules, budget=Budget(rules))
            for name in RIVALS
            for d in DIRECTIONS
        }

    def heard(self, price: float | None) -> None:
        """The mark of a second."""
        if price is None:
            return
        self._candle.append(price)
        if len(self._candle) == _CANDLE_S:
            self._closes.append(price)
            self._lows.append(min(self._candle))
            self._highs.append(max(self._candle))
            self._candle = []

    def inputs(self, at: int, asset: Asset) -> NDArray[np.float64]:
        """`MAPPED` by each rival for both directions, shape (2, rivals, horizons, 3)."""
        found = np.full((len(DIRECTIONS), len(RIVALS), len(HORIZONS_S), len(MAPPED)), np.nan)
        estimates = list(asset.estimates(at).values())
        if not estimates:
            return found
        if self._asked % _ORACLE_EVERY_MIN == 0:
            self._ask()
        self._asked += 1
        marks = {e.name: e.mark for e in estimates}
        for d, direction in enumerate(DIRECTIONS):
            now = asset.situations.get(direction)
            if now is None or now.fuel is None:
                continue
            curves = {
                "recipe": self._recipe(estimates, direction),
                "static": _static(asset, estimates, direction),
                "oracle": self._oracle(marks, direction),
            }
            for r, name in enumerate(RIVALS):
                outlook = self._outlooks[name, direction]
                sd = 0.0 if name == "oracle" else now.level_sd
                own = replace(now, fuel=curves[name], level_sd=sd)
                outlook.update(own, foreseen({direction: own}, asset.conditions), asset.conditions)
                vector = outlook.features.vector()
                for i, column in enumerate(_COLUMNS):
                    value = vector[column]
                    if value is not None:
                        found[d, r, :, i] = value
        return found

    def _ask(self) -> None:
        table = positions(self._market)
        here = (table["asset"] == self._asset) & ~np.isnan(table["liquidation_usd"])
        here &= np.isnan(table["stop_usd"])
        names = ("venue", "liquidation_usd", "size_base")
        self._truth = {name: table[name][here] for name in names}

    def _oracle(self, marks: Mapping[str, float], direction: Direction) -> Floats:
        away, usd = [], []
        size = self._truth["size_base"]
        for name, mark in marks.items():
            held = (size > 0) if direction == "down" else (size < 0)
            held &= self._truth["venue"] == name.partition(":")[0]
            price = self._truth["liquidation_usd"][held]
            distance = SIGN[direction] * np.log(price / mark)
            # What the mark has passed since is gone, or about to go.
            away.append(distance[distance > 0.0])
            usd.append((np.abs(size[held]) * price)[distance > 0.0])
        return _curve(np.concatenate(away), np.concatenate(usd))

    def _recipe(self, estimates: list[Estimate], direction: Direction) -> Floats:
        mark = max(estimates, key=lambda e: e.open_interest_usd).mark
        interest = sum(e.open_interest_usd for e in estimates)
        close = np.array(self._closes)
        now = self._candle or [mark]
        lows, highs = np.array([*self._lows[1:], min(now)]), np.array([*self._highs[1:], max(now)])
        after_low = np.minimum.accumulate(lows[::-1])[::-1]
        after_high = np.maximum.accumulate(highs[::-1])[::-1]
        away, usd = [], []
        for leverage, share in RECIPE.items():
            price = close * (1.0 + SIGN[direction] / leverage)
            alive = price < after_low if direction == "down" else price > after_high
            away.append(SIGN[direction] * np.log(price[alive] / mark))
            usd.append(np.full(int(alive.sum()), interest * share / len(close)))
        return _curve(np.concatenate(away), np.concatenate(usd))


def _static(asset: Asset, estimates: list[Estimate], direction: Direction) -> Floats:
    side = DIRECTIONS.index(direction)
    leverage = np.array(DEFAULT_PRIOR.leverage)
    away, usd = [], []
    specs = {state.spec.name: state.spec for state in asset.instruments}
    for e in estimates:
        distance = distances(
            MarginTable(specs[e.name]),
            SIDE_OF[direction],
            leverage,
            price=e.mark,
            position_usd=Parameters().typical_usd,
        )
        mix = np.where(np.isnan(distance), 0.0, DEFAULT_PRIOR.mix[side])
        away.append(np.nan_to_num(distance, nan=9.0))
        usd.append(e.open_interest_usd * DEFAULT_PRIOR.share[side] * mix / mix.sum())
    return _curve(np.concatenate(away), np.concatenate(usd))


def _curve(away: NDArray[np.float64], usd: NDArray[np.float64]) -> Floats:
    """Cumulative USD by distance."""
    binned = np.histogram(away, DISTANCES, weights=usd)[0]
    found: Floats = np.concatenate(([0.0], np.cumsum(binned)))
    return found
