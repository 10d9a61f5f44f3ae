"""Live state of one instrument: everything known about it between two events."""

from collections import deque
from math import log, sqrt

from monitor.core.book import Book
from monitor.events import NS, Funding, Instrument, Side, Taker

FLOW_SECONDS = 300
"""How far back taker flow is kept."""

RETURNS_KEPT = 3600
"""Squared one-second returns kept for realised volatility: an hour."""


class Flow:
    """Taker buying and selling in USD over the last `FLOW_SECONDS` seconds."""

    def __init__(self) -> None:
        self._seconds: deque[list[float]] = deque(maxlen=FLOW_SECONDS)

    def add(self, at: int, usd: float, taker: Taker) -> None:
        """Count one trade received at `at` (ns)."""
        second = at // NS
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append([float(second), 0.0, 0.0])
        self._seconds[-1][1 if taker == "buy" else 2] += usd

    def within(self, at: int, seconds: int) -> tuple[float, float]:
        """(bought, sold) USD in the last `seconds` seconds before `at`."""
        since = at // NS - seconds
        recent = [row for row in self._seconds if row[0] > since]
        return sum(row[1] for row in recent), sum(row[2] for row in recent)


class Volatility:
    """Realised volatility from one-second returns."""

    def __init__(self) -> None:
        self._squares: deque[float] = deque(maxlen=RETURNS_KEPT)
        self._price: float | None = None
        self._second = 0

    def sample(self, at: int, price: float | None) -> None:
        """Take the price of a new second; an unknown price interrupts the series."""
        second = at // NS
        if second == self._second:
            return
        if price is not None and self._price is not None and second == self._second + 1:
            self._squares.append(log(price / self._price) ** 2)
        elif price is None or second != self._second + 1:
            self._squares.clear()
        self._price, self._second = price, second

    def realised(self, seconds: int) -> float | None:
        """Root of the summed squared returns of the last `seconds` s; None before they passed."""
        if len(self._squares) < seconds:
            return None
        squares = list(self._squares)[-seconds:]
        return sqrt(sum(squares))


class InstrumentState:
    """What is known of one instrument. Prices None and times 0 mean: not heard yet."""

    def __init__(self, spec: Instrument) -> None:
        self.spec = spec
        self.book = Book(spec.tick)
        self.book_at = 0
        self.mark: float | None = None
        self.index: float | None = None
        self.mark_at = 0
        self.funding: Funding | None = None
        self.open_interest_base: float | None = None
        self.open_interest_usd: float | None = None
        self.open_interest_at = 0
        self.last_price: float | None = None
        self.trades = 0
        self.transfers = 0
        self.flow = Flow()
        self.volatility = Volatility()
        self.liquidated_usd: dict[Side, float] = {"long": 0.0, "short": 0.0}
        self.liquidations = 0
        self.silent: dict[str, int] = {}

    def respecify(self, spec: Instrument) -> None:
        """Take over a changed specification; another tick or contract size voids the book."""
        if (spec.tick, spec.contract) != (self.spec.tick, self.spec.contract):
            gaps, resyncs = self.book.gaps, self.book.resyncs
            self.book = Book(spec.tick)
            self.book.gaps, self.book.resyncs = gaps, resyncs
        self.spec = spec

    @property
    def price(self) -> float | None:
        """The mark price, or the mid price while no mark is known."""
        return self.mark if self.mark is not None else self.book.mid()

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
