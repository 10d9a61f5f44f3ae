"""One simulated run as its public saw it, with the truth at certain moments to grade against.

Recorded once, replayed into as many maps as one likes. What is public: every trade, marks once a
second, open interest every five seconds and two seconds late, liquidation prints as each venue
gives them (Binance and OKX the largest of a second, Bybit all, Hyperliquid none), five-minute
candles and open interest of the past (Hyperliquid has no such open interest), the venues' margin
tables.
"""

from collections import deque
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from monitor.core.heatmap.map import UNMEASURED, Map
from monitor.events import NS, Candle, Completeness, Instrument, Side, Taker, Tier
from monitor.sim.chance import generator
from monitor.sim.liquidation import Liquidation
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS, LEVEL, Variant
from monitor.sim.rules import MICRO, VENUES, Venue
from monitor.sim.scenarios import News, Scenario, scenario
from monitor.sim.truth import positions

Floats = NDArray[np.float64]

MINUTES: Final = 90
FIRST_S: Final = 900
"""First grading; a map that has heard nothing is not graded."""
EVERY_S: Final = 900
INTEREST_EVERY_S: Final = 5
INTEREST_LAG_S: Final = 2
PRINTS: Final[dict[str, Completeness]] = {
    "binance": "sampled_1s",
    "bybit": "all",
    "okx": "partial",
    "hyperliquid": "tail_only",
}
"""How much each venue shows, as its codec says. A simulated `partial` feed, too, has the largest of
each second; the tail are positions that the venue takes over."""
CANDLE_NS: Final = 300 * NS
INTERESTS: Final = {"binance": 500, "bybit": 200, "okx": 100, "hyperliquid": 0}
"""Five-minute readings of open interest that a venue gives at once."""


class Truth(Struct, frozen=True):
    """What stood at `at`: per position its venue, side (0 long), log distance and base size.

    `distance` is from the venue's mark to the true liquidation price, positive; ``inf`` for none.
    `has_stop` marks positions that a stop order closes first.
    """

    at: int
    marks: dict[str, float]
    venue: list[int]
    side: list[int]
    distance: list[float]
    base: list[float]
    has_stop: list[bool]


class Print(Struct, frozen=True, gc=False):
    """A forced close as it was: `usd` executed at mark `mark`."""

    at: int
    venue: str
    side: int
    usd: float
    mark: float


class Second(Struct, frozen=True, gc=False):
    """What one second showed of one venue: trades (price, base, taker), prints, marks, interest."""

    at: int
    venue: int
    trades: list[tuple[float, float, Taker]]
    prints: list[tuple[Side, float]]
    mark: float
    interest: float | None


class Tape(Struct, frozen=True):
    """A run of one asset on all venues."""

    seed: int
    variant: str
    asset: str
    instruments: list[Instrument]
    candles: list[list[Candle]]
    interests: list[list[tuple[int, float]]]
    seconds: list[Second]
    forced: list[Print]
    truths: list[Truth]


def instrument_of(venue: Venue, asset: str) -> Instrument:
    """The public specification of a simulated contract."""
    rows = venue.tiers[asset]
    tiers: list[Tier] = []
    deduction = 0.0
    for i, row in enumerate(rows):
        rate = row.rate_ppm / MICRO
        if venue.has_deduction and i:
            deduction += row.floor * (rate - tiers[-1].rate)
        cap = rows[i + 1].floor if i + 1 < len(rows) else None
        # The initial margin is twice the maintenance of the tier (`monitor.sim.traders`).
        tiers.append(Tier(row.floor, cap, rate, deduction, 1 / (2 * rate)))
    return Instrument(
        name=f"{venue.name}:{asset}",
        venue=venue.name,
        symbol=asset,
        asset=asset,
        kind="linear",
        contract=1.0,
        tick=venue.tick_usd[asset],
        lot=venue.lot_base[asset],
        tier_unit="base" if venue.tiers_by_size else "quote",
        tiers=tuple(tiers),
    )


def setting(seed: int) -> Scenario:
    """A market of random fragility with three pieces of news in the run."""
    draw = generator(seed, "scenario")
    drawn = scenario("random", seed)
    starts = sorted(draw.uniform(1_200.0, 4_800.0, 3).tolist())
    sizes = (0.004 * (0.03 / 0.004) ** draw.random(3)).tolist()
    signs = np.where(draw.random(3) < 0.6, -1.0, 1.0).tolist()
    news = tuple(
        News(start_s=s, over_s=30.0, move=z * g)
        for s, z, g in zip(starts, sizes, signs, strict=True)
    )
    return replace(drawn, news=news)


def record(seed: int, *, variant: Variant = "first", minutes: int = MINUTES) -> Tape:
    """Run the market of that seed; its asset goes by the seed, so that all are graded."""
    asset = ASSETS[seed % len(ASSETS)]
    market = Market(setting(seed), seed=seed, variant=variant, assets=(asset,))
    start = market.at
    candles = [_candles(market, v.name, asset.name, start) for v in VENUES]
    interests = [past_interests(market, v.name, asset.name) for v in VENUES]
    late: deque[list[float]] = deque(maxlen=INTEREST_LAG_S + 1)
    seconds: list[Second] = []
    forced: list[Print] = []
    truths: list[Truth] = []
    lots = [market.contract(v.name, asset.name).lot_base for v in VENUES]
    tick = [market.contract(v.name, asset.name).tick_usd for v in VENUES]
    places = {v.name: i for i, v in enumerate(VENUES)}
    for second in range(1, minutes * 60 + 1):
        step = market.step()
        trades: list[list[tuple[float, float, Taker]]] = [[] for _ in VENUES]
        for t in step.trades:
            i = places[t.venue]
            trades[i].append((t.tick * tick[i], t.lots * lots[i], t.taker))
        done = [_print(market, r) for r in step.liquidations]
        forced.extend(p for p in done if p.usd > 0)
        tickers = [market.ticker(v.name, asset.name) for v in VENUES]
        late.append([t.open_interest * lot for t, lot in zip(tickers, lots, strict=True)])
        is_read = second % INTEREST_EVERY_S == 0
        for i, venue in enumerate(VENUES):
            own = [(_SIDES[p.side], p.usd) for p in done if p.venue == venue.name and p.usd > 0]
            seconds.append(
                Second(
                    at=step.at,
                    venue=i,
                    trades=trades[i],
                    prints=_printed(venue.name, own),
                    mark=tickers[i].mark * tick[i],
                    interest=late[0][i] if is_read else None,
                )
            )
        if second >= FIRST_S and second % EVERY_S == 0:
            truths.append(_truth(market, asset.name))
    instruments = [instrument_of(v, asset.name) for v in VENUES]
    return Tape(seed, variant, asset.name, instruments, candles, interests, seconds, forced, truths)


_SIDES: Final[tuple[Side, Side]] = ("long", "short")


def _printed(venue: str, prints: list[tuple[Side, float]]) -> list[tuple[Side, float]]:
    """What a map may learn from of a second's forced closes, as the venue's feed shows them."""
    if PRINTS[venue] in UNMEASURED or not prints:
        return []
    return prints if PRINTS[venue] == "all" else [max(prints, key=lambda p: p[1])]


def _print(market: Market, r: Liquidation) -> Print:
    contract = market.contract(r.venue, r.asset)
    lots = r.filled + r.taken + r.adl
    usd = lots * r.trigger_tick * contract.unit / MICRO
    mark = r.trigger_tick * contract.tick_usd
    return Print(r.at, r.venue, 0 if r.side == "long" else 1, usd, mark)


def _candles(market: Market, venue: str, asset: str, start: int) -> list[Candle]:
    """The past the population grew up in, as five-minute candles that end at today's mark."""
    mark = market.ticker(venue, asset).mark * market.contract(venue, asset).tick_usd
    levels = market.population.path[:, 0]
    price = mark * np.exp((levels - levels[-1]) * LEVEL)
    found = []
    for i in range(1, len(price)):
        two = sorted((float(price[i - 1]), float(price[i])))
        at = start - (len(price) - 1 - i) * CANDLE_NS
        found.append(Candle(at, two[0], two[1], float(price[i])))
    return found


def past_interests(market: Market, venue: str, asset: str) -> list[tuple[int, float]]:
    """Past open interest in base units as far as the venue shows it in one answer."""
    lot = market.contract(venue, asset).lot_base
    most = INTERESTS[venue]
    rows = market.past_interest(venue, asset)
    return [(at, lots * lot) for at, lots in rows[len(rows) - min(most, len(rows)) :]]


def _truth(market: Market, asset: str) -> Truth:
    table = positions(market)
    here = table["asset"] == asset
    places = {v.name: i for i, v in enumerate(VENUES)}
    size, mark = table["size_base"][here], table["mark_usd"][here]
    price = table["liquidation_usd"][here]
    distance = np.abs(np.log(np.where(np.isnan(price), mark, price) / mark))
    return Truth(
        at=market.at,
        marks={
            v.name: market.ticker(v.name, asset).mark * market.contract(v.name, asset).tick_usd
            for v in VENUES
        },
        venue=[places[v] for v in table["venue"][here].tolist()],
        side=(size < 0).astype(int).tolist(),
        distance=np.where(np.isnan(price), np.inf, distance).tolist(),
        base=np.abs(size).tolist(),
        has_stop=(~np.isnan(table["stop_usd"][here])).tolist(),
    )


def hear(m: Map, second: Second, completeness: Completeness | None) -> None:
    """Tell a map what one second showed."""
    for price, base, taker in second.trades:
        m.traded(second.at, price, base, taker)
    m.mark(second.at, second.mark)
    if completeness is not None:
        for side, usd in second.prints:
            m.liquidation(second.at, side, usd, completeness)
    if second.interest is not None:
        m.open_interest(second.at, second.interest)
    m.advance(second.at)
