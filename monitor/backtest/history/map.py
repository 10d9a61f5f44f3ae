"""The liquidation map on recorded five-minute samples, beside maps that know less.

The map is the core's own and is heard as a daemon that starts would let it: a past of candles and
open interest first, then each sample as mark, trades and open interest. Nothing was recorded
of trades, so whoever entered between two samples did so evenly over the way of the mark between
them, as the warm start takes it of a candle. What the mark did within five minutes is not known:
wicks consume nothing. No print is heard, so the weights of leverage stay the prior's.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.backtest.heatmap import RECIPE
from monitor.backtest.history.files import Stretch
from monitor.config import parse_instruments
from monitor.core.cascade.curves import DISTANCES
from monitor.core.conditions import DIRECTIONS, SIGN
from monitor.core.heatmap.calibration import CLIMATOLOGY_STEP, DEFAULT_PRIOR
from monitor.core.heatmap.map import Map
from monitor.core.heatmap.pooling import fuel
from monitor.events import NS, Candle, Instrument, Taker
from monitor.shipping import shipped

Floats = NDArray[np.float64]

MAPS: Final = ("map", "blind", "recipe", "static")
"""Ours; the same, told that open interest never changes, so that it knows the price alone; the
common public recipe (`heatmap.RECIPE`); the climatology, which knows no past."""
PAST_SAMPLES: Final = 1_500
"""125 hours of candles, what Binance gives to a map that starts and what the recipe looks at."""

_ENTRIES: Final[tuple[tuple[float, Taker], ...]] = (
    (0.125, "buy"),
    (0.375, "sell"),
    (0.625, "buy"),
    (0.875, "sell"),
)
"""Where on the way of the mark the entries are, and who paid: nobody recorded it, so half each."""


class Fuel(Struct, frozen=True):
    """What the maps say.

    Attributes:
        within: USD within each reach of the mark, shape (n, maps, directions, reaches); NaN where
            not known.
        swept: USD that the map of the sample before had in the way of the mark to this sample,
            shape (n, maps, directions); 0 in the direction it did not go.
    """

    within: Floats
    swept: Floats


def instrument_of(asset: str) -> Instrument:
    """Binance's contract from the shipped table, or one whose margin tiers are not known."""
    name = f"binance:{asset}USDT"
    table = parse_instruments(shipped("instruments.toml"), "instruments.toml")
    known = {i.name: i for i in table}
    generic = Instrument(
        name=name,
        venue="binance",
        symbol=f"{asset}USDT",
        asset=asset,
        kind="linear",
        contract=1.0,
        tick=1e-6,
        lot=1e-3,
    )
    return known.get(name, generic)


def heard(stretch: Stretch, reach: Floats, *, start: int) -> Fuel:
    """What the maps said at every sample from `start` on, each knowing only what was before.

    Args:
        stretch: the samples, shape (n,).
        reach: log distances from the mark to ask for, shape (n, reaches); NaN where not wanted.
        start: samples that are the past of the maps.
    """
    n, reaches = reach.shape
    within = np.full((n, len(MAPS), len(DIRECTIONS), reaches), np.nan)
    swept = np.full((n, len(MAPS), len(DIRECTIONS)), np.nan)
    candles, interests = _past(stretch, start)
    ours, blind = (Map(instrument_of(stretch.asset)) for _ in range(2))
    ours.history(candles, interests)
    blind.history(candles)
    constant = float(np.nanmean(stretch.interest[:start]))
    low, high = _extremes(stretch.price)
    before: float | None = None
    curves: Floats | None = None
    for i in range(start, n):
        at, price, interest = int(stretch.at[i]), stretch.price[i], stretch.interest[i]
        if not (np.isfinite(price) and np.isfinite(interest)):
            continue
        if curves is not None and before is not None:
            move = np.log(price / before)
            for d, direction in enumerate(DIRECTIONS):
                way = max(SIGN[direction] * move, 0.0)
                swept[i, :, d] = [np.interp(way, DISTANCES, c) for c in curves[:, d]]
        _step(ours, at, price, interest, before)
        _step(blind, at, price, constant, before)
        before = float(price)
        usd = price * interest
        first = max(0, i + 1 - PAST_SAMPLES)
        recipe = _recipe(stretch.price[first : i + 1], low[first : i + 1], high[first : i + 1])
        curves = np.array(
            [
                _said(ours, at),
                _said(blind, at) * (interest / constant),
                usd * recipe,
                usd * _STATIC,
            ]
        )
        if np.isfinite(reach[i]).all():
            for d in range(len(DIRECTIONS)):
                within[i, :, d] = [np.interp(reach[i], DISTANCES, c) for c in curves[:, d]]
    return Fuel(within, swept)


def _step(ours: Map, at: int, price: float, interest: float, before: float | None) -> None:
    ours.mark(at, price)
    if before is not None:
        for share, taker in _ENTRIES:
            ours.traded(at, before ** (1.0 - share) * price**share, 1.0, taker)
    ours.open_interest(at, interest)


def _said(one: Map, at: int) -> Floats:
    """USD by distance, both directions, shape (2, POINTS)."""
    estimate = one.estimate(at)
    assert estimate is not None, "a mark and an open interest were just told"
    return np.array([fuel(estimate, direction) for direction in DIRECTIONS])


def _past(stretch: Stretch, start: int) -> tuple[list[Candle], list[tuple[int, float]]]:
    """Candles between the samples before `start`, and the readings of open interest."""
    candles, interests = [], []
    price = stretch.price
    first = max(1, start - PAST_SAMPLES)
    for i in range(first, start):
        at = int(stretch.at[i])
        pair = price[i - 1 : i + 1]
        if np.isfinite(pair).all():
            candles.append(Candle(at, float(pair.min()), float(pair.max()), float(pair[1])))
        if np.isfinite(stretch.interest[i]):
            interests.append((at, float(stretch.interest[i])))
    return candles, interests


def _extremes(price: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest mark of each sample and the one before."""
    before = np.append(np.nan, price[:-1])
    return np.fmin(price, before), np.fmax(price, before)


def _recipe(close: Floats, low: Floats, high: Floats) -> Floats:
    """Share of open interest by distance, both directions, shape (2, POINTS).

    Positions at past closes in fixed shares of leverage, cleared where the price has been since.
    """
    told = np.isfinite(close)
    # The extremes after each sample; after the last there is nothing yet.
    after_low = np.append(np.fmin.accumulate(low[::-1])[::-1][1:], np.inf)
    after_high = np.append(np.fmax.accumulate(high[::-1])[::-1][1:], 0.0)
    found = np.zeros((len(DIRECTIONS), len(DISTANCES)))
    mark = close[told][-1]
    for d, direction in enumerate(DIRECTIONS):
        sign = SIGN[direction]
        for leverage, share in RECIPE.items():
            price = close * (1.0 + sign / leverage)
            stands = price < after_low if sign < 0.0 else price > after_high
            away = np.sort(sign * np.log(price[told & stands] / mark))
            found[d] += share / told.sum() * np.searchsorted(away, DISTANCES, side="right")
    return found


def _static() -> Floats:
    """Share of open interest by distance of the prior's climatology, shape (2, POINTS)."""
    rows = []
    for side in (0, 1):
        known = (0.0, *DEFAULT_PRIOR.climatology[side])
        edges = np.arange(len(known)) * CLIMATOLOGY_STEP
        rows.append(DEFAULT_PRIOR.share[side] * np.interp(DISTANCES, edges, known))
    return np.array(rows)


_STATIC: Final = _static()


def hours_of(at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Begin (ns) of the hour in which the five minutes that end at each sample lie."""
    hour = 3_600 * NS
    found: NDArray[np.int64] = (at - 1) // hour * hour
    return found
