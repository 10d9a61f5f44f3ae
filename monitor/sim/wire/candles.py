"""Five-minute candles and open interest of one contract, now and before the market began.

Candles are of its prints, and of what was before them.

Before the market's first step there are no prints, only the prices that its population grew up in;
candles of that time have prices and no volume. A period without prints repeats the last price.
"""

from collections import deque
from typing import Final

import numpy as np
from msgspec import Struct

from monitor.sim.exchange import Trade

PERIOD_NS: Final = 300_000_000_000
PERIOD_MS: Final = 300_000

KEPT: Final = 5_000
"""Candles a contract keeps; Hyperliquid shows as many, the others fewer at once."""

Past = list[tuple[int, float]]
"""Time (ns) and price in ticks, oldest first, one period apart."""


class Candle(Struct):
    """One period from `start` (ns) on; prices in ticks, sizes in lots, bought ones by takers."""

    start: int
    open: int
    high: int
    low: int
    close: int
    lots: int = 0
    tick_lots: int = 0
    bought: int = 0
    tick_bought: int = 0
    trades: int = 0


class Candles:
    """The candles of one contract, the growing one last."""

    def __init__(self, at: int, last: int, past: Past) -> None:
        """Begin at `at` (ns) with the price `last` in ticks, after `past`, which ends there."""
        self._closed: deque[Candle] = deque(_resampled(past), maxlen=KEPT)
        start = at // PERIOD_NS * PERIOD_NS
        opened = self._closed[-1].close if self._closed else last
        self._growing = Candle(start, opened, max(opened, last), min(opened, last), last)

    def add(self, trade: Trade) -> None:
        """Count one print."""
        self._grow(trade.at)
        candle, tick, lots = self._growing, trade.tick, trade.lots
        candle.high, candle.low = max(candle.high, tick), min(candle.low, tick)
        candle.close = tick
        candle.lots += lots
        candle.tick_lots += tick * lots
        candle.trades += 1
        if trade.taker == "buy":
            candle.bought += lots
            candle.tick_bought += tick * lots

    def until(self, at: int) -> list[Candle]:
        """Those that began by `at` (ns), oldest first."""
        self._grow(at)
        return [*self._closed, self._growing]

    def _grow(self, at: int) -> None:
        """Close what has ended; an open is the close before it."""
        while at >= self._growing.start + PERIOD_NS:
            last = self._growing
            self._closed.append(last)
            close = last.close
            self._growing = Candle(last.start + PERIOD_NS, close, close, close, close)


class Interests:
    """Open interest of one contract at the full periods of the venue's clock."""

    def __init__(self, past: list[tuple[int, int]]) -> None:
        """After `past`, time (ns) and lots a period apart, oldest first."""
        self._rows: deque[tuple[int, int]] = deque(maxlen=KEPT)
        if len(past) > 1:
            end = past[-1][0]
            first, last = -(-past[0][0] // PERIOD_NS), end // PERIOD_NS
            times = [n * PERIOD_NS for n in range(first, last + 1)]
            known = np.array([(at - end) / 1e9 for at, _ in past])
            wanted = np.array([(at - end) / 1e9 for at in times])
            lots = np.rint(np.interp(wanted, known, np.array([float(n) for _, n in past])))
            self._rows.extend(zip(times, lots.astype(np.int64).tolist(), strict=True))

    def add(self, at: int, lots: int) -> None:
        """Lots at `at` (ns), the first moment after the end of a period."""
        self._rows.append((at // PERIOD_NS * PERIOD_NS, lots))

    def rows(self) -> list[tuple[int, int]]:
        """Time (ns) and lots, oldest first."""
        return [*self._rows]


def _resampled(past: Past) -> list[Candle]:
    """Whole periods of the venue's clock out of points one period apart, straight in between."""
    if len(past) < 2:
        return []
    end = past[-1][0]
    since = np.array([(time - end) / 1e9 for time, _ in past])
    price = np.array([price for _, price in past])
    first = -(-past[0][0] // PERIOD_NS)
    starts = [n * PERIOD_NS for n in range(first, end // PERIOD_NS + 1)]
    edges = np.array([(start - end) / 1e9 for start in starts])
    at_edge = np.interp(edges, since, price)
    # The one point within each period, or at its end.
    inner = price[np.searchsorted(since, edges[:-1], side="right")]
    three = np.rint(np.stack([at_edge[:-1], inner, at_edge[1:]])).astype(np.int64)
    rows = np.stack([three[0], three.max(axis=0), three.min(axis=0), three[2]]).T.tolist()
    return [Candle(start, *row) for start, row in zip(starts, rows, strict=False)]
