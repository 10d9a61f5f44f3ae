"""A market without economics: many instruments, valid books, next to no cost. For benchmarks.

`LoadMarket` has the interface that the wires read (`base.Source`), so that what it produces goes
through the same formats, numbering and subscriptions as the real simulation. Levels stand on a
fixed grid around an unmoving price and change their sizes; marks wiggle; now and then a trade.
Nothing in it means anything.
"""

from typing import Final

import msgspec
import numpy as np

from monitor.sim.exchange import Taker, Trade
from monitor.sim.market import Book, Step, Ticker
from monitor.sim.parameters import Asset
from monitor.sim.rules import VENUES, Contract, Tier, Venue, contracts_of
from monitor.sim.wire.base import MS, NS, Levels

INSTRUMENTS_MAX: Final = 1_000
"""Instruments a venue; the daemon is measured with up to 300."""

TICK_USD: Final = 0.01
LOT_BASE: Final = 0.001
PRICE_TICKS: Final = 20_000
"""Every instrument costs 200 USD and something."""

_DRAWS: Final = 1 << 16


class LoadMarket:
    """`instruments` synthetic contracts on each venue, stepped by `step_ms`.

    At each step `changes` levels of every book get another size, most of them near the touch, and
    every `trade_every`-th contract in turn has a trade.
    """

    def __init__(
        self,
        instruments: int,
        *,
        venues: tuple[str, ...] = ("binance",),
        step_ms: int = 100,
        levels: int = 1_000,
        changes: int = 8,
        trade_every: int = 5,
        seed: int = 0,
        epoch_ns: int = 1_767_225_600 * NS,
    ) -> None:
        assert 1 <= instruments <= INSTRUMENTS_MAX, instruments
        names = tuple(f"S{n:03d}" for n in range(instruments))
        self.assets = tuple(Asset(name, 200.0, 0.05, 1e6, 1e6, 1.0) for name in names)
        self.venues = tuple(_synthetic(v, names) for v in VENUES if v.name in venues)
        self.contracts = contracts_of(self.venues, names)
        self.at = epoch_ns
        self.step_ms = step_ms
        self._index = {(c.venue, c.asset): c.index for c in self.contracts}
        self._steps = 0
        self._changes, self._trade_every, self._levels = changes, trade_every, levels
        random = np.random.Generator(np.random.PCG64(seed))
        # Distances of changed levels: exponential, so that the touch changes most.
        far = np.minimum(random.exponential(levels / 20, _DRAWS).astype(np.int64), levels - 1)
        self._far: list[int] = far.tolist()
        self._size: list[int] = random.integers(1, 5_000, _DRAWS).tolist()
        self._draw = 0
        sizes = random.integers(1, 5_000, (len(self.contracts), 2, levels)).tolist()
        self._sizes: list[list[list[int]]] = sizes
        self._changed: list[tuple[dict[int, int], dict[int, int]]] = [({}, {}) for _ in sizes]

    def step(self) -> Step:
        """Change a few levels of every book."""
        self._steps += 1
        self.at += self.step_ms * MS
        trades: list[Trade] = []
        for contract in self.contracts:
            c = contract.index
            for n in range(self._changes):
                draw = self._draw = (self._draw + 1) % _DRAWS
                side, distance, lots = n & 1, self._far[draw], self._size[draw]
                self._sizes[c][side][distance] = lots
                self._changed[c][side][_tick(c, side, distance)] = lots
            if (c + self._steps) % self._trade_every == 0:
                taker: Taker = "buy" if self._draw & 1 else "sell"
                tick = _tick(c, self._draw & 1, 0)
                trade = Trade(self.at, contract.venue, contract.asset, tick, 1, taker, forced=False)
                trades.append(trade)
        return Step(self.at, trades, [], [])

    def contract(self, venue: str, asset: str) -> Contract:
        """Tick and lot."""
        return self.contracts[self._index[venue, asset]]

    def book(self, venue: str, asset: str) -> Book:
        """The whole book; `book_changes` continues from it."""
        self._changed[self._index[venue, asset]] = ({}, {})
        return self.peek_book(venue, asset)

    def peek_book(self, venue: str, asset: str) -> Book:
        """The whole book."""
        c = self._index[venue, asset]
        bids, asks = (self._side(c, side) for side in (0, 1))
        return Book(self.at, venue, asset, bids, asks)

    def book_changes(self, venue: str, asset: str) -> Book:
        """Levels changed since the last call."""
        c = self._index[venue, asset]
        bids, asks = self._changed[c]
        self._changed[c] = ({}, {})
        told_bids = sorted(bids.items(), reverse=True)
        return Book(self.at, venue, asset, told_bids, sorted(asks.items()))

    def ticker(self, venue: str, asset: str) -> Ticker:
        """A mark that wiggles, and constants."""
        c = self._index[venue, asset]
        middle = _tick(c, 0, 0)
        interval = self.venues[self.contracts[c].venue_index].funding_interval_s
        return Ticker(
            at=self.at,
            venue=venue,
            asset=asset,
            mark=middle + (self._steps + c) % 3,
            index=middle,
            last=middle,
            funding_rate_e8=10_000,
            funding_interval_s=interval,
            next_funding_at=(self.at // (interval * NS) + 1) * interval * NS,
            open_interest=1_000_000 + self._steps % 1_000,
            fund_usd=1e8,
        )

    def past(self, venue: str, asset: str) -> list[tuple[int, float]]:  # noqa: ARG002
        """None."""
        return []

    def past_interest(self, venue: str, asset: str) -> list[tuple[int, int]]:  # noqa: ARG002
        """None."""
        return []

    def is_silent(self, venue: str) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def _side(self, c: int, side: int) -> Levels:
        sizes = self._sizes[c][side]
        return [(_tick(c, side, distance), lots) for distance, lots in enumerate(sizes)]


def _tick(c: int, side: int, distance: int) -> int:
    """Price of a level: the best bid and ask of contract `c` are one tick apart."""
    middle = PRICE_TICKS + 7 * c
    return middle - distance if side == 0 else middle + 1 + distance


def _synthetic(venue: Venue, names: tuple[str, ...]) -> Venue:
    return msgspec.structs.replace(
        venue,
        tick_usd=dict.fromkeys(names, TICK_USD),
        lot_base=dict.fromkeys(names, LOT_BASE),
        tiers=dict.fromkeys(names, (Tier(0, 10_000), Tier(1e6, 20_000))),
    )
