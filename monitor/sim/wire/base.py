"""What every simulated venue shares: connections, topics, book windows, printing, HTTP answers.

A `Wire` is one venue. It is told each step of the market (`publish`) and answers with the messages
of the topics that somebody subscribed; a `Session` is one client's connection, told what the
client sends (`receive`); `http` answers a request. All of it is pure: time is the market's `at`
for what is printed, and the `now` it is given for limits that count real seconds.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from monitor.sim.exchange import Trade, Transfer
from monitor.sim.liquidation import Liquidation
from monitor.sim.market import Book, Step, Ticker
from monitor.sim.parameters import Asset
from monitor.sim.rules import Contract, Venue
from monitor.sim.wire.candles import PERIOD_MS, PERIOD_NS, Candle, Candles, Interests

NS: Final = 1_000_000_000
MS: Final = 1_000_000

Kind: TypeAlias = Literal["book", "trade", "ticker", "liquidation"]
Levels: TypeAlias = list[tuple[int, int]]

TOPICS_MAX: Final = 2_048
"""Topics of one connection; every venue's own limit is lower or unstated."""

REQUEST_CHARS_MAX: Final = 1 << 16
"""Longest message accepted from a client."""


class Source(Protocol):
    """The part of `monitor.sim.market.Market` that a wire reads; `load.LoadMarket` has it too."""

    at: int
    step_ms: int
    assets: tuple[Asset, ...]
    venues: tuple[Venue, ...]

    def step(self) -> Step:
        """Advance by one step."""

    def contract(self, venue: str, asset: str) -> Contract:
        """Tick and lot."""

    def book(self, venue: str, asset: str) -> Book:
        """The whole book; `book_changes` continues from it."""

    def book_changes(self, venue: str, asset: str) -> Book:
        """Levels changed since the last call."""

    def peek_book(self, venue: str, asset: str) -> Book:
        """The whole book, moving nothing."""

    def ticker(self, venue: str, asset: str) -> Ticker:
        """Mark, index, funding and open interest."""

    def past(self, venue: str, asset: str) -> list[tuple[int, float]]:
        """Prices every five minutes up to the first step: (ns, ticks); empty if there are none."""

    def past_interest(self, venue: str, asset: str) -> list[tuple[int, int]]:
        """Open interest likewise: (ns, lots)."""

    def is_silent(self, venue: str) -> bool:
        """Whether the venue's feeds are down."""


class Message(Struct, frozen=True, gc=False):
    """One push, encoded once for all subscribers.

    `wrapped` is the same in an envelope that names the topic, on the venue that has two forms.
    """

    topic: str
    kind: Kind
    data: bytes
    wrapped: bytes = b""


class Request(Struct, frozen=True):
    """One HTTP request; `now` is real time in ns, for the venue's request budget."""

    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes = b""
    now: int = 0


class Answer(Struct, frozen=True):
    """The answer to a `Request`."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class HandshakeError(Exception):
    """The venue has no websocket at this path."""


# -------------------------------------------------------------------------------- printing


def decimals_of(step: float) -> int:
    """Decimals of a tick or lot: 0.01 has 2, 1 and 10 have none."""
    exponent = Decimal(repr(step)).normalize().as_tuple().exponent
    assert isinstance(exponent, int), step
    return max(0, -exponent)


def trimmed(text: str) -> str:
    """A decimal without trailing zeros: 83802.0 becomes 83802."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def pointed(text: str) -> str:
    """A decimal without trailing zeros but with a point, as Hyperliquid prints: 59.8, 10.0."""
    text = trimmed(text)
    return text if "." in text else f"{text}.0"


class Printer:
    """Prices and sizes of one contract as a venue prints them.

    `lots_per_unit` is how many lots make one venue quantity (OKX counts contracts), `style` what
    happens to trailing zeros.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        price_decimals: int | None = None,
        unit_base: float = 1.0,
        style: Callable[[str], str] = str,
    ) -> None:
        self.contract = contract
        self.tick = contract.tick_usd
        self.unit = contract.lot_base / unit_base
        own = decimals_of(contract.tick_usd)
        self.price_decimals = own if price_decimals is None else price_decimals
        self.size_decimals = decimals_of(round(self.unit, 12))
        self._style = None if style is str else style
        # The old formatting takes a computed precision at half the price of the new one.
        self._price, self._size = f"%.{self.price_decimals}f", f"%.{self.size_decimals}f"

    def price(self, ticks: float) -> str:
        """A price in ticks, whole or not."""
        text = self._price % (ticks * self.tick)
        return self._style(text) if self._style else text

    def size(self, lots: int) -> str:
        """A quantity in lots."""
        text = self._size % (lots * self.unit)
        return self._style(text) if self._style else text

    def usd(self, lots: int, ticks: float) -> float:
        """The worth of a quantity at a price."""
        return lots * self.contract.lot_base * ticks * self.tick

    def pairs(self, levels: Levels) -> str:
        """Levels as the inside of a JSON array of [price, size]."""
        price, size = self.price, self.size
        return ",".join([f'["{price(t)}","{size(n)}"]' for t, n in levels])


def encode(value: Any) -> bytes:  # noqa: ANN401  (any JSON)
    """JSON, compact, in the order given."""
    return msgspec.json.encode(value)


def parsed(text: str) -> dict[str, Any] | None:
    """A client's message, if it is a JSON object."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Ladder(Struct, frozen=True):
    """One row of a margin table with what venues print about it; `deduction` by continuity."""

    floor: float
    cap: float
    rate: float
    deduction: float
    max_leverage: int


def ladder_of(venue: Venue, asset: str) -> list[Ladder]:
    """The venue's margin table of one asset; the last row's cap is made up, ten times its floor.

    Maximum leverage is that at which initial margin is twice the maintenance.
    """
    tiers = venue.tiers[asset]
    rows: list[Ladder] = []
    deduction = 0.0
    for i, tier in enumerate(tiers):
        rate = tier.rate_ppm / 1e6
        before = rows[-1].rate if rows else 0.0
        deduction += tier.floor * (rate - before) if venue.has_deduction else 0.0
        cap = tiers[i + 1].floor if i + 1 < len(tiers) else 10 * max(tier.floor, 1e6)
        rows.append(Ladder(tier.floor, cap, rate, deduction, max(1, round(0.5 / rate))))
    return rows


# ----------------------------------------------------------------------------------- books


class Side:
    """One side of a book: lots by tick, and the ticks in order, cheap to change and to look at."""

    def __init__(self, levels: Levels, *, is_bid: bool) -> None:
        self.lots = dict(levels)
        self._ticks = sorted(self.lots)
        self._is_bid = is_bid

    def update(self, changes: Levels) -> None:
        """Take over new lots; 0 removes a level."""
        known, ticks = self.lots, self._ticks
        for tick, lots in changes:
            if lots:
                if tick not in known:
                    insort(ticks, tick)
                known[tick] = lots
            elif tick in known:
                del known[tick]
                del ticks[bisect_left(ticks, tick)]

    def best(self, count: int) -> Levels:
        """So many levels, best first."""
        lots, ticks = self.lots, self._ticks
        chosen = ticks[: -count - 1 : -1] if self._is_bid else ticks[:count]
        return [(tick, lots[tick]) for tick in chosen]


class Tap:
    """The one reader of a contract's book changes; `windows` are what topics show of it."""

    def __init__(self, source: Source, venue: str, asset: str) -> None:
        self.asset = asset
        self._source, self._venue = source, venue
        whole = source.book(venue, asset)
        self.bids = Side(whole.bids, is_bid=True)
        self.asks = Side(whole.asks, is_bid=False)
        self.windows: list[Window] = []

    def poll(self) -> int:
        """Take what changed in the step; returns how many levels did."""
        changes = self._source.book_changes(self._venue, self.asset)
        self.bids.update(changes.bids)
        self.asks.update(changes.asks)
        for window in self.windows:
            if window.active:
                window.bid_changes.update(changes.bids)
                window.ask_changes.update(changes.asks)
        return len(changes.bids) + len(changes.asks)

    def best(self, count: int) -> tuple[Levels, Levels]:
        """The best levels of either side."""
        return self.bids.best(count), self.asks.best(count)

    def touch(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Best bid and best ask; a simulated book always has both."""
        return self.bids.best(1)[0], self.asks.best(1)[0]


class Window:
    """What one book topic shows: the best `depth` levels a side (None: all), as last published.

    A level that leaves the window because better ones came is deleted explicitly unless
    `deletes_leavers` is False: then clients have to trim (exchanges.md 2b leaves it open).
    """

    def __init__(self, tap: Tap, depth: int | None, *, deletes_leavers: bool = True) -> None:
        self.depth = depth
        self.active = False
        self.bid_changes: dict[int, int] = {}
        self.ask_changes: dict[int, int] = {}
        self._tap = tap
        self._deletes_leavers = deletes_leavers
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        tap.windows.append(self)

    def begin(self) -> None:
        """Start from the book as it is now."""
        self.active = True
        self.bid_changes, self.ask_changes = {}, {}
        if self.depth is not None:
            bids, asks = self._tap.best(self.depth)
            self._bids, self._asks = dict(bids), dict(asks)

    def end(self) -> None:
        """Nobody looks any more."""
        self.active = False
        self._bids, self._asks = {}, {}

    def published(self) -> tuple[Levels, Levels]:
        """The window as subscribers have it, best first; only where `depth` is given."""
        assert self.depth is not None
        return sorted(self._bids.items(), reverse=True), sorted(self._asks.items())

    def changes(self) -> tuple[Levels, Levels]:
        """What subscribers must be told; afterwards they have the window as it is now."""
        bids, asks = self.bid_changes, self.ask_changes
        self.bid_changes, self.ask_changes = {}, {}
        if self.depth is None:
            return sorted(bids.items(), reverse=True), sorted(asks.items())
        told_bids = self._told(self._bids, bids, self._tap.bids)
        told_asks = self._told(self._asks, asks, self._tap.asks)
        return sorted(told_bids, reverse=True), sorted(told_asks)

    def _told(self, seen: dict[int, int], changed: dict[int, int], side: Side) -> Levels:
        assert self.depth is not None
        if all(lots and tick in seen for tick, lots in changed.items()):
            told = [(tick, lots) for tick, lots in changed.items() if seen[tick] != lots]
            seen.update(told)  # sizes only: the window stands where it stood
            return told
        now = dict(side.best(self.depth))
        told = [(tick, lots) for tick, lots in now.items() if seen.get(tick) != lots]
        gone = [tick for tick in seen if tick not in now]
        told += [(t, 0) for t in gone if self._deletes_leavers or changed.get(t) == 0]
        seen.clear()
        seen.update(now)
        return told


class Day:
    """Trading of one contract since the market began, for the tickers of "24 hours"."""

    def __init__(self, price: int) -> None:
        self.open = self.high = self.low = self.last = price
        self.lots = self.trades = 0
        self.tick_lots = 0

    def add(self, trade: Trade) -> None:
        """Count one print."""
        self.high, self.low = max(self.high, trade.tick), min(self.low, trade.tick)
        self.last = trade.tick
        self.lots += trade.lots
        self.tick_lots += trade.lots * trade.tick
        self.trades += 1


class Happened(Struct):
    """One contract's share of a step."""

    trades: list[Trade]
    liquidations: list[Liquidation]
    transfers: list[Transfer]


def closed_lots(record: Liquidation) -> int:
    """What a forced close did close: into the book, to the fund, to opposite accounts."""
    return record.filled + record.taken + record.adl


# ---------------------------------------------------------------------------------- venues


class Wire(ABC):
    """One simulated venue. Its subclass writes the formats.

    Attributes:
        subscribers: the sessions of each topic that has any.
        skew_ms: how wrong the venue's clock is; every time it prints is shifted by it.
        silence_s: a connection is cut after so long without traffic of the kind `silence_of`.
        ping_frames_s: how often the server sends a websocket ping; None if the client has to.
        limit: client messages allowed in so many seconds.
    """

    venue: ClassVar[str]
    silence_s: ClassVar[float | None] = None
    silence_of: ClassVar[Literal["sent", "received", "both"]] = "both"
    ping_frames_s: ClassVar[float | None] = None
    limit: ClassVar[tuple[int, float] | None] = None

    def __init__(self, market: Source, *, skew_ms: int = 0) -> None:
        self.market = market
        self.skew_ms = skew_ms
        self.rules = next(v for v in market.venues if v.name == self.venue)
        self.assets = tuple(a.name for a in market.assets)
        self.subscribers: dict[str, dict[Session, None]] = {}
        self.taps = {asset: Tap(market, self.venue, asset) for asset in self.assets}
        self.days = {a: Day(market.ticker(self.venue, a).last) for a in self.assets}
        self.candles = {
            a: Candles(market.at, self.days[a].last, market.past(self.venue, a))
            for a in self.assets
        }
        self.interests = {a: Interests(market.past_interest(self.venue, a)) for a in self.assets}
        self.sessions = 0
        self._before = market.at

    # -------------------------------------------------------------------------- called by shells

    @abstractmethod
    def connect(self, path: str, query: dict[str, str]) -> "Session":
        """A client's websocket; raises `HandshakeError` where there is none."""

    @abstractmethod
    def http(self, request: Request) -> Answer:
        """The answer to an HTTP request."""

    def fund_usd(self) -> float:
        """The venue's insurance fund at mark; below 0 once it has paid more than it had."""
        return self.market.ticker(self.venue, self.assets[0]).fund_usd

    def publish(self, step: Step) -> list[Message]:
        """What the step makes of the topics that have subscribers; nothing while silent.

        Trades and liquidations of a silent venue are lost, as they are on the venues
        (exchanges.md 0.3); books catch up in sequence when it speaks again.
        """
        happened = {asset: Happened([], [], []) for asset in self.assets}
        for trade in step.trades:
            if trade.venue == self.venue:
                happened[trade.asset].trades.append(trade)
                self.days[trade.asset].add(trade)
                self.candles[trade.asset].add(trade)
        for record in step.liquidations:
            if record.venue == self.venue:
                happened[record.asset].liquidations.append(record)
        for transfer in step.transfers:
            if transfer.venue == self.venue and transfer.kind != "fund":
                happened[transfer.asset].transfers.append(transfer)
        if self._due(PERIOD_MS):
            for asset in self.assets:
                self.interests[asset].add(self.market.at, self._ticker(asset).open_interest)
        if self.market.is_silent(self.venue):
            self._missed()
            messages = []
        else:
            messages = list(self._publish(happened))
        self._before = self.market.at
        return messages

    def join(self, session: "Session", topic: str) -> None:
        """Subscribe; the first subscriber starts the topic."""
        waiting = self.subscribers.setdefault(topic, {})
        if not waiting:
            self._started(topic)
        waiting[session] = None

    def leave(self, session: "Session", topic: str) -> None:
        """Unsubscribe; the last one stops the topic."""
        if waiting := self.subscribers.get(topic):
            waiting.pop(session, None)
            if not waiting:
                del self.subscribers[topic]
                self._stopped(topic)

    # ------------------------------------------------------------------------ for the subclasses

    @abstractmethod
    def _publish(self, happened: dict[str, Happened]) -> Iterable[Message]:
        """The messages of one step."""

    def _missed(self) -> None:  # noqa: B027  (not every venue keeps batches)
        """A step passed in silence: forget what waited to be sent."""

    def _started(self, topic: str) -> None:  # noqa: B027  (not every topic has a state)
        """A topic got its first subscriber."""

    def _stopped(self, topic: str) -> None:  # noqa: B027
        """A topic lost its last one."""

    def _due(self, interval_ms: int) -> bool:
        """Whether a multiple of the interval lies in the step that just ended."""
        interval = interval_ms * MS
        return self.market.at // interval > self._before // interval

    def _ms(self, at: int | None = None) -> int:
        """A time as the venue's clock shows it, in ms; now by default."""
        return (self.market.at if at is None else at) // MS + self.skew_ms

    def klines(self, asset: str, *, first: str = "", last: str = "") -> list[tuple[int, Candle]]:
        """Candles with the time each began in ms, oldest first and the growing one last.

        `first` and `last` bound that time, as a client wrote them; no number is no bound.
        """
        since = int(first) if first.isdecimal() else 0
        until = int(last) if last.isdecimal() else 1 << 63
        found = [(self._ms(c.start), c) for c in self.candles[asset].until(self.market.at)]
        return [(start, candle) for start, candle in found if since <= start <= until]

    def held(self, asset: str, *, first: str = "", last: str = "") -> list[tuple[int, int, int]]:
        """Time in ms, open interest in lots and price in ticks, oldest first; bounds as above."""
        since = int(first) if first.isdecimal() else 0
        until = int(last) if last.isdecimal() else 1 << 63
        closed = self.candles[asset].until(self.market.at)
        price = {c.start + PERIOD_NS: c.close for c in closed}
        found = [
            (self._ms(at), lots, price[at])
            for at, lots in self.interests[asset].rows()
            if at in price
        ]
        return [row for row in found if since <= row[0] <= until]

    def _ticker(self, asset: str) -> Ticker:
        return self.market.ticker(self.venue, asset)


class Session:
    """One client's connection: its topics, and what is answered to what it sends.

    Attributes:
        topics: subscribed, in order, as the client named them.
        closing: why the venue wants to cut this connection; None as long as it does not.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.topics: dict[str, None] = {}
        self.closing: str | None = None
        wire.sessions += 1
        self.number = wire.sessions
        self._received: deque[int] = deque()

    def opened(self) -> list[bytes]:
        """What the venue says first."""
        return []

    def receive(self, text: str, now: int) -> list[bytes]:
        """One message of the client at real time `now` (ns); the answers, snapshots included."""
        if len(text) > REQUEST_CHARS_MAX:
            self.closing = "too_large"
            return []
        limit = self.wire.limit
        if limit is not None:
            self._received.append(now)
            while self._received[0] <= now - limit[1] * NS:
                self._received.popleft()
            if len(self._received) > limit[0]:
                self.closing = "too_many_requests"
                return []
        return self._receive(text)

    def closed(self) -> None:
        """The connection is gone."""
        for topic in list(self.topics):
            self.wire.leave(self, topic)
        self.topics.clear()

    def render(self, message: Message) -> bytes:
        """A push in this connection's form."""
        return message.data

    def _receive(self, text: str) -> list[bytes]:
        raise NotImplementedError

    def _join(self, topic: str) -> bool:
        """Subscribe; False if it was subscribed already."""
        if topic in self.topics:
            return False
        if len(self.topics) >= TOPICS_MAX:
            self.closing = "too_many_topics"
            return False
        self.topics[topic] = None
        self.wire.join(self, topic)
        return True

    def _leave(self, topic: str) -> bool:
        """Unsubscribe; False if it was not subscribed."""
        if topic not in self.topics:
            return False
        del self.topics[topic]
        self.wire.leave(self, topic)
        return True
