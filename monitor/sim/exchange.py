"""Matching and clearing: an order meets the book, both sides' accounts are booked, a trade prints.

This is the only module that moves positions between accounts, so conservation is its property.
"""

from typing import Literal

import numpy as np
from msgspec import Struct

from monitor.sim.accounts import Accounts, Kind
from monitor.sim.book import Books, Fill
from monitor.sim.rules import MICRO, Contract, Venue

Taker = Literal["buy", "sell"]
Side = Literal["long", "short"]


class Trade(Struct, frozen=True):
    """One print: a taker met the makers of one price level; `forced` marks liquidation orders."""

    at: int
    venue: str
    asset: str
    tick: int
    lots: int
    taker: Taker
    forced: bool


class Transfer(Struct, frozen=True):
    """A position that changed hands outside the book, or money into or out of the fund.

    `kind` is ``takeover`` (account to insurance fund at the bankruptcy price), ``adl`` (account
    to the most profitable opposite account) or ``fund`` (money only; `amount` micro-USD, negative
    when the fund pays; it has no asset). `account` and `counterparty` are account numbers; `lots`
    is unsigned; `side` is the position's.
    """

    at: int
    venue: str
    asset: str
    kind: Literal["takeover", "adl", "fund"]
    account: int
    counterparty: int
    side: Side
    lots: int
    tick: int
    amount: int


class Exchange:
    """All venues' matching and clearing at one instant of the simulation."""

    def __init__(
        self,
        venues: tuple[Venue, ...],
        contracts: tuple[Contract, ...],
        books: Books,
        accounts: Accounts,
        *,
        forced_impact: bool,
    ) -> None:
        self.venues, self.contracts = venues, contracts
        self.books, self.accounts = books, accounts
        self.forced_impact = forced_impact
        self.at = 0
        self.marks = np.zeros(len(contracts), dtype=np.int64)
        self.last = np.zeros(len(contracts), dtype=np.int64)
        self.trades: list[Trade] = []
        self.transfers: list[Transfer] = []
        self.volume = [0] * len(contracts)

    def order(self, row: int, c: int, lots: int, *, limit: int | None = None) -> Fill:
        """Send an immediate-or-cancel order of signed `lots` into the book of contract `c`."""
        buy = lots > 0
        bound = (2**62 if buy else 0) if limit is None else limit
        fill = self.books.take(c, buy=buy, lots=abs(lots), limit=bound)
        self._clear(row, c, fill, buy=buy, forced=False)
        return fill

    def forced_order(self, row: int, c: int, lots: int, *, limit: int) -> Fill:
        """As `order`, for a liquidation; in a twin run it fills at mark without touching the book.

        It never trades through `limit`, in either world.
        """
        buy = lots > 0
        if self.forced_impact:
            fill = self.books.take(c, buy=buy, lots=abs(lots), limit=limit)
        else:
            mark = int(self.marks[c])
            within = mark <= limit if buy else mark >= limit
            size = abs(lots) if within else 0
            fill = Fill(size, size * mark, [])
        self._clear(row, c, fill, buy=buy, forced=True)
        return fill

    def passive(self, row: int, c: int, lots: int) -> None:
        """A resting order of the trader is hit: the position passes at the touch, unprinted."""
        k = self.books.bid[c] if lots > 0 else self.books.ask[c]
        tick = int(self.books.ticks[c, k])
        contract = self.contracts[c]
        maker = self.accounts.role(contract.venue_index, Kind.MAKER)
        self.move(maker, row, c, lots, tick)

    def move(self, source: int, target: int, c: int, lots: int, tick: int) -> None:
        """Book signed `lots` to `target` and away from `source` at `tick`, outside the book."""
        contract = self.contracts[c]
        value = lots * tick * contract.unit
        self.accounts.fill(target, contract.asset_index, lots, value)
        self.accounts.fill(source, contract.asset_index, -lots, -value)

    def pay(self, source: int, target: int, amount: int) -> None:
        """Move money between two accounts of one venue."""
        cash = self.accounts.cash
        assert self.accounts.venue[source] == self.accounts.venue[target], (source, target)
        cash[source] -= amount
        cash[target] += amount
        self.accounts.touched.extend((source, target))

    def note_fund(self, row: int, fund: int, amount: int) -> None:
        """Record money that the fund got from (or, negative, paid for) an account."""
        name = self.venues[int(self.accounts.venue[row])].name
        number, other = int(self.accounts.number[row]), int(self.accounts.number[fund])
        self.transfers.append(
            Transfer(self.at, name, "", "fund", number, other, "long", 0, 0, amount)
        )

    def value(self, c: int, lots: int) -> int:
        """Micro-USD of `lots` at mark, signed like `lots`."""
        return lots * int(self.marks[c]) * self.contracts[c].unit

    def _clear(self, row: int, c: int, fill: Fill, *, buy: bool, forced: bool) -> None:
        if fill.lots == 0:
            return
        contract = self.contracts[c]
        sign = 1 if buy else -1
        value = sign * fill.tick_lots * contract.unit
        maker = self.accounts.role(contract.venue_index, Kind.MAKER)
        self.accounts.fill(row, contract.asset_index, sign * fill.lots, value)
        self.accounts.fill(maker, contract.asset_index, -sign * fill.lots, -value)
        venue = self.venues[contract.venue_index]
        if not forced:
            fee = abs(value) * venue.taker_fee_ppm // MICRO
            self.pay(row, self.accounts.role(contract.venue_index, Kind.VENUE), fee)
        taker: Taker = "buy" if buy else "sell"
        for tick, lots in fill.parts:
            self.trades.append(
                Trade(self.at, contract.venue, contract.asset, tick, lots, taker, forced)
            )
        if fill.parts:
            self.last[c] = fill.parts[-1][0]
            self.volume[c] += abs(value)
