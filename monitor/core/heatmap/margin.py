"""Liquidation and bankruptcy prices from the venues' own margin rules, vectorised.

Responsible for one question: at which mark does a position of given size, entry and margin reach
its maintenance requirement, and at which price is its equity zero. Pure arithmetic on numpy arrays.

The algebra (model.md A1, exchanges.md 0.4), with s = +1 for a long and -1 for a short, maintenance
rate m and deduction c of the tier, close fee f::

    linear :  M + s q (p - e)     = (m + f) q p - c       M, c in quote, q in base
    inverse:  M + s Q (1/e - 1/p) = (m + f) Q / p - c     M, c in base, Q face value in USD

The tier is the one that holds at the liquidation price. Where the table is continuous (a deduction
for every step) there is exactly one such price; where it is flat (OKX) the answer is the first
price, going away from the position, at which equity no longer covers maintenance.

``liquidation_prices`` returns 0 for a long and ``inf`` for a short that nothing can liquidate, such
as the inverse short at 1x or less.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.events import Instrument, Side

Floats = NDArray[np.float64]


class VenueRule(Struct, frozen=True):
    """What a venue adds to the tier table.

    Attributes:
        close_fee: rate included in the maintenance requirement.
        deducts: whether the table's deductions are subtracted.
        steps: how a large position is closed: ``whole``, by ``one_tier`` or ``two_tiers`` at a
            time, or a ``fifth`` first.
        source: where that is written.
    """

    close_fee: float
    deducts: bool
    steps: str
    source: str


RULES: Final[dict[str, VenueRule]] = {
    "binance": VenueRule(0.0, True, "whole", "exchanges.md 1h: maintenance = notional MMR - cum"),
    "bybit": VenueRule(0.00055, True, "one_tier", "exchanges.md 2h: plus the estimated close fee"),
    "okx": VenueRule(0.0005, False, "two_tiers", "exchanges.md 3h: mmr + fee, flat per tier"),
    "hyperliquid": VenueRule(0.0, True, "fifth", "exchanges.md 4g, 4h: no clearance fee"),
}
"""The rules by venue; `rule_of` gives the generic one for any other."""

GENERIC: Final = VenueRule(0.0, True, "whole", "exchanges.md 0.4")

FLAT_RATE: Final = 0.005
"""Maintenance rate of an instrument whose table is unknown: the lowest tiers of BTC on four venues
are 0.33 to 1.25 % (exchanges.md 1g-4g)."""

FLAT_LEVERAGE: Final = 100.0
"""Highest leverage of an instrument whose table is unknown."""

HYPERLIQUID_LARGE_USD: Final = 100_000.0
"""Positions above this are closed by a fifth first (exchanges.md 4h)."""


def rule_of(venue: str) -> VenueRule:
    """The venue's rule, or the generic one."""
    return RULES.get(venue, GENERIC)


def sign_of(side: Side) -> int:
    """+1 for a long, -1 for a short."""
    return 1 if side == "long" else -1


class MarginTable:
    """Maintenance requirement of one instrument.

    A *quantity* is base units for a linear contract and USD of face value for an inverse one.
    `is_assumed` says that the venue's tiers are not known and a flat rate stands in.
    """

    def __init__(self, instrument: Instrument, *, close_fee: float | None = None) -> None:
        rule = rule_of(instrument.venue)
        self.kind = instrument.kind
        self.fee = rule.close_fee if close_fee is None else close_fee
        self.steps = rule.steps
        self._unit = instrument.tier_unit
        self._contract = instrument.contract
        tiers = instrument.tiers
        self.is_assumed = not tiers
        self.floor = np.array([t.floor for t in tiers] or [0.0])
        self.cap = np.array([np.inf if t.cap is None else t.cap for t in tiers] or [np.inf])
        self.rate = np.array([t.rate for t in tiers] or [FLAT_RATE])
        deduction = np.array([t.deduction for t in tiers] or [0.0])
        self.deduction = deduction if rule.deducts else np.zeros_like(deduction)
        self.leverage = np.array([t.max_leverage for t in tiers] or [FLAT_LEVERAGE])
        # The last row has no end: a position beyond every cap keeps the highest rate.
        self.cap[-1] = np.inf

    def size(self, quantity: Floats, price: Floats) -> Floats:
        """Position size in the unit that the tiers count."""
        if self._unit == "contracts":
            return quantity / self._contract + 0.0 * price
        quote_is_face = self.kind == "inverse"
        if self._unit == "quote":
            return quantity + 0.0 * price if quote_is_face else quantity * price
        return quantity / price if quote_is_face else quantity + 0.0 * price

    def tier(self, quantity: Floats, price: Floats) -> NDArray[np.int64]:
        """Row of the table for each position at a price; a size on a cap is still below it."""
        found = np.searchsorted(self.cap, self.size(quantity, price), side="left")
        return np.minimum(found, len(self.cap) - 1)

    def most_usd(self, leverage: Floats, price: float) -> Floats:
        """Largest position that each leverage may have; ``nan`` where no tier allows it."""
        allowed = self.leverage >= leverage[:, None]
        cap = np.where(allowed, self.cap, np.nan)
        if self._unit == "contracts":
            cap *= self._contract
        if self._unit == "base" or (self._unit == "contracts" and self.kind == "linear"):
            cap *= price
        most: Floats = np.fmax.reduce(cap, axis=1)
        return most

    def maintenance(self, quantity: Floats, price: Floats) -> Floats:
        """Maintenance margin including the close fee; quote (linear) or base (inverse)."""
        row = self.tier(quantity, price)
        value = quantity * price if self.kind == "linear" else quantity / price
        required: Floats = value * (self.rate[row] + self.fee) - self.deduction[row]
        return required

    def prices_of_tier(self, row: int, quantity: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest price at which each position belongs to a row of the table."""
        floor, cap = float(self.floor[row]), float(self.cap[row])
        nothing, everything = np.zeros_like(quantity), np.full_like(quantity, np.inf)
        if self._unit == "quote" and self.kind == "linear":
            return floor / quantity, cap / quantity
        if self._unit == "base" and self.kind == "inverse":
            low = nothing if cap == np.inf else quantity / cap
            return low, everything if floor == 0 else quantity / floor
        size = self.size(quantity, np.ones_like(quantity))
        within = (size > floor) & (size <= cap)
        if row == 0:
            within |= size <= floor
        return np.where(within, nothing, np.inf), np.where(within, everything, -np.inf)


def equity(
    table: MarginTable,
    side: Side,
    *,
    entry: Floats,
    quantity: Floats,
    margin: Floats,
    price: Floats,
) -> Floats:
    """Margin plus unrealised profit at a price; quote (linear) or base (inverse)."""
    s = sign_of(side)
    if table.kind == "linear":
        return margin + s * quantity * (price - entry)
    return margin + s * quantity * (1.0 / entry - 1.0 / price)


def liquidation_prices(
    table: MarginTable, side: Side, *, entry: Floats, quantity: Floats, margin: Floats
) -> Floats:
    """Marks at which positions reach maintenance; arrays broadcast.

    `margin` is what stands behind the position: isolated margin, or `cross_margin`. 0 (long) or
    ``inf`` (short) where no price liquidates.
    """
    entry, quantity, margin = (
        np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(entry, quantity, margin)
    )
    best = np.zeros_like(entry) if side == "long" else np.full_like(entry, np.inf)
    for row in range(len(table.rate)):
        low, high = table.prices_of_tier(row, quantity)
        price = _price_in_tier(table, row, side, entry=entry, quantity=quantity, margin=margin)
        if side == "long":
            reached = np.minimum(price, high)
            best = np.where((reached > low) & (reached > best), reached, best)
        else:
            reached = np.maximum(price, low)
            best = np.where((reached <= high) & (reached < best), reached, best)
    return best


def _price_in_tier(
    table: MarginTable, row: int, side: Side, *, entry: Floats, quantity: Floats, margin: Floats
) -> Floats:
    """The closed form of A1 with one row's numbers, whether or not the row holds there."""
    s = sign_of(side)
    rate, deduction = float(table.rate[row]) + table.fee, float(table.deduction[row])
    if table.kind == "linear":
        price = (s * quantity * entry - margin - deduction) / (quantity * (s - rate))
        return np.maximum(price, 0.0)
    below = s * quantity / entry + margin + deduction
    never = below * s <= 0
    price = quantity * (s + rate) / np.where(never, 1.0, below)
    return np.where(never, np.inf, price)


def bankruptcy_prices(
    table: MarginTable, side: Side, *, entry: Floats, quantity: Floats, margin: Floats
) -> Floats:
    """Prices at which equity is zero; 0 (long) or ``inf`` (short) where there is none."""
    s = sign_of(side)
    entry, quantity, margin = (
        np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(entry, quantity, margin)
    )
    if table.kind == "linear":
        return np.maximum(entry - s * margin / quantity, 0.0)
    below = quantity / entry + s * margin
    return np.where(below > 0, quantity / np.where(below > 0, below, 1.0), np.inf)


def cross_margin(wallet: Floats, other_profit: Floats, other_maintenance: Floats) -> Floats:
    """What stands behind one position of a cross account (Binance's WB + UPNL1 - TMM1, A1)."""
    margin: Floats = wallet + other_profit - other_maintenance
    return margin


def distances(
    table: MarginTable, side: Side, leverage: Floats, *, price: float, position_usd: float
) -> Floats:
    """Log distance from entry to liquidation for isolated positions worth `position_usd`.

    Where such a position may not have the leverage, of the largest that may. ``nan`` where none
    may, or it would be liquidated at entry. ``inf`` where it is never liquidated.
    """
    linear = table.kind == "linear"
    # Who uses a leverage that no such position may have holds a smaller one.
    most = table.most_usd(leverage, price) * (1.0 - 1e-9)
    usd = np.fmin(most, position_usd)
    quantity = usd / price if linear else usd
    margin = quantity * (price if linear else 1.0 / price) / leverage
    entry = np.full_like(leverage, price)
    found = liquidation_prices(table, side, entry=entry, quantity=quantity, margin=margin)
    with np.errstate(divide="ignore"):
        away = np.log(found / price) * -sign_of(side)
    return np.where(np.isnan(most) | ~(away > 0), np.nan, away)


def first_closes(table: MarginTable, position_usd: Floats, price: float) -> tuple[Floats, Floats]:
    """How a venue starts to close positions: the share closed first, and the relief of the rest.

    The relief is the log distance by which the rest's liquidation lies deeper: after closing a
    share at the mark, equity is unchanged and the requirement is smaller. Positions closed whole
    have share 1 and relief 0. Sources: exchanges.md 2h, 3h, 4h.
    """
    linear = table.kind == "linear"
    quantity = position_usd / price if linear else position_usd
    at = np.full_like(position_usd, price)
    row = table.tier(quantity, at)
    size = table.size(quantity, at)
    if table.steps == "fifth":
        kept = np.where(position_usd > HYPERLIQUID_LARGE_USD, 0.8, 0.0)
    elif table.steps == "one_tier":
        kept = np.where(row > 0, table.floor[row] / size, 0.0)
    elif table.steps == "two_tiers":
        kept = np.where(row > 1, table.floor[np.maximum(row - 1, 0)] / size, 0.0)
    else:
        kept = np.zeros_like(size)
    required = table.maintenance(quantity, at) / position_usd * (1.0 if linear else price)
    rest = np.maximum(kept, 1e-12)
    row_after = table.tier(quantity * kept, at)
    rate = table.rate[row_after] + table.fee
    spare = table.deduction[row_after] / position_usd * (1.0 if linear else price)
    # required = equity; equity - kept (1 - r) = rate kept r - spare, solved for the ratio r.
    ratio = (rest - required - spare) / (rest * (1.0 - rate))
    relief = np.where(kept > 0, -np.log(np.clip(ratio, 1e-3, 1.0)), 0.0)
    return 1.0 - kept, relief
