"""What forced closes leave behind: how they were executed, and what came after them.

Everything here is learnt from prints, one object for one question; nothing survives a restart.
"""

from collections import deque
from math import exp, log
from typing import Final

from msgspec import Struct

from monitor.core.instrument import InstrumentState
from monitor.events import NS, Liquidation, Side

CLUSTER_GAP_NS: Final = 5 * NS
"""Prints of one side at one bankruptcy price closer together than this are of one position."""

CLUSTER_MEMORY: Final = 200.0
CLUSTERS_MIN: Final = 5
"""Clusters after which older ones fade, and before which there is no figure."""

FILL_NS: Final = NS
FILL_LATEST_NS: Final = 5 * NS
"""When after a print the market's price stands for the fill, and until when a trade must come."""

EFFICIENCY_KEPT: Final = 0.5 ** (1.0 / 3600.0)
EFFICIENCY_PRINTS: Final = 5.0
EFFICIENCY_MOST: Final = 10.0

SWEEP_END_NS: Final = 60 * NS
SWEEP_LEAST: Final = 0.003
"""A sweep ends when nothing was printed for so long; smaller moves are not followed up."""

REVERSION_NS: Final = 900 * NS
SWEEP_MEMORY: Final = 20.0
SWEEPS_MIN: Final = 3
REVERSION_MOST: Final = 2.0

BACKLOG_S: Final = 60.0
"""Memory of the engines' backlog (model.md A13.3)."""


class Slicing:
    """In how many prints a forced close comes.

    A position has one bankruptcy price, which all its slices are printed at; prints without one
    cannot be told apart.
    """

    def __init__(self) -> None:
        # By instrument, side and price: prints, USD of the first and of all; time of the last.
        self._open: dict[tuple[str, Side, float], list[float]] = {}
        self._last: dict[tuple[str, Side, float], int] = {}
        self._clusters = 0
        self._weight = self._prints = self._first = 0.0

    def printed(self, at: int, event: Liquidation) -> None:
        """Take one print; only of venues that show all of theirs."""
        usd = event.usd
        if not usd > 0.0 or event.price_kind != "bankruptcy" or event.completeness != "all":
            return
        key = event.instrument, event.side, event.price
        if key in self._open and at - self._last[key] > CLUSTER_GAP_NS:
            self._end(key)
        cluster = self._open.setdefault(key, [0.0, usd, 0.0])
        cluster[0] += 1.0
        cluster[2] += usd
        self._last[key] = at

    def second(self, at: int) -> None:
        """Time passed."""
        for key in [k for k in self._open if at - self._last[k] > CLUSTER_GAP_NS]:
            self._end(key)

    def _end(self, key: tuple[str, Side, float]) -> None:
        count, first, usd = self._open.pop(key)
        del self._last[key]
        kept = 1.0 - 1.0 / CLUSTER_MEMORY
        self._weight = self._weight * kept + 1.0
        self._prints = self._prints * kept + count
        self._first = self._first * kept + first / usd
        self._clusters += 1

    @property
    def prints(self) -> float | None:
        """Prints per cluster, at least 1; None before a few clusters."""
        return self._prints / self._weight if self._clusters >= CLUSTERS_MIN else None

    @property
    def first_share(self) -> float | None:
        """Share of a cluster's USD that its first print has."""
        return self._first / self._weight if self._clusters >= CLUSTERS_MIN else None


class _Fill(Struct, frozen=True):
    at: int
    state: InstrumentState
    trades: int
    sign: float
    quantity: float
    bankruptcy: float
    mark: float


class Efficiency:
    """Liquidation efficiency ratio (model.md A13.4): what of the margin left the fund keeps.

    ``sum q s (p_fill - p_bankruptcy) / sum q s (p_mark - p_bankruptcy)``. Where the venue does
    not tell the fill, the first price traded a second after the print stands for it. Prints
    without a bankruptcy price say nothing.
    """

    def __init__(self) -> None:
        self._pending: deque[_Fill] = deque(maxlen=1_000)
        self._kept = self._margin = self._prints = 0.0

    def printed(self, at: int, state: InstrumentState, event: Liquidation, mark: float) -> None:
        """Take one print; `mark` is the fresh mark of its instrument."""
        if event.price_kind != "bankruptcy":
            return
        sign = 1.0 if event.side == "long" else -1.0
        fill = _Fill(at, state, state.trades, sign, event.quantity, event.price, mark)
        if event.fill_price is not None:
            self._filled(fill, event.fill_price)
        else:
            self._pending.append(fill)

    def second(self, at: int) -> None:
        """Time passed."""
        for name in ("_kept", "_margin", "_prints"):
            setattr(self, name, getattr(self, name) * EFFICIENCY_KEPT)
        while self._pending and at - self._pending[0].at >= FILL_NS:
            fill = self._pending[0]
            price = fill.state.last_price
            if fill.state.trades > fill.trades and price is not None:
                self._filled(fill, price)
            elif at - fill.at < FILL_LATEST_NS:
                break
            self._pending.popleft()

    def _filled(self, fill: _Fill, price: float) -> None:
        weight = fill.sign * fill.quantity
        self._kept += weight * (price - fill.bankruptcy)
        self._margin += weight * (fill.mark - fill.bankruptcy)
        self._prints += 1.0

    @property
    def ratio(self) -> float | None:
        """1 without slippage, below 0 the fund pays; None before a few prints."""
        if self._prints < EFFICIENCY_PRINTS or self._margin <= 0.0:
            return None
        return min(max(self._kept / self._margin, -EFFICIENCY_MOST), EFFICIENCY_MOST)


class Reversion:
    """How much of a sweep's move has come back 15 minutes after its end price.

    A sweep is a run of forced closes in one direction; its move is from the price a minute before
    the first to the farthest one.
    """

    def __init__(self, sign: float) -> None:
        """`sign` is that of the direction, -1 for down."""
        self._sign = sign
        self._heard = False
        self._last = self._extreme_at = 0
        self._before = self._extreme = 0.0
        self._due: deque[tuple[int, float, float]] = deque(maxlen=64)
        self._sweeps = 0
        self._weight = self._sum = 0.0

    def printed(self) -> None:
        """A forced close in the direction was printed."""
        self._heard = True

    def second(self, at: int, price: float | None, move: float) -> None:
        """Time passed.

        Args:
            at: time in ns.
            price: the asset's, None where it is not known.
            move: log move over the last minute, positive in the direction.
        """
        heard, self._heard = self._heard, False
        if price is None:
            return
        if heard and not self._last:
            self._before = price * exp(-self._sign * move)
            self._extreme, self._extreme_at = price, at
        if heard:
            self._last = at
        if self._last:
            if self._sign * (price - self._extreme) > 0.0:
                self._extreme, self._extreme_at = price, at
            if at - self._last >= SWEEP_END_NS:
                self._last = 0
                moved = self._sign * log(self._extreme / self._before)
                if moved >= SWEEP_LEAST:
                    self._due.append((self._extreme_at + REVERSION_NS, self._extreme, moved))
        while self._due and at >= self._due[0][0]:
            _, extreme, moved = self._due.popleft()
            back = self._sign * log(extreme / price) / moved
            kept = 1.0 - 1.0 / SWEEP_MEMORY
            self._weight = self._weight * kept + 1.0
            self._sum = self._sum * kept + min(max(back, -REVERSION_MOST), REVERSION_MOST)
            self._sweeps += 1

    @property
    def ratio(self) -> float | None:
        """1: all of it; negative: the price went on. None before three sweeps."""
        return self._sum / self._weight if self._sweeps >= SWEEPS_MIN else None


class Backlog:
    """What the map says was swept and nobody has printed yet, fading over a minute."""

    def __init__(self) -> None:
        self._at = 0
        self._expected = self._observed = self._usd = 0.0

    def heard(self, at: int, expected: float, observed: float) -> None:
        """Take the running totals of the maps, in USD, at `at` (ns)."""
        if self._at:
            self._usd *= exp(-(at - self._at) / NS / BACKLOG_S)
            # A total falls only when a map was replaced: that is no news.
            self._usd += max(0.0, expected - self._expected) - max(0.0, observed - self._observed)
            self._usd = max(0.0, self._usd)
        self._at, self._expected, self._observed = at, expected, observed

    @property
    def usd(self) -> float:
        """At least 0."""
        return self._usd
