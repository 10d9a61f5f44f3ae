"""Traders with a view: who enters, who leaves, who takes profit, who comes for minutes only.

Takes a fixed number of random draws a step whatever happens, so that a twin run sees the same
people wanting the same things.
"""

import math
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from monitor.sim.accounts import Kind, Watch
from monitor.sim.chance import Draws
from monitor.sim.exchange import Exchange
from monitor.sim.flow import burden, interest_of
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.population import RETAIL, RETAIL_WEIGHT, SLOW
from monitor.sim.rules import MICRO

# Voluntary and stop orders accept this slippage from where the step began, as a ratio.
_SLIP = 0.002
# Traders who come for minutes are as bold as the boldest of all: this share of them.
_BOLDEST = 0.3


class Directional:
    """Traders with a view: they enter with the trend, keep a while, leave, or are stopped out.

    A storm brings traders who are out again within minutes, and lets those on the other side of
    its forced orders take profit. So what is force-closed leaves open interest, instead of passing
    to makers and new traders.
    """

    _WIDTH = 12

    def __init__(
        self,
        exchange: Exchange,
        assets: tuple[Asset, ...],
        parameters: Parameters,
        *,
        seed: int,
        step_s: float,
        collateral_share: float,
    ) -> None:
        self._exchange, self._assets, self._parameters = exchange, assets, parameters
        self._collateral_ppm = round(collateral_share * MICRO)
        interest = interest_of(exchange, assets)
        self._cumulative = np.cumsum(interest) / interest.sum()
        p = parameters
        mean_usd = min(p.size_median_usd * math.exp(p.size_sigma**2 / 2), p.size_cap_usd)
        directional = 2 * (1 - p.hedged_share) * float(interest.sum())
        # As many come per second as leave, plus those who are liquidated.
        self._rate = 1.15 * directional / mean_usd / p.life_s * step_s
        self._interest = interest
        self._first_lots = np.array(exchange.accounts.longs)
        self._returning = p.life_s / p.return_s
        most = 1.0 + p.storm_entries * (p.heat_max - 1.0) + self._returning
        self._candidates = max(1, math.ceil(2 * self._rate * most))
        most = 1.0 + p.profit_gain * (p.heat_max - 1.0)
        self._leavers = max(1, math.ceil(2 * self._rate * most))
        self._step_s = step_s
        self._entries = Draws(seed, "entries", kind="uniform", width=self._WIDTH * self._candidates)
        self._sizes = Draws(seed, "entry_sizes", kind="normal", width=self._candidates)
        self._exits = Draws(seed, "exits", kind="uniform", width=2 * self._leavers)
        self._ladder = np.cumsum(RETAIL_WEIGHT)
        self._touch: tuple[list[int], list[int]] = ([], [])
        # Who came for minutes only: when they go, their account's number and row.
        self._fast: list[tuple[int, int, int]] = []

    def step(
        self,
        trend: NDArray[np.float64],
        heat: float,
        watch: Watch,
    ) -> None:
        """One step of stops, exits and entries.

        `trend` is the 4 h move per asset in sigmas; `heat` is how much a storm excites people, 1
        when there is none.
        """
        books = self._exchange.books
        self._touch = (list(books.bid), list(books.ask))
        self._stop_out(watch)
        self._leave_fast()
        self._leave(heat)
        draw = self._entries.row()
        sizes = self._sizes.row()
        wide = draw.reshape(self._candidates, self._WIDTH)
        drawn_in = 1.0 + self._parameters.storm_entries * (heat - 1.0)
        back = self._returning * self._missing()
        # At most twice the hot rate: whoever draws more than that does not come in any case.
        bound = self._rate * (drawn_in * 2.0 + float(back.max()))
        likely = np.nonzero(wide[:, 0] * self._candidates < bound)[0]
        for i in likely.tolist():
            row = wide[i].tolist()
            c = min(int(np.searchsorted(self._cumulative, row[1])), len(self._cumulative) - 1)
            pull = float(trend[self._exchange.contracts[c].asset_index])
            # Entries rise with the trend, up to twice the normal rate.
            followers = min(2.0, 0.8 + 0.2 * abs(pull))
            eager = drawn_in * followers + float(back[c])
            if row[0] * self._candidates < self._rate * eager:
                fast = row[10] * eager < (drawn_in - 1.0) * followers
                self._enter(c, pull, row, float(sizes[i]), fast=fast)

    def _missing(self) -> NDArray[np.float64]:
        """Share of each contract's first open interest, in lots, that is not there."""
        gone = np.maximum(self._first_lots - np.array(self._exchange.accounts.longs), 0)
        share: NDArray[np.float64] = gone / np.maximum(self._first_lots, 1)
        return share

    def _enter(self, c: int, pull: float, u: list[float], z: float, *, fast: bool) -> None:
        exchange, p = self._exchange, self._parameters
        contract, accounts = exchange.contracts[c], exchange.accounts
        # Whom a storm draws in comes on either side; only the usual ones follow the trend. If all
        # did, or if many came, moves and entries would feed each other without end.
        lean = p.long_bias + min(max(p.trend_slope * pull, -p.trend_lean_max), p.trend_lean_max)
        lean = 0.0 if fast else lean
        sign = 1 if u[2] < 1 / (1 + math.exp(-lean)) else -1
        usd = min(p.size_median_usd * math.exp(p.size_sigma * z), p.size_cap_usd)
        lots = int(usd * MICRO) // exchange.value(c, 1)
        # Who comes for minutes takes the most that is offered.
        rung = 1.0 - _BOLDEST * (1.0 - u[4]) if fast else u[4]
        leverage = (
            float(SLOW[int(u[4] * len(SLOW))])
            if u[3] < p.slow_share and not fast
            else float(RETAIL[min(int(np.searchsorted(self._ladder, rung)), len(RETAIL) - 1)])
        )
        cross = u[5] < p.cross_share and not fast
        if cross:
            leverage = max(1.2, leverage * (0.15 + 0.45 * u[6]))
        # The venue's own cap: initial margin covers twice the maintenance of the lowest tier.
        cap = MICRO / (2 * int(accounts.tiers.rate_ppm[c, 0]))
        leverage = min(leverage, cap)
        value = exchange.value(c, lots)
        if lots == 0:
            return
        kind = Kind.CROSS if cross else Kind.ISOLATED
        alternative = self._collateral_ppm if cross and sign > 0 and u[9] < 0.5 else 0
        row = accounts.open(contract.venue_index, kind, int(value / leverage), alternative)
        if row < 0:
            return
        if u[7] < p.taker_share:
            exchange.order(row, c, sign * lots)
        else:
            exchange.passive(row, c, sign * lots)
        if not accounts.lots[:, row].any():
            accounts.close(row)
            return
        if fast:
            stays = round(-math.log(1.0 - u[11]) * p.storm_life_s, 3)
            due = exchange.at + round(stays * 1e9)
            heappush(self._fast, (due, int(accounts.number[row]), row))
        if u[8] < p.stop_share:
            mark = int(exchange.marks[c])
            stop = round(mark * (1 - sign * p.stop_distance / leverage))
            accounts.stop[contract.asset_index, row] = max(1, stop)

    def _leave_fast(self) -> None:
        """Whoever came for minutes closes at market; what the book does not take waits a step."""
        exchange = self._exchange
        accounts = exchange.accounts
        waiting = []
        while self._fast and self._fast[0][0] <= exchange.at:
            due, number, row = heappop(self._fast)
            if int(accounts.number[row]) != number or accounts.kind[row] == Kind.FREE:
                continue
            for a in range(accounts.assets):
                self._close(row, a)
            if accounts.kind[row] != Kind.FREE:
                waiting.append((due, number, row))
        for one in waiting:
            heappush(self._fast, one)

    def _leave(self, heat: float) -> None:
        """Random holders close at market; those who lose hold on longer (C1).

        In a storm others take profit with orders that wait in the book. Those are met by what the
        forced orders left with the makers, and only by that: neither side's position remains.
        """
        exchange, p = self._exchange, self._parameters
        accounts = exchange.accounts
        draw = self._exits.row()
        chance = accounts.count * self._step_s / p.life_s / self._leavers
        favoured = chance * (1.0 + p.profit_gain * (heat - 1.0))
        for i in np.nonzero(draw[1::2] < favoured)[0].tolist():
            row = int(draw[2 * i] * accounts.count)
            if accounts.kind[row] not in (Kind.ISOLATED, Kind.CROSS):
                continue
            held = accounts.lots[:, row].tolist()
            first = int(accounts.venue[row]) * accounts.assets
            profit = sum(
                exchange.value(first + a, lots) - int(accounts.cost[a, row])
                for a, lots in enumerate(held)
                if lots
            )
            if draw[2 * i + 1] < chance * (p.loss_exit_ratio if profit < 0 else 1.0):
                for a in range(accounts.assets):
                    self._close(row, a)
                continue
            if draw[2 * i + 1] < chance or profit <= 0:
                continue
            for a, lots in enumerate(held):
                if lots * burden(exchange, first + a, self._interest, p) < 0:
                    self._close(row, a, rests=True)

    def _stop_out(self, watch: Watch) -> None:
        for a, row in watch.stopped(self._exchange.marks):
            self._close(row, a)

    def _close(self, row: int, asset: int, *, rests: bool = False) -> None:
        """Close one position; an account without positions or debt leaves.

        An order that `rests` is met by the makers. Others are protected against slippage: what a
        thin book does not take waits a step.
        """
        exchange = self._exchange
        accounts = exchange.accounts
        held = int(accounts.lots[asset, row])
        if held == 0:
            return
        c = int(accounts.venue[row]) * accounts.assets + asset
        if rests:
            exchange.passive(row, c, -held)
        else:
            touch = self._touch[0][c] if held > 0 else self._touch[1][c]
            slip = round(_SLIP / LEVEL) * (-1 if held > 0 else 1)
            limit = int(exchange.books.ticks[c, touch + slip])
            exchange.order(row, c, -held, limit=limit)
        if accounts.lots[:, row].any():
            return
        debt = -int(accounts.cash[row])
        if debt > 0:
            # A stop that slipped beyond the margin leaves a debt, which the fund covers.
            fund = accounts.role(int(accounts.venue[row]), Kind.FUND)
            exchange.pay(fund, row, debt)
            exchange.note_fund(row, fund, -debt)
        accounts.close(row)
