"""Index, mark price and funding of every contract, by each venue's own rule.

Sources: docs/exchanges.md 1c, 2c, 3c, 4c and 4h; model.md A13.2 for the median of Binance.
"""

import numpy as np
from numpy.typing import NDArray

from monitor.sim.accounts import Accounts, Kind
from monitor.sim.rules import Contract, Venue

# The basis is sampled this often; Binance, OKX and Hyperliquid average 30 samples (150 s), Bybit
# 60 samples (5 min).
SAMPLE_S = 5.0
_SAMPLES = {"binance": 30, "bybit": 60, "okx": 30, "hyperliquid": 30}
_SAMPLES_MAX = 60

# Funding of 8 h: premium plus interest of 0.01 % within 0.05 %, capped at 0.375 % (2g, 3c).
_E8 = 100_000_000
_INTEREST = 1e-4
_CLAMP = 5e-4
_CAP = 3.75e-3
_BASE_INTERVAL_S = 28_800


class Marks:
    """Marks in integer ticks; `index` and `mark` are the venues' published prices."""

    def __init__(
        self, venues: tuple[Venue, ...], contracts: tuple[Contract, ...], assets: int
    ) -> None:
        self._venues, self._contracts, self._assets = venues, contracts, assets
        count = len(contracts)
        self.index: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self.mark: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self.rate_e8: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self._rules = np.array([venues[c.venue_index].rule for c in contracts])
        self._tick_usd = np.array([c.tick_usd for c in contracts])
        self._basis = np.zeros((_SAMPLES_MAX, count))
        self._window = np.array([_SAMPLES[r] for r in self._rules.tolist()])
        self._average = np.zeros(count)
        self._samples = 0
        self._premium = np.zeros(count)
        self._premiums = np.zeros(count)
        self._interval = np.array([venues[c.venue_index].funding_interval_s for c in contracts])

    def update(
        self,
        index: NDArray[np.float64],
        mid: NDArray[np.float64],
        last: NDArray[np.int64],
        to_funding_s: NDArray[np.float64],
    ) -> None:
        """New index (ticks, fractional), book mids and last trades: recompute every mark."""
        basis = index + self._average
        drift = index * (1.0 + self.rate_e8 / _E8 * (to_funding_s / self._interval))
        # Hyperliquid's third price is the median of the other venues' perpetuals (4h).
        usd = (mid * self._tick_usd).reshape(len(self._venues), self._assets)
        others = np.tile(np.sort(usd[:3], axis=0)[usd[:3].shape[0] // 2], len(self._venues))
        on_chain = self._rules == "hyperliquid"
        first = np.where(on_chain, others / self._tick_usd, drift)
        third = np.where(on_chain, np.where(np.abs(last - mid) < 1.0, last, mid), last)
        median = np.sort(np.stack([first, basis, third]), axis=0)[1]
        mark = np.where(self._rules == "okx", basis, median)
        self.index = np.maximum(np.rint(index), 1).astype(np.int64)
        self.mark = np.maximum(np.rint(mark), 1).astype(np.int64)

    def sample(self, index: NDArray[np.float64], mid: NDArray[np.float64]) -> None:
        """Take one sample of basis and premium; to be called every `SAMPLE_S`."""
        self._basis[self._samples % _SAMPLES_MAX] = mid - index
        self._samples += 1
        for window in (30, _SAMPLES_MAX):
            have = min(window, self._samples)
            slots = np.arange(self._samples - have, self._samples) % _SAMPLES_MAX
            # A cumulative sum adds in a fixed order on every machine.
            total = np.cumsum(self._basis[slots], axis=0)[-1]
            self._average = np.where(self._window == window, total / have, self._average)
        self._premium += (mid - index) / index
        self._premiums += 1
        mean = self._premium / self._premiums
        rate = np.clip(mean + np.clip(_INTEREST - mean, -_CLAMP, _CLAMP), -_CAP, _CAP)
        self.rate_e8 = np.rint(rate * (self._interval / _BASE_INTERVAL_S) * _E8).astype(np.int64)

    def settle_funding(self, accounts: Accounts, venue: int) -> None:
        """Longs pay shorts at the current rate; the venue keeps what integer division leaves."""
        rows = np.nonzero(
            (accounts.venue[: accounts.count] == venue) & (accounts.kind[: accounts.count] > 0)
        )[0]
        total = 0
        for a in range(self._assets):
            c = venue * self._assets + a
            unit = int(self.mark[c]) * self._contracts[c].unit
            # Two divisions by 1e4, because value times rate leaves 64 bits.
            due = accounts.lots[a, rows] * unit // 10_000 * int(self.rate_e8[c]) // 10_000
            accounts.cash[rows] -= due
            total += int(due.sum())
            self._premium[c], self._premiums[c] = 0.0, 0.0
        accounts.cash[accounts.role(venue, Kind.VENUE)] += total
