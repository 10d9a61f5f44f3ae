"""The simulated market: all venues, all assets, one step at a time, nothing hidden from its owner.

Pure: no clock, no I/O, no global randomness. Same scenario, seed and step: same market to the
last lot, on any machine. Nothing here knows a wire format; a wire layer is built on this API:

>>> market = Market(scenario("crash"), seed=1, step_ms=250)
>>> step = market.step()                              # 250 ms later
>>> step.trades, step.liquidations, step.transfers    # what happened in the step
>>> market.book("binance", "BTC")                     # whole book, best first, (ticks, lots)
>>> market.book_changes("binance", "BTC")             # levels changed since the last call
>>> market.ticker("okx", "ETH")                       # mark, index, funding, open interest, fund
>>> market.contract("bybit", "SOL").tick_usd          # what a tick and a lot are worth
>>> market.is_silent("bybit")                         # the wire layer must send nothing now

Units: prices in integer ticks, sizes in integer lots (`Contract.tick_usd`, `Contract.lot_base`),
money in integer micro-USD, time `at` in integer nanoseconds since the Unix epoch, starting at
`epoch_ns`. `side` is the position's, `taker` the aggressor's. Open interest is one-sided. The
funding rate is per the venue's own interval (`funding_interval_s`), in units of 1e-8.

`book_changes` keeps one cursor per contract: call `book` for a snapshot that goes with it
(it moves the cursor), and `peek_book` where the cursor must not move.

A twin (`impact=False`) sees the same chance and the same people, but its forced orders do not
touch the book; the difference of the mid paths is the endogenous displacement (model.md C1), see
`monitor.sim.truth`. Positions and true liquidation prices are in `monitor.sim.truth` too.
"""

import math

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.sim.accounts import Accounts, Kind, Watch
from monitor.sim.book import Books
from monitor.sim.chance import Draws
from monitor.sim.exchange import Exchange, Trade, Transfer
from monitor.sim.flow import Arbitrage, Carry, LargeOrders, Noise
from monitor.sim.fundamental import Fundamental
from monitor.sim.liquidation import Liquidation, LiquidationEngine
from monitor.sim.marks import SAMPLE_S, Marks
from monitor.sim.parameters import ASSETS, LEVEL, Asset, Variant
from monitor.sim.population import CROWD_S, Population
from monitor.sim.rules import MICRO, VENUES, Contract, Venue, contracts_of
from monitor.sim.scenarios import CALM, Scenario
from monitor.sim.traders import Directional

NS = 1_000_000_000
EPOCH_NS = 1_767_225_600 * NS
"""2026-01-01T00:00:00Z, a funding time on every venue."""

Levels = list[tuple[int, int]]
_MINUTE_S = 60.0
_TREND_S = 14_400.0
PATH_STEP_NS = 300 * NS
"""Between two prices of the past (`monitor.sim.population`)."""
# What flow alone moves the price in a minute, in levels: makers' first idea of a usual move.
_FLOW_LEVELS = 3.0


class Step(Struct, frozen=True):
    """What happened between the last step and `at`, in order of execution."""

    at: int
    trades: list[Trade]
    liquidations: list[Liquidation]
    transfers: list[Transfer]


class Book(Struct, frozen=True):
    """Levels of one contract, (ticks, lots), best first; lots 0 in a change removes the level."""

    at: int
    venue: str
    asset: str
    bids: Levels
    asks: Levels


class Ticker(Struct, frozen=True):
    """The slow numbers of one contract; `fund_usd` is the venue's insurance fund at mark."""

    at: int
    venue: str
    asset: str
    mark: int
    index: int
    last: int
    funding_rate_e8: int
    funding_interval_s: int
    next_funding_at: int
    open_interest: int
    fund_usd: float


class Market:
    """Venues x assets, stepped by `step_ms`; see the module docstring for the API."""

    def __init__(
        self,
        scenario: Scenario = CALM,
        *,
        seed: int = 0,
        step_ms: int = 1_000,
        variant: Variant = "first",
        impact: bool = True,
        assets: tuple[Asset, ...] = ASSETS,
        venues: tuple[Venue, ...] = VENUES,
        epoch_ns: int = EPOCH_NS,
        population: float = 1.0,
    ) -> None:
        """Populate the market at `epoch_ns`.

        `population` scales open interest and depth together: 0.1 is a ten times smaller market
        of the same shape, for tests.
        """
        assert 10 <= step_ms <= 5_000, step_ms
        self.scenario, self.seed, self.step_ms = scenario, seed, step_ms
        self.parameters = scenario.parameters(variant)
        self.assets = tuple(
            msgspec.structs.replace(
                a,
                open_interest_usd=a.open_interest_usd * population,
                depth_usd=a.depth_usd * population,
            )
            for a in assets
        )
        self.venues = venues
        self.contracts = contracts_of(venues, tuple(a.name for a in assets))
        self._index = {(c.venue, c.asset): c.index for c in self.contracts}
        self.at = self.epoch_ns = epoch_ns
        self._step_s = step_ms / 1_000
        self._steps = 0
        self._build(impact=impact)

    def _build(self, *, impact: bool) -> None:
        p, assets, contracts, venues = self.parameters, self.assets, self.contracts, self.venues
        self.books = Books(contracts, venues, assets, p, seed=self.seed)
        self.accounts = Accounts(venues, contracts, len(assets))
        self.exchange = Exchange(venues, contracts, self.books, self.accounts, forced_impact=impact)
        self.marks = Marks(venues, contracts, len(assets))
        self._follow = np.zeros(len(assets))
        self._permanent = np.zeros(len(assets))
        self._survival = np.ones(len(contracts))
        self._anchor = self.books.centre.copy()
        self._share = np.array([v.share for v in venues])[:, None]
        self._interest = np.array([a.open_interest_usd for a in assets])
        self._beta = np.array([a.beta for a in assets])
        self._start_prices()
        depegs = self.scenario.depegs
        collateral = max((d.collateral_share for d in depegs), default=0.3)
        self.population = Population(
            venues, contracts, assets, p, seed=self.seed, collateral_share=collateral
        )
        self.population.settle_in(self.accounts, self.marks.mark)
        step_s, seed = self._step_s, self.seed
        self.fundamental = Fundamental(assets, p, seed=seed, step_s=step_s, news=self.scenario.news)
        depth = [assets[c.asset_index].depth_usd * venues[c.venue_index].share for c in contracts]
        self.engine = LiquidationEngine(self.exchange, p, depth)
        self.watch = Watch(self.accounts)
        self._noise = Noise(self.exchange, assets, p, seed=seed, step_s=step_s)
        self._traders = Directional(
            self.exchange, assets, p, seed=seed, step_s=step_s, collateral_share=collateral
        )
        self._carry = Carry(self.exchange, assets, p, step_s)
        self._arbitrage = Arbitrage(self.exchange, assets, p, step_s)
        self._large = LargeOrders(self.exchange, assets, self.scenario.orders, step_s)
        self._drift = Draws(seed, "venue_basis", kind="normal", width=len(contracts))
        self._basis = np.zeros(len(contracts))
        self._mood_draws = Draws(seed, "survival", kind="normal", width=1)
        first = float(self._mood_draws.row()[0])
        self._mood = p.survival_noise_sd * first
        self._timid = 1.0
        self._heat, self._unusual = 1.0, 0.0
        self._recent = [self.books.mid()] * max(1, round(_MINUTE_S / step_s))
        sigma = self.fundamental.sigma * (self.fundamental.calm * math.sqrt(_MINUTE_S))
        self._variance = np.tile(sigma * sigma + _FLOW_LEVELS**2, len(self.venues))
        past = self.population.path[-round(_TREND_S / 300.0) :: 1] + self._first_level
        self._hours = [row for row in past for _ in range(5)][-round(_TREND_S / _MINUTE_S) :]

    def _start_prices(self) -> None:
        self._first_level = float(self.books.centre[0])
        mid = self.books.ticks_at(self.books.mid())
        self.exchange.last[:] = np.rint(mid)
        self.marks.update(mid, mid, self.exchange.last, self._to_funding_s())
        self.exchange.marks = self.marks.mark

    # ----------------------------------------------------------------------------- stepping

    def step(self) -> Step:
        """Advance by one step and return what happened in it."""
        exchange = self.exchange
        exchange.trades, exchange.transfers, self.engine.records = [], [], []
        self._steps += 1
        self.at = exchange.at = self.epoch_ns + self._steps * self.step_ms * 1_000_000
        self._move_makers()
        self._move_marks()
        rows = self.watch.rows(exchange.marks)
        self.engine.run(rows, self._step_s)
        self.engine.unwind_funds(self._step_s)
        self._large.step()
        self._noise.step(self.fundamental.stress, self._survival)
        self._traders.step(self._trend(), self._heat, self.watch)
        self._carry.step(self._heat)
        self._arbitrage.step(self._out(), self._survival)
        return Step(self.at, exchange.trades, self.engine.records, exchange.transfers)

    def _move_makers(self) -> None:
        """Quotes follow news at once, forget flow slowly, and thin out under stress."""
        p, books, dt = self.parameters, self.books, self._step_s
        displaced = (books.centre - self._anchor).reshape(len(self.venues), -1)
        mean = (displaced * self._share).cumsum(axis=0)[-1]
        self._follow += (p.spot_follow * mean - self._follow) * min(1.0, dt / p.spot_follow_s)
        # A tenth of what the flow displaces stays for good, over the time it takes to fade. It is
        # the volume that informs: what a thinned book adds to a displacement brings no news.
        fade = math.exp(-dt / p.resilience_s)
        left = (self._survival.reshape(displaced.shape) * self._share).cumsum(axis=0)[-1]
        self._permanent += p.permanent_share * (1 - fade) * left * mean
        fair = self._first_level + self.fundamental.step() + self._permanent + self._spill(mean)
        self._fair = fair
        # Venues drift apart a little on their own; arbitrage holds them together.
        keep = math.exp(-dt / 120.0)
        self._basis = self._basis * keep + math.sqrt(1 - keep * keep) * self._drift.row()
        anchor = np.tile(fair, len(self.venues)) + self._basis
        books.centre = anchor + displaced.ravel() * fade
        self._anchor = anchor
        self._thin_out()
        books.requote(anchor, self._survival, dt)
        books.hide(anchor, dt / (self._timid * self._timid))

    def _spill(self, displaced: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the flow on the other assets does to each one's fair price, in levels."""
        weighted = displaced / self._beta * self._interest
        total = float(weighted.cumsum()[-1])
        others = (total - weighted) / (self._interest.cumsum()[-1] - self._interest + 1e-9)
        spill: NDArray[np.float64] = self.parameters.contagion * self._beta * others
        return spill

    def _thin_out(self) -> None:
        """Survival of depth follows the last minute's move in sigmas: fast down, slowly up.

        The sigmas are those that makers have seen for hours, flow included. A yardstick of the
        fundamental alone would make ordinary flow a storm in every quiet hour.
        """
        p, dt = self.parameters, self._step_s
        mid = self.books.mid()
        self._recent.append(mid)
        move = np.abs(mid - self._recent.pop(0))
        # Makers do not get used to a storm within minutes: an outlier counts as three sigmas.
        seen = np.minimum(move * move, 9.0 * self._variance)
        self._variance += (seen - self._variance) * min(1.0, dt / p.memory_s)
        z = move / np.maximum(np.sqrt(self._variance), 2.0)
        # A move draws people in: entries rise with it and calm down over minutes.
        unusual = max(0.0, float(z.cumsum()[-1]) / len(z) - 2.0)
        self._unusual += (unusual - self._unusual) * min(1.0, dt / p.heat_s)
        self._heat = min(p.heat_max, 1.0 + p.heat_gain * self._unusual)
        # How timid makers are varies by the hour, so that some cascades find far less than others.
        keep = math.exp(-dt / p.survival_noise_s)
        shock = p.survival_noise_sd * math.sqrt(1 - keep * keep) * float(self._mood_draws.row()[0])
        self._mood = self._mood * keep + shock
        timid = self._timid = round(math.exp(self._mood), 9)
        floor = math.log(p.survival_floor)
        wanted = [round(math.exp(timid * max(floor, -p.survival_slope * x)), 9) for x in z.tolist()]
        gap = np.array(wanted) - self._survival
        rate = np.where(gap < 0, min(1.0, dt / p.survival_fall_s), min(1.0, dt / p.survival_rise_s))
        self._survival = self._survival + gap * rate

    def _move_marks(self) -> None:
        """Index, marks, collateral and, when due, funding."""
        elapsed_ms = self._steps * self.step_ms
        spot = self._fair + self._follow
        index = self.books.ticks_at(np.tile(spot, len(self.venues)))
        mid = self.books.ticks_at(self.books.mid())
        if elapsed_ms % round(SAMPLE_S * 1_000) < self.step_ms:
            self.marks.sample(index, mid)
        if elapsed_ms % 60_000 < self.step_ms:
            self._hours.append(self.books.mid().reshape(len(self.venues), -1)[0])
            self._hours.pop(0)
        self.marks.update(index, mid, self.exchange.last, self._to_funding_s())
        self.exchange.marks = self.marks.mark
        for v, venue in enumerate(self.venues):
            self.accounts.haircut_ppm[v] = self._haircut_ppm(venue.name)
            if self._seconds(self.at) % venue.funding_interval_s < self._step_s:
                self.marks.settle_funding(self.accounts, v)
                self.watch.forget()

    def _haircut_ppm(self, venue: str) -> int:
        """Lost value of the venue's alternative collateral, parts per million."""
        t = (self.at - self.epoch_ns) / NS
        for d in self.scenario.depegs:
            if d.venue != venue or t < d.start_s:
                continue
            fallen = min(1.0, (t - d.start_s) / d.fall_s)
            back = (t - d.start_s - d.fall_s - d.hold_s) / d.rise_s
            return round(MICRO * d.depth * (fallen - min(1.0, max(0.0, back))))
        return 0

    def _trend(self) -> NDArray[np.float64]:
        """The last four hours' move per asset, in its own sigmas."""
        move = self.books.mid().reshape(len(self.venues), -1)[0] - self._hours[0]
        scale = self.fundamental.sigma * math.sqrt(_TREND_S)
        trend: NDArray[np.float64] = move / scale
        return trend

    def _seconds(self, at: int) -> float:
        return (at % (86_400 * NS)) / NS

    def _to_funding_s(self) -> NDArray[np.float64]:
        now = self._seconds(self.at)
        interval = np.array([self.venues[c.venue_index].funding_interval_s for c in self.contracts])
        left: NDArray[np.float64] = interval - now % interval
        return left

    # -------------------------------------------------------------------------------- views

    def contract(self, venue: str, asset: str) -> Contract:
        """Tick, lot and unit of one contract."""
        return self.contracts[self._index[venue, asset]]

    def book(self, venue: str, asset: str) -> Book:
        """The whole book; the next `book_changes` continues from it."""
        c = self._index[venue, asset]
        self.books.published[c] = self.books.levels[c]
        return self.peek_book(venue, asset)

    def peek_book(self, venue: str, asset: str) -> Book:
        """The whole book, leaving the cursor of `book_changes` where it is."""
        bids, asks = self.books.levels_of(self._index[venue, asset])
        return Book(self.at, venue, asset, bids, asks)

    def book_changes(self, venue: str, asset: str) -> Book:
        """Levels changed since the last `book_changes` or `book` of this contract."""
        bids, asks = self.books.changes(self._index[venue, asset])
        return Book(self.at, venue, asset, bids, asks)

    def ticker(self, venue: str, asset: str) -> Ticker:
        """Mark, index, funding, open interest and fund of one contract now."""
        c = self._index[venue, asset]
        v = self.contracts[c].venue_index
        interval = self.venues[v].funding_interval_s
        fund = self.accounts.role(v, Kind.FUND)
        return Ticker(
            at=self.at,
            venue=venue,
            asset=asset,
            mark=int(self.marks.mark[c]),
            index=int(self.marks.index[c]),
            last=int(self.exchange.last[c]),
            funding_rate_e8=int(self.marks.rate_e8[c]),
            funding_interval_s=interval,
            next_funding_at=(self.at // (interval * NS) + 1) * interval * NS,
            open_interest=self.accounts.longs[c],
            fund_usd=self.accounts.equity_of(fund, self.marks.mark) / MICRO,
        )

    def past(self, venue: str, asset: str) -> list[tuple[int, float]]:
        """Prices before the first step that the population grew up in: (ns, ticks), oldest first.

        They end now. Empty once the market has moved, for what came then is in its steps.
        """
        if self._steps:
            return []
        contract = self.contract(venue, asset)
        levels = self.population.path[:, contract.asset_index]
        ticks = int(self.exchange.last[contract.index]) * np.exp((levels - levels[-1]) * LEVEL)
        first = self.at - (len(ticks) - 1) * PATH_STEP_NS
        return [(first + n * PATH_STEP_NS, tick) for n, tick in enumerate(ticks.tolist())]

    def past_interest(self, venue: str, asset: str) -> list[tuple[int, int]]:
        """Open interest before the first step, at the times of `past`: (ns, lots), oldest first.

        It stood where it stands now without the crowd, until that came. Empty once the market
        has moved.
        """
        if self._steps:
            return []
        c = self._index[venue, asset]
        now, crowd = self.accounts.longs[c], int(self.population.crowd[c])
        steps = len(self.population.path) - 1
        came = round(CROWD_S * NS) // PATH_STEP_NS
        return [
            (self.at - age * PATH_STEP_NS, now - crowd * min(age, came) // came)
            for age in range(steps, -1, -1)
        ]

    def is_silent(self, venue: str) -> bool:
        """Whether the venue's feeds are down now (scenario `venue-outage`)."""
        t = (self.at - self.epoch_ns) / NS
        return any(
            o.venue == venue and o.start_s <= t < o.start_s + o.over_s
            for o in self.scenario.outages
        )

    def _out(self) -> NDArray[np.bool_]:
        return np.array([self.is_silent(v.name) for v in self.venues])

    def mid_levels(self) -> NDArray[np.float64]:
        """Share-weighted mid of every asset over its venues, in levels (1 bp of log price)."""
        mids = self.books.mid().reshape(len(self.venues), -1)
        mean: NDArray[np.float64] = (mids * self._share).cumsum(axis=0)[-1]
        return mean

    def log_price(self) -> NDArray[np.float64]:
        """Log of the pooled mid over the first price, per asset."""
        return (self.mid_levels() - self._first_level) * LEVEL
