"""Live state of one instrument: everything known about it between two events."""

from collections import deque
from itertools import islice
from math import log, sqrt

from msgspec import Struct

from monitor.core.depth.book import Book
from monitor.core.depth.liquidity import Liquidity
from monitor.core.heatmap.map import Map
from monitor.events import NS, Candle, Funding, Instrument, Side, Taker

FUND_FRESH_NS = 3600 * NS
"""A fund unheard for longer may be another one by now; it is asked for every ten minutes."""

FLOW_SECONDS = 300
"""How far back taker flow is kept."""

RETURNS_KEPT = 3600
"""Squared one-second returns kept for realised volatility: an hour."""

SAMPLE_FRESH_S = 5
"""Seconds without a sample after which a volatility is not that of now."""

MARK_FRESH_NS = 60 * NS
"""A mark price unheard for longer is not the price any more."""


class Fund(Struct, frozen=True):
    """A pool of an insurance fund, as told at `heard_at` (ns) and valued at the prices of then.

    Attributes:
        balances: amounts by currency, as the venue told them.
        usd: their worth; None where nothing of it has a price.
        unvalued: currencies without one, which are not in it.
        pool: the contract of which it was told first; the same for all that share it.
    """

    balances: dict[str, float]
    usd: float | None
    unvalued: tuple[str, ...]
    heard_at: int
    pool: str


class Flow:
    """Taker buying and selling in USD over the last `FLOW_SECONDS` seconds, and in all."""

    def __init__(self) -> None:
        self.bought_usd = self.sold_usd = 0.0
        self._seconds: deque[list[float]] = deque(maxlen=FLOW_SECONDS)

    def add(self, at: int, usd: float, taker: Taker) -> None:
        """Count one trade received at `at` (ns)."""
        second = at // NS
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append([float(second), 0.0, 0.0])
        if taker == "buy":
            self.bought_usd += usd
            self._seconds[-1][1] += usd
        else:
            self.sold_usd += usd
            self._seconds[-1][2] += usd

    def within(self, at: int, seconds: int) -> tuple[float, float]:
        """(bought, sold) USD in the last `seconds` seconds before `at`."""
        since = at // NS - seconds
        recent = [row for row in self._seconds if row[0] > since]
        return sum(row[1] for row in recent), sum(row[2] for row in recent)


class Volatility:
    """Realised volatility from one-second returns of one kind of price."""

    def __init__(self) -> None:
        self._squares: deque[float] = deque(maxlen=RETURNS_KEPT)
        self._price: float | None = None
        self._kind = ""
        self._second = 0

    def sample(self, at: int, price: float | None, kind: str) -> None:
        """Take the price of a new second.

        An unknown price, a second left out or another kind of price interrupts the series: the
        distance between two prices of different origin is no return.
        """
        second = at // NS
        if second == self._second:
            return
        continues = second == self._second + 1 and kind == self._kind
        if price is not None and self._price is not None and continues:
            self._squares.append(log(price / self._price) ** 2)
        else:
            self._squares.clear()
        self._price, self._kind, self._second = price, kind, second

    def realised(self, at: int, seconds: int) -> float | None:
        """Root of the summed squared returns of the last `seconds` s before `at` (ns).

        None before so many have passed, and when the last price is older than `SAMPLE_FRESH_S`.
        """
        if len(self._squares) < seconds or at // NS - self._second > SAMPLE_FRESH_S:
            return None
        return sqrt(sum(islice(reversed(self._squares), seconds)))


class InstrumentState:
    """What is known of one instrument. Prices None and times 0 mean: not heard yet."""

    def __init__(self, spec: Instrument) -> None:
        self.spec = spec
        self.book = Book(spec.tick)
        self.book_at = 0
        self.mark: float | None = None
        self.index: float | None = None
        self.mark_at = self.index_at = 0
        self.ready_at = 0
        """From when its map is to be believed: once its past has been told, or was waited for."""
        self.funding: Funding | None = None
        self.open_interest_base: float | None = None
        self.open_interest_usd: float | None = None
        self.open_interest_at = 0
        self.candles: list[Candle] = []
        self.interests: list[tuple[int, float]] = []
        self.last_price: float | None = None
        self.trades = 0
        self.transfers = 0
        self.deleveraged = 0
        self.flow = Flow()
        self.volatility = Volatility()
        self.liquidated_usd: dict[Side, float] = {"long": 0.0, "short": 0.0}
        self.liquidations = 0
        self.silent: dict[str, int] = {}
        self.map: Map | None = None
        self.liquidity = Liquidity()
        self.fund: Fund | None = None
        """The pool that pays for its forced closes beyond their margin."""

    def hears_mark(self, at: int) -> bool:
        """Whether its mark was heard lately enough to go by at `at` (ns)."""
        return at - self.mark_at <= MARK_FRESH_NS

    def hears_index(self, at: int) -> bool:
        """The same of its index."""
        return at - self.index_at <= MARK_FRESH_NS

    def respecify(self, spec: Instrument) -> None:
        """Take over a changed specification; another tick or contract size voids the book."""
        if (spec.tick, spec.contract) != (self.spec.tick, self.spec.contract):
            gaps, resyncs = self.book.gaps, self.book.resyncs
            self.book = Book(spec.tick)
            self.book.gaps, self.book.resyncs = gaps, resyncs
        self.spec = spec

    def tell(self) -> None:
        """Tell a new map what was heard before it came."""
        if self.map is None:
            return
        if self.mark is not None:
            self.map.mark(self.mark_at, self.mark)
        if self.open_interest_base is not None:
            self.map.open_interest(self.open_interest_at, self.open_interest_base)
        if self.candles:
            self.map.history(self.candles, self.interests)

    def quote(self, at: int) -> tuple[float | None, str]:
        """The mark price while it is fresh at `at` (ns), else the mid price; and which it is."""
        if self.mark is not None and self.hears_mark(at):
            return self.mark, "mark"
        return self.book.mid(), "mid"

    def price(self, at: int) -> float | None:
        """The price of `quote`."""
        return self.quote(at)[0]

    @property
    def basis(self) -> float | None:
        """Mark over index, less one; None while either is unknown."""
        if self.mark is None or self.index is None:
            return None
        return self.mark / self.index - 1.0

    @property
    def quantity_decimals(self) -> int:
        """Decimals of the smallest quantity step in base units; 8 for inverse contracts."""
        if self.spec.kind == "inverse":
            return 8
        step = f"{self.spec.lot * self.spec.contract:.12f}".rstrip("0")
        return len(step.partition(".")[2])
