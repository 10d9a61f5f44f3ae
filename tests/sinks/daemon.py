"""A daemon without feeds: a pipeline that is told events, and a server that shows what came of it.

Four venues of one asset, of which each has a book, a mark and open interest, so that there is a
map, a depth and a risk; the clock stands still unless moved.
"""

from contextlib import asynccontextmanager

import aiohttp
import msgspec

from monitor.config import PipelineConfig
from monitor.events import (
    NS,
    BookSnapshot,
    Candle,
    Candles,
    Funding,
    Liquidation,
    Listed,
    MarkPrice,
    OpenInterest,
    Tick,
    Tier,
)
from monitor.pipeline import Pipeline
from monitor.sinks.history import History
from monitor.sinks.live import Live
from monitor.sinks.metrics import Identity, Latest, Meter, Sources, build_registry
from monitor.sinks.server import Server
from tests.builders import AT, config, engine_config, instrument, venue_config

SYMBOLS = {"binance": "BTCUSDT", "bybit": "BTCUSDT", "okx": "BTC-USDT-SWAP", "hyperliquid": "BTC"}
PRICE = 100_000.0
TIERS = (Tier(0.0, 1e6, 0.004, 0.0, 125.0), Tier(1e6, None, 0.01, 6000.0, 50.0))


class Daemon:
    """See the module. `messages` are all that were published."""

    def __init__(self, *, run="run1", at=AT, assets=("BTC",)):
        self.at = at
        self.run = run
        self.price = PRICE
        self.names = {
            f"{venue}:{symbol.replace('BTC', asset)}": asset
            for asset in assets
            for venue, symbol in SYMBOLS.items()
        }
        venues = {
            venue: venue_config(
                venue, instruments={symbol.replace("BTC", asset): asset for asset in assets}
            )
            for venue, symbol in SYMBOLS.items()
        }
        self.pipeline = Pipeline(PipelineConfig(venues, engine_config(), []))
        self.latest = Latest()
        self.meter = Meter(0.25, lambda: self.at, lambda: self.at / NS)
        self.sources = Sources(
            identity=Identity(run, "0.1.0", "abc", "feed"),
            pipeline=self.pipeline,
            latest=self.latest,
            publish_interval_s=1.0,
            venue_interval_s=5.0,
            now=lambda: self.at,
            meter=self.meter,
        )
        self.live = Live(self.sources)
        self.history = History(run, lambda: self.at)
        self.messages = []
        for name, asset in self.names.items():
            venue, _, symbol = name.partition(":")
            spec = instrument(symbol, venue=venue, asset=asset, tiers=TIERS, name=name)
            self.tell(Listed(spec))

    def tell(self, *events):
        for event in events:
            for message in self.pipeline.engine.process(self.at, event):
                if hasattr(message, "kind"):
                    self.publish(message)

    def publish(self, message):
        self.messages.append(message)
        for taker in (self.latest, self.live, self.history):
            taker.put(message)

    def hear(self, price=None):
        """What every venue says of its market at a price; its book only when that has moved."""
        moved = price != self.price
        self.price = price or self.price
        for number, name in enumerate(self.names):
            mid = self.price * (1 + number * 1e-5)
            bids = [(round(mid - 1 - k * 12.5, 1), 2.0 + k % 3) for k in range(400)]
            asks = [(round(mid + 1 + k * 12.5, 1), 2.0 + k % 4) for k in range(400)]
            if moved:
                self.tell(BookSnapshot(name, self.at, bids, asks, depth=1000, maintained=False))
            self.tell(
                MarkPrice(name, self.at, mid, mid),
                OpenInterest(name, self.at, 3000.0 + 10.0 * number, None),
                Funding(name, self.at, 0.0001, 8.0, None),
            )

    def past(self):
        """Candles of two days, so that a map does not start empty."""
        for name in self.names:
            rows = [
                Candle(self.at - (576 - k) * 300 * NS, low, low * 1.012, low * 1.006)
                for k in range(576)
                for low in [self.price * (0.97 + 0.05 * ((k * 37) % 100) / 100)]
            ]
            self.tell(Candles(name, 300, rows))

    def run_for(self, seconds, *, price=None, step=1.0):
        """Let time pass, ticking and hearing the market."""
        start = self.price
        count = round(seconds / step)
        for k in range(count):
            self.at += int(step * NS)
            target = start if price is None else start + (price - start) * (k + 1) / count
            self.hear(target)
            self.tell(Tick(self.at))
        self.meter.advanced(self.at)
        return self

    def liquidate(self, *, side="long", usd=250_000.0, venue="bybit"):
        name = next(name for name in self.names if name.startswith(venue))
        kind = ("bankruptcy", None, "all", "Buy")
        self.tell(Liquidation(name, self.at, side, usd / self.price, usd, self.price, *kind))


def warm(**fields):
    """A daemon that has heard for a minute and knows everything there is to know."""
    daemon = Daemon(**fields)
    daemon.hear()
    daemon.past()
    return daemon.run_for(51)


def http_config(**changes):
    return msgspec.structs.replace(config().http, **({"port": 0} | changes))


@asynccontextmanager
async def served(daemon, **changes):
    """The daemon's server, and a client of it."""
    server = Server(
        http_config(**changes),
        daemon.sources,
        build_registry(daemon.sources),
        daemon.live,
        daemon.history,
    )
    url = await server.start()
    try:
        async with aiohttp.ClientSession(url) as session:
            yield session, server
    finally:
        await server.stop()
