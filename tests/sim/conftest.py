"""Small markets and hand-made accounts for the simulator's tests."""

from dataclasses import dataclass

import numpy as np
import pytest

from monitor.sim.accounts import Accounts, Kind
from monitor.sim.book import LEVELS, Books
from monitor.sim.exchange import Exchange
from monitor.sim.liquidation import LiquidationEngine
from monitor.sim.parameters import ASSETS, FIRST
from monitor.sim.rules import MICRO, VENUES, contracts_of


@dataclass
class Desk:
    """Four venues with full books, no traders, and an engine that waits to be run."""

    accounts: Accounts
    books: Books
    exchange: Exchange
    engine: LiquidationEngine

    def contract(self, venue, asset="BTC"):
        return next(c for c in self.exchange.contracts if (c.venue, c.asset) == (venue, asset))

    def trader(self, venue, *, usd, leverage, side="long", kind=Kind.ISOLATED, asset="BTC"):
        """An account whose only position was opened at the mark against the maker."""
        contract = self.contract(venue, asset)
        mark = int(self.exchange.marks[contract.index])
        lots = round(usd * MICRO) // (mark * contract.unit)
        value = lots * mark * contract.unit
        row = self.accounts.open(contract.venue_index, kind, int(value / leverage))
        maker = self.accounts.role(contract.venue_index, Kind.MAKER)
        sign = 1 if side == "long" else -1
        self.exchange.move(maker, row, contract.index, sign * lots, mark)
        return row

    def move_mark(self, venue, ratio, *, asset="BTC", book=True):
        """Mark (and, unless told otherwise, the book) moves by a ratio."""
        contract = self.contract(venue, asset)
        c = contract.index
        self.exchange.marks[c] = round(int(self.exchange.marks[c]) * (1 + ratio))
        if book:
            level = int(np.searchsorted(self.books.ticks[c], self.exchange.marks[c]))
            self.books.centre[c] = level + 0.5
            self.books.requote(self.books.centre.copy(), np.ones(len(self.books.bid)), 1e9)

    def run(self, seconds=1.0):
        self.exchange.at += round(seconds * 1e9)
        self.engine.records.clear()
        rows = np.nonzero(self.accounts.is_trader())[0]
        self.engine.run(rows, seconds)
        return self.engine.records

    def imbalance(self):
        """What conservation must keep at zero: net lots per contract, and money per venue."""
        return conservation(self.accounts)


def conservation(accounts):
    n = accounts.count
    found = []
    for v in range(len(accounts.venues)):
        here = accounts.venue[:n] == v
        cash = int(accounts.cash[:n][here].sum())
        cost = int(accounts.cost[:, :n][:, here].sum())
        found.append(cash - cost - accounts.deposits[v])
        found.extend(accounts.lots[:, :n][:, here].sum(axis=1).tolist())
    return found


@pytest.fixture
def desk():
    names = tuple(a.name for a in ASSETS)
    contracts = contracts_of(VENUES, names)
    books = Books(contracts, VENUES, ASSETS, FIRST, seed=0)
    accounts = Accounts(VENUES, contracts, len(ASSETS))
    exchange = Exchange(VENUES, contracts, books, accounts, forced_impact=True)
    exchange.marks = books.ticks[:, LEVELS // 2].copy()
    for v in range(len(VENUES)):
        accounts.pay_in(accounts.role(v, Kind.FUND), 10_000_000 * MICRO)
    engine = LiquidationEngine(exchange, FIRST, [1e9] * len(contracts))
    return Desk(accounts, books, exchange, engine)
