"""A client that nobody here wrote, ccxt, against the simulated Binance, Bybit and OKX.

Only base URLs differ from live. What ccxt says is compared with the market itself, in ticks and
lots, while the market stands still or at the time a message carries.

What ccxt (4.5.64) cannot do, or does otherwise than docs/exchanges.md:

* Binance: no public margin tiers (nor has the venue, 1g); no funding interval for a symbol at the
  default of 8 h, because `fundingInfo` lists exceptions only (1c); `watch_trades` counts transfers
  to the insurance fund and auto-deleveraging as trades, unless told to take ``aggTrade`` (1f).
* Bybit: no sequence numbers are checked; `fetch_open_interest` is the sum of both sides (2d); the
  side of a liquidation is always "s" (ccxt reads the key's name for its value), so the venue's own
  letter is read here; it is the position's, where it is the order's on the other two (2e); the
  default of `watch_liquidations` returns one of a batch, so the cache is read here.
* OKX: `fetch_mark_price` does not name the product line, so `fetch_mark_prices` is used; bounds of
  tiers are contracts and called notional (3g); the stale push out of the cache that comes first on
  the liquidation channel is not dropped (3e); no mark or index price comes with funding.
"""

import asyncio
import importlib.util
import os
import time
from collections import Counter
from contextlib import asynccontextmanager

import msgspec
import pytest

from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS
from monitor.sim.rules import VENUES
from monitor.sim.scenarios import CALM, CRASH, News
from monitor.sim.serve import SimulatedVenues
from monitor.sim.wire.base import MS, closed_lots

if importlib.util.find_spec("ccxt") is None:
    REASON = "ccxt is not installed here: make interop"
    if os.environ.get("INTEROP") == "required":
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

import ccxt.pro

pytestmark = pytest.mark.parametrize("venue", ["binance", "bybit", "okx"])

PATIENCE_S = 90
SYMBOLS = {f"{asset.name}/USDT:USDT": asset.name for asset in ASSETS[:2]}
BTC = next(iter(SYMBOLS))

CRASHING = msgspec.structs.replace(CRASH, news=(News(start_s=2.0, over_s=6.0, move=-0.03),))

CLIENTS = {
    "binance": (ccxt.pro.binanceusdm, {}),
    "bybit": (ccxt.pro.bybit, {"fetchMarkets": {"types": ["linear"]}}),
    "okx": (ccxt.pro.okx, {"fetchMarkets": {"types": ["swap"]}}),
}
ASKED = {"binance": 1_000, "bybit": 1_000, "okx": 400}
"""Depth that ccxt is asked for."""

SEEN = {"binance": 900, "bybit": 1_000, "okx": 400}
"""Levels a side that are compared: ccxt cuts Binance's book, so its far end thins out (1b)."""


class Recorded(Market):
    """A market that remembers everything that happened, and every ticker by time in ms."""

    def __init__(self, scenario, **options):
        super().__init__(scenario, **options)
        self.steps = []
        self.tickers = {}
        self.remember()

    def step(self):
        step = super().step()
        self.steps.append(step)
        self.remember()
        return step

    def remember(self):
        names = [v.name for v in self.venues]
        now = {(v, a): self.ticker(v, a) for v in names for a in SYMBOLS.values()}
        self.tickers[self.at // MS] = now


def moved(urls, ws_url, http_url):
    """The same paths on our sockets; nothing may be left that leads outside."""
    if isinstance(urls, dict):
        return {name: moved(value, ws_url, http_url) for name, value in urls.items()}
    scheme, _, rest = urls.partition("://")
    _, slash, path = rest.partition("/")
    return {"https": http_url, "wss": ws_url}[scheme] + slash + path


class Desk:
    """A ccxt client of one venue, and the truth in its terms."""

    def __init__(self, venue, venues, **options):
        kind, own = CLIENTS[venue]
        self.venue, self.venues, self.market = venue, venues, venues.market
        self.client = kind({"options": own | {"tradesLimit": 100_000}, **options})
        self.client.urls["api"] = moved(self.client.urls["api"], *venues.urls[venue])
        self.wire = venues.wires[venue]
        self.tasks = []

    def watch(self, method, *arguments, **options):
        """Keep calling a `watch_` method, through cuts; the list of what it returned."""
        found = []

        async def forever():
            while True:
                try:
                    found.append(await getattr(self.client, method)(*arguments, **options))
                except ccxt.NetworkError:
                    await asyncio.sleep(0.1)

        self.tasks.append(asyncio.create_task(forever()))
        return found

    async def eventually(self, check, expected):
        """Until `check()` is what is expected; a watcher that failed fails the test."""
        deadline = time.monotonic() + PATIENCE_S
        while (got := check()) != expected:
            for task in self.tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, (got, expected)
            await asyncio.sleep(0.05)

    async def pause(self):
        """A quiet point: the step that may be under way has happened too."""
        self.venues.pause()
        period_s = self.market.step_ms / 1_000 / self.venues.speed
        steps = -1
        while steps != self.venues.counts.steps:
            steps = self.venues.counts.steps
            await asyncio.sleep(2 * period_s)

    async def subscribed(self, *topics):
        """Until the simulated venue knows the client's subscriptions."""
        await self.eventually(lambda: [t for t in topics if t not in self.wire.subscribers], [])

    async def run(self, seconds):
        """Let the market run for so long."""
        self.venues.resume()
        end = self.market.at + seconds * 10**9
        await self.eventually(lambda: self.market.at >= end, expected=True)
        await self.pause()

    # -------------------------------------------------------------------------------- units

    def ticks(self, price, asset):
        ticks = price / self.market.contract(self.venue, asset).tick_usd
        assert abs(ticks - round(ticks)) < 1e-3, price
        return round(ticks)

    def lots(self, amount, symbol):
        market = self.client.market(symbol)
        unit = self.market.contract(self.venue, market["base"]).lot_base
        lots = amount * market["contractSize"] / unit
        assert abs(lots - round(lots)) < 1e-3, amount
        return round(lots)

    def price(self, ticks, asset):
        return pytest.approx(ticks * self.market.contract(self.venue, asset).tick_usd, rel=1e-9)

    def side(self, levels, symbol, depth):
        asset = SYMBOLS[symbol]
        return [(self.ticks(x[0], asset), self.lots(x[1], symbol)) for x in levels[:depth]]

    def wrong_levels(self, book, symbol, depth):
        """Levels of a book that are not the market's, either way round."""
        true = self.market.peek_book(self.venue, SYMBOLS[symbol])
        wrong = []
        for name, levels in (("bids", true.bids), ("asks", true.asks)):
            got = self.side(book[name], symbol, depth)
            wrong += sorted(set(got) ^ set(levels[:depth]))
            wrong += ["order"] if not wrong and got != levels[:depth] else []
        return wrong

    # -------------------------------------------------------------------------------- truth

    def trades(self, symbol):
        """Every print since the market was made."""
        asset = SYMBOLS[symbol]
        return [
            (t.taker, t.tick, t.lots)
            for step in self.market.steps
            for t in step.trades
            if (t.venue, t.asset) == (self.venue, asset)
        ]

    def transfers(self, symbol):
        """What the insurance fund or opposite accounts took over, as taker side, price and lots."""
        asset = SYMBOLS[symbol]
        return [
            ("sell" if t.side == "long" else "buy", t.tick, t.lots)
            for step in self.market.steps
            for t in step.transfers
            if (t.venue, t.asset) == (self.venue, asset) and t.kind != "fund"
        ]

    def told(self, trades, symbol):
        """What ccxt calls trades, as the truth has them."""
        asset = SYMBOLS[symbol]
        return [
            (t["side"], self.ticks(t["price"], asset), self.lots(t["amount"], symbol))
            for t in trades
        ]

    def liquidations(self, symbol, price, order_side):
        """Every forced close that closed something, as (order or position side, lots, price)."""
        names = {"long": "sell", "short": "buy"} if order_side else {"long": "buy", "short": "sell"}
        return [
            (names[r.side], closed_lots(r), round(price(r), 3))
            for step in self.market.steps
            for r in step.liquidations
            if (r.venue, r.asset) == (self.venue, SYMBOLS[symbol]) and closed_lots(r)
        ]


@asynccontextmanager
async def desk(venue, scenario=CALM, *, step_ms=200, speed=1.0, **options):
    """A paused market and a client that knows the instruments.

    With a step of 200 ms no book channel has anything left to tell at a quiet point.
    """
    market = Recorded(
        scenario,
        seed=4,
        step_ms=step_ms,
        population=0.02,
        assets=ASSETS[:2],
        epoch_ns=time.time_ns() // 10**9 * 10**9,
    )
    async with SimulatedVenues(market, speed=speed) as venues:
        found = Desk(venue, venues, **options)
        try:
            await found.pause()
            await found.client.load_markets()
            yield found
        finally:
            for task in found.tasks:
                task.cancel()
            await asyncio.gather(*found.tasks, return_exceptions=True)
            await found.client.close()


def runs(trades):
    """Consecutive prints of one taker side at one price as one, however the venue merges them."""
    merged = []
    for side, tick, lots in trades:
        if merged and merged[-1][:2] == (side, tick):
            merged[-1] = (side, tick, merged[-1][2] + lots)
        else:
            merged.append((side, tick, lots))
    return merged


def volumes(trades):
    total = Counter()
    for side, _, lots in trades:
        total[side] += lots
    return total


# ---------------------------------------------------------------------------------- the tests


async def test_instruments_and_public_tiers_are_the_venues(venue):
    """Ticks, lots and contract sizes; Binance's tiers need a key, on the venue and here (1g)."""
    async with desk(venue) as d:
        assert d.client.symbols == sorted(SYMBOLS)
        for symbol, asset in SYMBOLS.items():
            market, true = d.client.market(symbol), d.market.contract(venue, asset)
            assert market["active"]
            assert market["linear"]
            assert market["swap"]
            assert market["precision"]["price"] == pytest.approx(true.tick_usd)
            assert d.lots(market["precision"]["amount"], symbol) == 1
        if venue == "binance":
            with pytest.raises(ccxt.AuthenticationError):
                await d.client.fetch_market_leverage_tiers(BTC)
            return
        rows = await d.client.fetch_market_leverage_tiers(BTC)
        true = next(v for v in VENUES if v.name == venue).tiers["BTC"]
        unit = d.client.market(BTC)["contractSize"] if venue == "okx" else 1.0
        rates = [row["maintenanceMarginRate"] for row in rows]
        assert rates == pytest.approx([tier.rate_ppm / 1e6 for tier in true])
        caps = [row["maxNotional"] * unit for row in rows[:-1]]
        assert caps == pytest.approx([tier.floor for tier in true[1:]])


async def test_books_equal_the_truth_level_for_level_at_quiet_points_and_after_a_cut(venue):
    async with desk(venue, speed=4.0) as d:
        found = {s: d.watch("watch_order_book", s, ASKED[venue]) for s in SYMBOLS}
        for turn in range(4):
            if turn == 3:
                before = d.venues.counts.connections
                d.venues.cut(venue)
                await d.eventually(lambda n=before: d.venues.counts.connections > n, expected=True)
            seen = {s: len(books) for s, books in found.items()}
            await d.run(3)
            for symbol, books in found.items():
                await d.eventually(lambda n=seen[symbol], b=books: len(b) > n, expected=True)
                await d.eventually(
                    lambda s=symbol, b=books: d.wrong_levels(b[-1], s, SEEN[venue]), []
                )
                assert min(len(books[-1]["bids"]), len(books[-1]["asks"])) >= SEEN[venue]
            if turn == 1:  # once: ccxt keeps to the venue's request budget, a second each
                rest = await d.client.fetch_order_book(BTC, ASKED[venue])
                assert len(rest["bids"]) == ASKED[venue]
                assert d.wrong_levels(rest, BTC, ASKED[venue]) == []
        assert min(len(books) for books in found.values()) > 4


@pytest.mark.parametrize("scenario", [CALM, CRASHING], ids=["calm", "crash"])
async def test_trades_are_the_trades_that_happened(venue, scenario):
    """By quantity, side and price, in order.

    On Binance those of ``@aggTrade`` when all is calm; in the crash those of ``@trade``, ccxt's
    default, where the transfers to the fund stand beside them and are told by their kind (1f).
    """
    step_ms, speed, seconds = (200, 4.0, 6) if scenario is CALM else (500, 10.0, 15)
    async with desk(venue, scenario, step_ms=step_ms, speed=speed) as d:
        name = "aggTrade" if scenario is CALM else "trade"
        options = {"params": {"name": name}} if venue == "binance" else {}
        kind = {"binance": f"{{}}@{name}", "bybit": "publicTrade.{}", "okx": "trades:{}"}[venue]
        ids = {s: d.client.market(s)["id"] for s in SYMBOLS}
        if venue == "binance":
            ids = {s: name.lower() for s, name in ids.items()}
        before = {s: len(d.trades(s)) for s in SYMBOLS}
        found = {s: d.watch("watch_trades", s, **options) for s in SYMBOLS}
        await d.subscribed(*(kind.format(name) for name in ids.values()))
        await d.run(seconds)
        for symbol, calls in found.items():
            true = d.trades(symbol)[before[symbol] :]
            assert len(true) > 5

            def told(calls=calls, symbol=symbol, *, on_book=True):
                rows = [t for trades in calls for t in trades]
                kinds = [t["info"].get("X", "MARKET") == "MARKET" for t in rows]
                rows = [t for t, is_market in zip(rows, kinds, strict=True) if is_market == on_book]
                return d.told(rows, symbol)

            await d.eventually(lambda told=told: volumes(told()), volumes(true))
            assert runs(told()) == runs(true)
            if venue == "binance":
                off_book = told(on_book=False)
                assert off_book == d.transfers(symbol)
                assert bool(off_book) == (scenario is CRASHING)


async def test_marks_indices_funding_and_open_interest_are_the_truth(venue):
    async with desk(venue, CRASHING, step_ms=500, speed=10.0) as d:
        await d.run(9)
        for symbol, asset in SYMBOLS.items():
            true = d.market.ticker(venue, asset)
            contract = d.market.contract(venue, asset)
            rate = await d.client.fetch_funding_rate(symbol)
            assert rate["fundingRate"] == pytest.approx(true.funding_rate_e8 / 1e8)
            assert rate["fundingTimestamp"] == true.next_funding_at // MS
            assert rate["interval"] == (None if venue == "binance" else "8h")
            interest = await d.client.fetch_open_interest(symbol)
            amount = interest["openInterestAmount"] * d.client.market(symbol)["contractSize"]
            sides = 2 if venue == "bybit" else 1
            assert amount == pytest.approx(sides * true.open_interest * contract.lot_base)
            if venue == "okx":
                prices = (await d.client.fetch_mark_prices([symbol]))[symbol]
                assert prices["markPrice"] == d.price(true.mark, asset)
            else:
                assert rate["markPrice"] == d.price(true.mark, asset)
                assert rate["indexPrice"] == d.price(true.index, asset)
            ticker = await d.client.fetch_ticker(symbol)
            assert ticker["last"] == d.price(true.last, asset)


async def test_pushed_marks_and_funding_are_the_truth_of_their_time(venue):
    """Bybit pushes all of it in its ticker; ccxt has no funding rate pushed by Binance."""
    async with desk(venue, speed=4.0) as d:
        await d.run(1)
        rates = d.watch("watch_funding_rate", BTC) if venue == "okx" else None
        found = d.watch("watch_ticker" if venue == "bybit" else "watch_mark_price", BTC)
        kind = {"binance": "btcusdt@markPrice@1s", "bybit": "tickers.BTCUSDT"}
        await d.subscribed(kind.get(venue, "mark-price:BTC-USDT-SWAP"))
        await d.run(3.5)
        await d.eventually(lambda: len(found) >= 3, expected=True)
        for told in found:
            true = d.market.tickers[told["timestamp"]][venue, "BTC"]
            assert told["markPrice"] == d.price(true.mark, "BTC")
            if venue != "okx":
                assert told["indexPrice"] == d.price(true.index, "BTC")
            if venue == "bybit":
                rate = float(told["info"]["fundingRate"])
                assert rate == pytest.approx(true.funding_rate_e8 / 1e8)
            if venue == "binance":
                assert float(told["info"]["r"]) == pytest.approx(true.funding_rate_e8 / 1e8)
        if rates is not None:
            await d.eventually(lambda: len(rates) >= 1, expected=True)
            true = [now[venue, "BTC"].funding_rate_e8 / 1e8 for now in d.market.tickers.values()]
            assert rates[0]["fundingRate"] in [pytest.approx(rate) for rate in true]


async def test_liquidations_are_all_of_them_or_some_as_the_venue_promises(venue):
    """Bybit prints all, with the position's side and the bankruptcy price (2e).

    Binance prints at most one a symbol and second with the average price of the fill (1e), OKX
    likewise with the bankruptcy price, after an old one out of its cache (3e). With a step of
    500 ms no batch of Bybit is left at the end.
    """
    async with desk(venue, CRASHING, step_ms=500, speed=10.0, newUpdates=False) as d:
        topics = {
            "binance": [f"{a.lower()}usdt@forceOrder" for a in SYMBOLS.values()],
            "bybit": [f"allLiquidation.{a}USDT" for a in SYMBOLS.values()],
            "okx": ["liquidation-orders:SWAP"],
        }
        for symbol in SYMBOLS:
            d.watch("watch_liquidations", symbol)
        await d.subscribed(*topics[venue])
        await d.run(20)
        for symbol, asset in SYMBOLS.items():
            contract = d.market.contract(venue, asset)

            def average(record):
                rest = closed_lots(record) - record.filled
                value = record.filled * record.fill_tick + rest * record.bankruptcy_tick
                return value / closed_lots(record)

            def bankruptcy(record):
                return record.bankruptcy_tick

            price = average if venue == "binance" else bankruptcy
            true = Counter(d.liquidations(symbol, price, order_side=venue != "bybit"))
            assert sum(true.values()) >= 5

            def told(symbol=symbol, contract=contract):
                rows = [x for x in d.client.liquidations or [] if x["symbol"] == symbol]
                return [
                    (
                        row["info"]["S"].lower() if venue == "bybit" else row["side"],
                        d.lots(row["contracts"], symbol),
                        round(row["price"] / contract.tick_usd, 3),
                        row["timestamp"],
                    )
                    for row in rows
                ]

            if venue == "bybit":
                count = sum(true.values())
                await d.eventually(lambda told=told, n=count: len(told()) >= n, expected=True)
                assert Counter(row[:3] for row in told()) == true
                continue
            await d.eventually(lambda told=told: len(told()) >= 2, expected=True)
            await asyncio.sleep(0.3)
            fresh = [row for row in told() if row[3] >= d.market.epoch_ns // MS]
            assert len(told()) - len(fresh) == (venue == "okx" and symbol == BTC)
            assert 2 <= len(fresh) < sum(true.values())
            seconds = Counter((row[3] - 1) // 1_000 for row in fresh)
            assert max(seconds.values()) == 1
            half_a_cent = 0.00501 / contract.tick_usd
            for row in fresh:
                near = [x for x in true if x[:2] == row[:2] and abs(x[2] - row[2]) <= half_a_cent]
                assert near, row
