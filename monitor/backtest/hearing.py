"""A simulated market told to the engine directly, without any wire format.

What a feed would say, and no more: trades, books as deep as the venue shows them, marks with index
once a second, funding and open interest every five seconds, the latter two seconds late, prints as
each venue gives them (`tape.PRINTS`; the largest of a second where it is throttled, what the venue
itself takes over where only that is seen), ticks, and the past: five-minute candles, and open
interest where the venue has a history of it. Only the wire, its delays and its losses are left out,
which is what makes it fast enough to grade many runs.
"""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from monitor.backtest.tape import (
    INTEREST_EVERY_S,
    INTEREST_LAG_S,
    PRINTS,
    instrument_of,
    past_interests,
)
from monitor.config import EngineConfig
from monitor.core.engine import Engine
from monitor.events import (
    NS,
    BookSnapshot,
    Candle,
    Candles,
    Funding,
    Gap,
    InterestHistory,
    Level,
    Liquidation,
    Listed,
    MarkPrice,
    Message,
    OpenInterest,
    Side,
    Tick,
    Trade,
)
from monitor.sim.liquidation import Liquidation as Forced
from monitor.sim.market import PATH_STEP_NS, Market
from monitor.sim.rules import MICRO, Contract

LEVELS: Final = {"binance": 150, "bybit": 150, "okx": 150, "hyperliquid": 20}
"""Levels a side of each book, 1 bp apart: the venues' limits, cut at 1.5 % of the price."""
BOOK_EVERY_S: Final = 2
"""Contracts take turns to show their books, each every so many seconds."""

_SIDE: Final[dict[str, Side]] = {"long": "long", "short": "short"}


def configured(
    publish_s: int, *, prior: Literal["published", "simulated"] = "published"
) -> EngineConfig:
    """An engine that publishes the risk every so many seconds, and little else.

    It knows no more of this market than of any other, unless `prior` is the ``simulated`` one.
    """
    hour_ms = 3_600_000
    return EngineConfig(
        tick_interval_ms=1_000,
        publish_interval_ms=publish_s * 1_000,
        venue_interval_ms=hour_ms,
        heatmap_row_interval_ms=hour_ms,
        status_interval_ms=hour_ms,
        prior=prior,
    )


class Hearing:
    """An engine that hears a market; call `second` once for each of its seconds.

    Attributes:
        forced: USD force-closed in the last second by (asset, position side), all venues, which
            no feed tells as such.
    """

    def __init__(self, market: Market, engine: Engine) -> None:
        """`market` has not moved yet and steps by a second.

        Raises:
            ValueError: it has moved, or steps otherwise.
        """
        if market.step_ms != 1_000 or market.at != market.epoch_ns:
            raise ValueError("a hearing begins with a market at its start that steps by 1000 ms")
        self.market, self.engine = market, engine
        self.forced: dict[tuple[str, Side], float] = {}
        self._names = {c.index: f"{c.venue}:{c.asset}" for c in market.contracts}
        self._index = {(c.venue, c.asset): c.index for c in market.contracts}
        self._late: deque[list[int]] = deque(maxlen=INTEREST_LAG_S + 1)
        self._silent = dict.fromkeys((v.name for v in market.venues), False)
        self._second = 0
        at = market.at
        for contract in market.contracts:
            venue = market.venues[contract.venue_index]
            engine.process(at, Listed(instrument_of(venue, contract.asset)))
            engine.process(at, self._past(contract))
            rows = past_interests(market, contract.venue, contract.asset)
            if rows:
                engine.process(at, InterestHistory(self._names[contract.index], rows))

    def second(self) -> list[Message]:
        """One second of the market; what the engine publishes."""
        market, engine = self.market, self.engine
        step = market.step()
        at = market.at
        self._second += 1
        for name in self._silent:
            self._hush(at, name)
        for t in step.trades:
            if not self._silent[t.venue]:
                c = market.contracts[self._index[t.venue, t.asset]]
                price, base = t.tick * c.tick_usd, t.lots * c.lot_base
                engine.process(at, Trade(self._names[c.index], at, price, base, t.taker))
        said: list[Message] = []
        for print_ in self._prints(at, step.liquidations):
            said += _messages(engine.process(at, print_))
        self._late.append(list(market.accounts.longs))
        is_read = self._second % INTEREST_EVERY_S == 0
        for c in market.contracts:
            if not self._silent[c.venue]:
                self._quote(at, c, is_read=is_read)
        return said + _messages(engine.process(at, Tick(at)))

    # ------------------------------------------------------------------------------ private

    def _hush(self, at: int, venue: str) -> None:
        """An outage of the feeds loses books, marks and prints, as a lost socket does."""
        was, now = self._silent[venue], self.market.is_silent(venue)
        self._silent[venue] = now
        if now and not was:
            for c in self.market.contracts:
                if c.venue == venue:
                    self.engine.process(at, Gap(self._names[c.index], "feed_lost"))
                    self.engine.process(at, Gap(self._names[c.index], "marks_lost"))

    def _past(self, c: Contract) -> Candles:
        points = self.market.past(c.venue, c.asset)
        rows = []
        for (_, before), (at, tick) in pairwise(points):
            low, high = min(before, tick) * c.tick_usd, max(before, tick) * c.tick_usd
            rows.append(Candle(at, low, high, tick * c.tick_usd))
        return Candles(self._names[c.index], PATH_STEP_NS // NS, rows)

    def _quote(self, at: int, c: Contract, *, is_read: bool) -> None:
        market, engine, name = self.market, self.engine, self._names[c.index]
        if (self._second + c.index) % BOOK_EVERY_S == 0:
            bids, asks = self._levels(c)
            most = max(len(bids), len(asks))
            engine.process(at, BookSnapshot(name, at, bids, asks, depth=most, maintained=True))
        marks = market.marks
        mark, index = int(marks.mark[c.index]), int(marks.index[c.index])
        engine.process(at, MarkPrice(name, at, mark * c.tick_usd, index * c.tick_usd))
        if is_read:
            ticker = market.ticker(c.venue, c.asset)
            hours = ticker.funding_interval_s / 3_600
            rate = ticker.funding_rate_e8 * 1e-8 * 8.0 / hours
            engine.process(at, Funding(name, at, rate, hours, ticker.next_funding_at))
            base = self._late[0][c.index] * c.lot_base
            engine.process(at, OpenInterest(name, at, base, None))

    def _levels(self, c: Contract) -> tuple[list[Level], list[Level]]:
        """The best levels of either side, read without copying the whole book."""
        books, i, count = self.market.books, c.index, LEVELS[c.venue]
        row, ticks = books.levels[i], books.ticks[i]
        sides = []
        for span, step in (
            (slice(books.bid[i] - 2 * count, books.bid[i] + 1), -1),
            (slice(books.ask[i], books.ask[i] + 2 * count), 1),
        ):
            lots, prices = row[span][::step], ticks[span][::step]
            held = np.flatnonzero(lots * step < 0)[:count]
            price = (prices[held] * c.tick_usd).tolist()
            base = (np.abs(lots[held]) * c.lot_base).tolist()
            sides.append(list(zip(price, base, strict=True)))
        return sides[0], sides[1]

    def _prints(self, at: int, records: list[Forced]) -> Iterator[Liquidation]:
        """What the feeds show of a second's forced closes; notes what they were."""
        self.forced = {}
        largest: dict[int, Liquidation] = {}
        for r in records:
            c = self.market.contracts[self._index[r.venue, r.asset]]
            lots = r.filled + r.taken + r.adl
            usd = lots * r.trigger_tick * c.unit / MICRO
            if usd <= 0.0:
                continue
            side = _SIDE[r.side]
            self.forced[r.asset, side] = self.forced.get((r.asset, side), 0.0) + usd
            completeness, tick = PRINTS[r.venue], r.trigger_tick
            if completeness == "tail_only":
                lots, tick = r.taken, r.bankruptcy_tick
            if lots == 0 or self._silent[r.venue]:
                continue
            told = Liquidation(
                instrument=self._names[c.index],
                sent_at=at,
                side=side,
                quantity=lots * c.lot_base,
                usd=lots * tick * c.unit / MICRO,
                price=tick * c.tick_usd,
                price_kind="fill" if completeness == "tail_only" else "mark",
                fill_price=None,
                completeness=completeness,
                raw_side="",
            )
            if completeness in ("all", "tail_only"):
                yield told
            elif c.index not in largest or told.usd > largest[c.index].usd:
                largest[c.index] = told
        yield from largest.values()


def _messages(result: list) -> list[Message]:  # type: ignore[type-arg]
    return [m for m in result if isinstance(m, Message)]
