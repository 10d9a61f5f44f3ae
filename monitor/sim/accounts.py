"""Every account of every venue in flat integer arrays: cash, positions, cost, margin.

Positions are in lots, money in integer micro-USD, so that what one account gains another loses to
the last unit. Equity and maintenance are computed from these, never from a liquidation price.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from monitor.sim.rules import MICRO, Contract, TierTable, Venue

ACCOUNTS_MAX = 400_000
"""Rows the market may hold; a full table refuses new traders instead of growing."""


class Kind(IntEnum):
    """What an account is; only isolated and cross accounts can be liquidated."""

    FREE = 0
    ISOLATED = 1
    CROSS = 2
    CARRY = 3
    MAKER = 4
    NOISE = 5
    ARBITRAGE = 6
    FUND = 7
    VENUE = 8


ROLES = (Kind.MAKER, Kind.NOISE, Kind.ARBITRAGE, Kind.CARRY, Kind.FUND, Kind.VENUE)
"""One account of each of these per venue, at the start of the table."""


class Accounts:
    """The table; a row is an account, `lots[a]` and `cost[a]` its position in asset `a`.

    `cost` is signed like `lots`: what the position cost to open. Equity at mark is
    ``cash + sum(lots * mark * unit - cost)``. `deposits` is the net money ever paid in per venue,
    so that cash minus cost over all rows of a venue equals it at every step.
    """

    def __init__(
        self, venues: tuple[Venue, ...], contracts: tuple[Contract, ...], assets: int
    ) -> None:
        self.venues, self.contracts, self.assets = venues, contracts, assets
        self.tiers = TierTable(venues, contracts)
        self.unit = np.array([c.unit for c in contracts]).reshape(len(venues), assets)
        self._capacity = 0
        self.kind: NDArray[np.int8] = np.zeros(0, dtype=np.int8)
        self.venue: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.cash: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.lots: NDArray[np.int64] = np.zeros((assets, 0), dtype=np.int64)
        self.cost: NDArray[np.int64] = np.zeros((assets, 0), dtype=np.int64)
        self.stop: NDArray[np.int64] = np.zeros((assets, 0), dtype=np.int64)
        self.collateral_ppm: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.resume_at: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.number: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._numbers = 0
        self.count = 0
        self._free: list[int] = []
        self.deposits = [0] * len(venues)
        self.longs = [0] * len(contracts)
        self.haircut_ppm = np.zeros(len(venues), dtype=np.int64)
        self.touched: list[int] = []
        for v in range(len(venues)):
            for role in ROLES:
                self.open(v, role, 0)

    def role(self, venue: int, kind: Kind) -> int:
        """Row of the venue's own account of that kind."""
        return venue * len(ROLES) + ROLES.index(kind)

    # ----------------------------------------------------------------------------- opening

    def open(self, venue: int, kind: Kind, cash: int, collateral_ppm: int = 0) -> int:
        """Row of a new account with `cash` paid in, or -1 when the table is full."""
        if self._free:
            row = self._free.pop()
        elif self.count < ACCOUNTS_MAX:
            row = self.count
            if row == self._capacity:
                self._grow(max(4_096, 2 * self._capacity))
            self.count += 1
        else:
            return -1
        self.kind[row], self.venue[row], self.cash[row] = kind, venue, 0
        self.collateral_ppm[row], self.resume_at[row] = collateral_ppm, 0
        # Rows are reused, numbers are not: a number names one trader for the whole run.
        self.number[row] = self._numbers
        self._numbers += 1
        self.pay_in(row, cash)
        return row

    def pay_in(self, row: int, cash: int) -> None:
        """Add (or, negative, withdraw) money from outside."""
        self.cash[row] += cash
        self.deposits[int(self.venue[row])] += cash
        self.touched.append(row)

    def close(self, row: int) -> None:
        """Pay out what is left of an account without positions and free its row."""
        assert not self.lots[:, row].any(), "an account with a position cannot be closed"
        assert self.kind[row] != Kind.FREE, "an account is closed once"
        self.pay_in(row, -int(self.cash[row]))
        self.kind[row] = Kind.FREE
        self._free.append(row)

    def _grow(self, capacity: int) -> None:
        for name in ("kind", "venue", "cash", "collateral_ppm", "resume_at", "number"):
            old = getattr(self, name)
            new = np.zeros(capacity, dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        for name in ("lots", "cost", "stop"):
            old = getattr(self, name)
            wide = np.zeros((self.assets, capacity), dtype=old.dtype)
            wide[:, : old.shape[1]] = old
            setattr(self, name, wide)
        self._capacity = capacity

    # ----------------------------------------------------------------------------- trading

    def fill(self, row: int, asset: int, lots: int, value: int) -> None:
        """Book a trade of signed `lots` whose signed price times lots is `value` micro-USD.

        What closes an existing position is realised into cash; the rest adds to the cost.
        """
        if lots == 0:
            return
        held, cost = int(self.lots[asset, row]), int(self.cost[asset, row])
        if held and (held > 0) != (lots > 0):
            closing = min(abs(lots), abs(held))
            released = cost if closing == abs(held) else cost * closing // abs(held)
            closed_value = value if closing == abs(lots) else value * closing // abs(lots)
            self.cash[row] -= closed_value + released
            self.cost[asset, row] = cost - released + (value - closed_value)
        else:
            self.cost[asset, row] = cost + value
        after = held + lots
        self.lots[asset, row] = after
        if after == 0 or (held and (after > 0) != (held > 0)):
            self.stop[asset, row] = 0
        index = int(self.venue[row]) * self.assets + asset
        self.longs[index] += max(after, 0) - max(held, 0)
        self.touched.append(row)

    # ------------------------------------------------------------------------------ margin

    def margin(
        self, rows: NDArray[np.int64], marks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Equity and maintenance of `rows` at `marks` (ticks, by contract), in micro-USD."""
        return self.margin_at(rows, marks[self.contracts_of(rows)])

    def margin_at(
        self, rows: NDArray[np.int64], ticks: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `margin`, with every account's own price of every asset, shape (assets, rows)."""
        contract = self.contracts_of(rows)
        equity = self.collateral(rows)
        maintenance = np.zeros(len(rows), dtype=np.int64)
        unit = self.unit[self.venue[rows]]
        for a in range(self.assets):
            lots = self.lots[a, rows]
            value = lots * ticks[a] * unit[:, a]
            equity = equity + value - self.cost[a, rows]
            maintenance += self.tiers.maintenance(contract[a], np.abs(lots), np.abs(value))
        return equity, maintenance

    def margin_of(self, row: int, marks: NDArray[np.int64]) -> tuple[int, int]:
        """As `margin` for one account, without the cost of arrays."""
        venue, cash = int(self.venue[row]), int(self.cash[row])
        haircut = int(self.haircut_ppm[venue])
        lost = max(cash, 0) // MICRO * (int(self.collateral_ppm[row]) * haircut // MICRO)
        equity, maintenance = cash - lost, 0
        for a, lots in enumerate(self.lots[:, row].tolist()):
            if lots == 0:
                continue
            c = venue * self.assets + a
            value = lots * int(marks[c]) * self.contracts[c].unit
            equity += value - int(self.cost[a, row])
            maintenance += self.tiers.maintenance_of(c, abs(lots), abs(value))
        return equity, maintenance

    def collateral(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cash after the haircut that a depeg puts on its alternative part, in micro-USD."""
        cash: NDArray[np.int64] = self.cash[rows]
        haircut = self.haircut_ppm[self.venue[rows]]
        if not haircut.any():
            return cash
        lost = np.maximum(cash, 0) // MICRO * (self.collateral_ppm[rows] * haircut // MICRO)
        left: NDArray[np.int64] = cash - lost
        return left

    def gross(self, rows: NDArray[np.int64], marks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of absolute position values at `marks`, in micro-USD."""
        contract = self.contracts_of(rows)
        unit = self.unit[self.venue[rows]]
        total = np.zeros(len(rows), dtype=np.int64)
        for a in range(self.assets):
            total += np.abs(self.lots[a, rows]) * marks[contract[a]] * unit[:, a]
        return total

    def contracts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Contract index of every asset for each row, shape (assets, rows)."""
        return self.venue[rows] * self.assets + np.arange(self.assets)[:, None]

    def is_trader(self) -> NDArray[np.bool_]:
        """Rows that can be liquidated: isolated or cross, over `count` rows."""
        kind = self.kind[: self.count]
        found: NDArray[np.bool_] = (kind == Kind.ISOLATED) | (kind == Kind.CROSS)
        return found

    def equity_of(self, row: int, marks: NDArray[np.int64]) -> int:
        """Equity of one account, micro-USD."""
        return self.margin_of(row, marks)[0]


class Watch:
    """The few accounts that could fall below maintenance, or reach a stop, before the next scan.

    A scan keeps every account whose slack is less than `REACH` of its gross value. Slack changes
    by at most the move times gross value times one plus the highest maintenance rate, so while no
    mark has moved by `RESCAN` since the scan, nobody outside the list can need liquidation. It
    only saves time: who is liquidated is decided by equity and maintenance alone.
    """

    REACH = 0.012
    RESCAN = 0.008

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._rows: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._stops: NDArray[np.int64] = np.zeros((2, 0), dtype=np.int64)
        self._marks: NDArray[np.int64] | None = None
        self._haircut = accounts.haircut_ppm.copy()

    def rows(self, marks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Accounts to examine at these marks, ascending."""
        accounts = self._accounts
        if self._is_stale(marks):
            self._scan(marks)
        elif accounts.touched:
            fresh = np.unique(np.array(accounts.touched, dtype=np.int64))
            self._rows = np.union1d(self._rows, fresh)
            pairs = [self._stops]
            for a in range(accounts.assets):
                stopped = fresh[accounts.stop[a, fresh] != 0]
                pairs.append(np.stack([np.full(len(stopped), a), stopped]))
            self._stops = np.unique(np.concatenate(pairs, axis=1), axis=1)
        accounts.touched.clear()
        kind = accounts.kind[self._rows]
        found: NDArray[np.int64] = self._rows[(kind == Kind.ISOLATED) | (kind == Kind.CROSS)]
        return found

    def forget(self) -> None:
        """Money moved on many accounts at once: the next call scans them all."""
        self._marks = None

    def stopped(self, marks: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(asset, row) of every position whose mark has reached its stop price."""
        accounts = self._accounts
        asset, row = self._stops
        stop = accounts.stop[asset, row]
        mark = marks[accounts.venue[row] * accounts.assets + asset]
        lots = accounts.lots[asset, row]
        hit = (stop != 0) & np.where(lots > 0, mark <= stop, (lots < 0) & (mark >= stop))
        return list(zip(asset[hit].tolist(), row[hit].tolist(), strict=True))

    def _is_stale(self, marks: NDArray[np.int64]) -> bool:
        if self._marks is None or len(self._rows) > 20_000:
            return True
        moved = np.abs(marks - self._marks) > self.RESCAN * self._marks
        return bool(moved.any() or (self._haircut != self._accounts.haircut_ppm).any())

    def _scan(self, marks: NDArray[np.int64]) -> None:
        accounts = self._accounts
        self._marks, self._haircut = marks.copy(), accounts.haircut_ppm.copy()
        traders = np.nonzero(accounts.is_trader())[0]
        equity, maintenance = accounts.margin(traders, marks)
        near = equity - maintenance < (accounts.gross(traders, marks) * self.REACH)
        self._rows = traders[near]
        pairs = []
        for a in range(accounts.assets):
            stop = accounts.stop[a, traders]
            mark = marks[accounts.venue[traders] * accounts.assets + a]
            close = (stop != 0) & (np.abs(stop - mark) < self.REACH * mark)
            pairs.append(np.stack([np.full(int(close.sum()), a), traders[close]]))
        self._stops = np.concatenate(pairs, axis=1).astype(np.int64)
