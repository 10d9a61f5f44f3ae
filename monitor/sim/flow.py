"""Everybody who trades by choice: noise, directional traders, carry, arbitrage, large orders.

Each class acts once a step through `Exchange` and takes a fixed number of random draws whatever
it does, so that a twin run sees the same people wanting the same things.
"""

import math

import numpy as np
from numpy.typing import NDArray

from monitor.sim.accounts import Kind, Watch
from monitor.sim.chance import Draws
from monitor.sim.exchange import Exchange
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.population import RETAIL, RETAIL_WEIGHT, SLOW
from monitor.sim.rules import MICRO
from monitor.sim.scenarios import LargeOrder

_DAY_S = 86_400.0
# Voluntary and stop orders accept this slippage from where the step began, as a ratio.
_SLIP = 0.002
# No single step of noise trades more than this multiple of its mean.
_VOLUME_MAX = 8.0


def interest_of(exchange: Exchange, assets: tuple[Asset, ...]) -> NDArray[np.float64]:
    """Intended one-sided open interest of every contract, USD."""
    return np.array(
        [
            assets[c.asset_index].open_interest_usd * exchange.venues[c.venue_index].share
            for c in exchange.contracts
        ]
    )


class Noise:
    """Churn: takers without a view, with imbalance that lasts (AR(1)) or that feeds itself."""

    def __init__(
        self,
        exchange: Exchange,
        assets: tuple[Asset, ...],
        parameters: Parameters,
        *,
        seed: int,
        step_s: float,
    ) -> None:
        self._exchange, self._parameters, self._step_s = exchange, parameters, step_s
        count = len(exchange.contracts)
        self._assets = len(assets)
        # One draw per contract and one per asset: flow on one asset is common to its venues.
        self._normal = Draws(seed, "noise", kind="normal", width=count + self._assets)
        self._volume = Draws(seed, "noise_volume", kind="exponential", width=2 * count)
        interest = interest_of(exchange, assets)
        self._mean_usd = interest * (parameters.churn_per_day / _DAY_S * step_s)
        self._limit_usd = interest * 0.03
        self._imbalance = np.zeros(count)
        self._excitement = np.zeros((2, count))

    def step(self, stress: float, survival: NDArray[np.float64]) -> None:
        """Trade for one step; `stress` is the volatility ratio, with which activity grows.

        `survival` is the share of depth left: takers do not lean on a book that is not there.
        """
        exchange, p = self._exchange, self._parameters
        draw = self._normal.row()
        common = np.tile(draw[-self._assets :], len(exchange.venues))
        keep = math.exp(-self._step_s / p.imbalance_s)
        spread = p.imbalance_sd * math.sqrt(1 - keep * keep)
        mixed = 0.6 * common + 0.8 * draw[: len(exchange.contracts)]
        self._imbalance = self._imbalance * keep + spread * mixed
        accounts = exchange.accounts
        lean = np.zeros(len(exchange.contracts))
        for c, contract in enumerate(exchange.contracts):
            row = accounts.role(contract.venue_index, Kind.NOISE)
            held = exchange.value(c, int(accounts.lots[contract.asset_index, row])) / MICRO
            lean[c] = held / self._limit_usd[c]
        skew = np.clip((self._imbalance - 0.5 * lean) * survival, -0.95, 0.95)
        activity = self._mean_usd * min(4.0, 0.5 + 0.5 * stress)
        buys, sells = self._sizes(activity, skew)
        lot_usd = [exchange.value(c, 1) / MICRO for c in range(len(skew))]
        for c, unit in enumerate(lot_usd):
            row = accounts.role(exchange.contracts[c].venue_index, Kind.NOISE)
            exchange.order(row, c, int(buys[c] / unit))
            exchange.order(row, c, -int(sells[c] / unit))

    def _sizes(
        self, activity: NDArray[np.float64], skew: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """USD bought and sold in this step per contract."""
        p, count = self._parameters, len(skew)
        random = np.minimum(self._volume.row(), _VOLUME_MAX)
        up, down = 0.5 * (1 + skew), 0.5 * (1 - skew)
        if p.flow_law == "hawkes":
            # Each side is excited by its own past volume; the mean stays that of the base rate.
            base = 1.0 - p.hawkes_branching
            rates = base * np.stack([up, down]) + p.hawkes_branching * self._excitement
            sizes = rates * random.reshape(2, count)
            fade = math.exp(-self._step_s / p.hawkes_s)
            self._excitement = self._excitement * fade + (1 - fade) * sizes
            return sizes[0] * activity, sizes[1] * activity
        calm = 0.4 + 0.6 * random.reshape(2, count)
        return activity * up * calm[0], activity * down * calm[1]


class Directional:
    """Traders with a view: they enter with the trend, keep a while, leave, or are stopped out."""

    _WIDTH = 10

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
        self._candidates = max(1, math.ceil(2 * self._rate * p.heat_max))
        self._leavers = max(1, math.ceil(2 * self._rate))
        self._step_s = step_s
        self._entries = Draws(seed, "entries", kind="uniform", width=self._WIDTH * self._candidates)
        self._sizes = Draws(seed, "entry_sizes", kind="normal", width=self._candidates)
        self._exits = Draws(seed, "exits", kind="uniform", width=2 * self._leavers)
        self._ladder = np.cumsum(RETAIL_WEIGHT)
        self._touch: tuple[list[int], list[int]] = ([], [])

    def step(self, trend: NDArray[np.float64], heat: float, watch: Watch) -> None:
        """One step of stops, exits and entries.

        `trend` is the 4 h move per asset in sigmas; `heat` multiplies the rate of entries.
        """
        books = self._exchange.books
        self._touch = (list(books.bid), list(books.ask))
        self._stop_out(watch)
        self._leave()
        draw = self._entries.row()
        sizes = self._sizes.row()
        wide = draw.reshape(self._candidates, self._WIDTH)
        # At most twice the hot rate: whoever draws more than that does not come in any case.
        likely = np.nonzero(wide[:, 0] * self._candidates < self._rate * heat * 2.0)[0]
        for i in likely.tolist():
            row = wide[i].tolist()
            c = min(int(np.searchsorted(self._cumulative, row[1])), len(self._cumulative) - 1)
            pull = float(trend[self._exchange.contracts[c].asset_index])
            # Entries rise with the trend, up to twice the normal rate.
            eager = heat * min(2.0, 0.8 + 0.2 * abs(pull))
            if row[0] * self._candidates < self._rate * eager:
                self._enter(c, pull, row, float(sizes[i]), heat)

    def _enter(self, c: int, pull: float, u: list[float], z: float, heat: float) -> None:
        exchange, p = self._exchange, self._parameters
        contract, accounts = exchange.contracts[c], exchange.accounts
        # Whom a storm draws in comes on either side, and to trade fast; only the usual ones follow
        # the trend. If all did, trend and entries would feed each other without end.
        lean = p.long_bias + min(max(p.trend_slope * pull, -p.trend_lean_max), p.trend_lean_max)
        lean /= heat
        sign = 1 if u[2] < 1 / (1 + math.exp(-lean)) else -1
        usd = min(p.size_median_usd * math.exp(p.size_sigma * z), p.size_cap_usd)
        lots = int(usd * MICRO) // exchange.value(c, 1)
        leverage = (
            float(SLOW[int(u[4] * len(SLOW))])
            if u[3] < p.slow_share / heat
            else float(RETAIL[min(int(np.searchsorted(self._ladder, u[4])), len(RETAIL) - 1)])
        )
        cross = u[5] < p.cross_share
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
        elif u[8] < p.stop_share:
            mark = int(exchange.marks[c])
            stop = round(mark * (1 - sign * p.stop_distance / leverage))
            accounts.stop[contract.asset_index, row] = max(1, stop)

    def _leave(self) -> None:
        """Random holders close at market; those who lose hold on longer (C1)."""
        exchange, p = self._exchange, self._parameters
        accounts = exchange.accounts
        draw = self._exits.row()
        chance = accounts.count * self._step_s / p.life_s / self._leavers
        for i in range(self._leavers):
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

    def _stop_out(self, watch: Watch) -> None:
        for a, row in watch.stopped(self._exchange.marks):
            self._close(row, a)

    def _close(self, row: int, asset: int) -> None:
        """Close one position; an account without positions or debt leaves.

        Orders are protected against slippage: what a thin book does not take waits a step.
        """
        exchange = self._exchange
        accounts = exchange.accounts
        held = int(accounts.lots[asset, row])
        if held == 0:
            return
        c = int(accounts.venue[row]) * accounts.assets + asset
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


class Carry:
    """Hedgers at 1x who take the directional imbalance off the makers, slowly."""

    _SHARE_PER_S = 1 / 1_800.0

    def __init__(self, exchange: Exchange, step_s: float) -> None:
        self._exchange = exchange
        self._share = min(1.0, self._SHARE_PER_S * step_s)
        self._turn = 0

    def step(self) -> None:
        """One contract in turn: trade a share of the makers' inventory towards zero."""
        exchange = self._exchange
        accounts = exchange.accounts
        count = len(exchange.contracts)
        self._turn = (self._turn + 1) % count
        contract = exchange.contracts[self._turn]
        maker = accounts.role(contract.venue_index, Kind.MAKER)
        noise = accounts.role(contract.venue_index, Kind.NOISE)
        held = int(accounts.lots[contract.asset_index, maker])
        held += int(accounts.lots[contract.asset_index, noise])
        lots = int(held * self._share * count)
        if lots == 0:
            return
        row = accounts.role(contract.venue_index, Kind.CARRY)
        accounts.pay_in(row, abs(exchange.value(self._turn, lots)))
        # Carry trades rest in the book: they are makers who keep what they get.
        exchange.passive(row, self._turn, lots)


class Arbitrage:
    """Keeps the venues together: sells where it is dear, buys where it is cheap, after a delay.

    Capital is finite: the gap it demands grows with what it already holds on a venue.
    """

    def __init__(
        self,
        exchange: Exchange,
        assets: tuple[Asset, ...],
        parameters: Parameters,
        step_s: float,
    ) -> None:
        self._exchange, self._parameters = exchange, parameters
        self._shape = (len(exchange.venues), len(assets))
        self._limit_usd = interest_of(exchange, assets) * parameters.arbitrage_capital
        self._depth_usd = np.array(
            [
                assets[c.asset_index].depth_usd * exchange.venues[c.venue_index].share
                for c in exchange.contracts
            ]
        )
        delay = max(1, round(parameters.arbitrage_latency_s / step_s))
        self._seen = [exchange.books.mid() for _ in range(delay)]
        self._step_s = step_s
        self._weight = np.array([v.share for v in exchange.venues])[:, None]

    def step(self, is_out: NDArray[np.bool_], survival: NDArray[np.float64]) -> None:
        """Trade on the mids seen `latency` ago; venues that are out are left alone."""
        exchange, p = self._exchange, self._parameters
        self._seen.append(exchange.books.mid())
        mids = self._seen.pop(0).reshape(self._shape)
        live = np.where(is_out, 0.0, self._weight.ravel())[:, None]
        fair = (mids * live).cumsum(axis=0)[-1] / max(float(live.cumsum()[-1]), 1e-9)
        accounts = exchange.accounts
        rows = [accounts.role(v, Kind.ARBITRAGE) for v in range(self._shape[0])]
        unit = np.array([exchange.value(c, 1) / MICRO for c in range(len(exchange.contracts))])
        held = accounts.lots[:, rows].T.ravel() * unit
        threshold = p.arbitrage_threshold / LEVEL
        gap = (mids - fair).ravel() + 6.0 * held / self._limit_usd
        beyond = np.sign(gap) * np.maximum(np.abs(gap) - threshold, 0.0)
        # Half the gap closes per second, at the depth that a level holds near the touch.
        speed = min(1.0, 0.5 * self._step_s)
        usd = beyond * speed * (self._depth_usd * survival * p.depth_scale * LEVEL / 0.01)
        room = np.maximum(self._limit_usd - np.abs(held), 0.0)
        grows = np.sign(-usd) == np.sign(held)
        usd = np.where(grows, np.clip(usd, -room, room), usd)
        now = exchange.books.mid()
        for c in np.nonzero(np.abs(usd) > unit)[0].tolist():
            contract = exchange.contracts[c]
            if is_out[contract.venue_index]:
                continue
            # Never beyond halfway to the fair price seen: latency must not make them overshoot.
            level = round(0.5 * (float(now[c]) + float(fair[contract.asset_index])))
            limit = int(exchange.books.ticks[c, level])
            lots = -int(usd[c] / unit[c])
            exchange.order(rows[contract.venue_index], c, lots, limit=limit)


class LargeOrders:
    """The scenario's large orders, spread evenly over their time and all venues."""

    def __init__(
        self,
        exchange: Exchange,
        assets: tuple[Asset, ...],
        orders: tuple[LargeOrder, ...],
        step_s: float,
    ) -> None:
        self._exchange, self._assets, self._orders = exchange, assets, orders
        self._step_s, self._elapsed_s = step_s, 0.0

    def step(self) -> None:
        """Trade what falls into this step."""
        exchange = self._exchange
        start = self._elapsed_s
        self._elapsed_s += self._step_s
        for order in self._orders:
            first = max(start, order.start_s)
            last = min(self._elapsed_s, order.start_s + order.over_s)
            if last <= first:
                continue
            for c, contract in enumerate(exchange.contracts):
                asset = self._assets[contract.asset_index]
                if order.asset not in (None, asset.name):
                    continue
                venue = exchange.venues[contract.venue_index]
                usd = asset.depth_usd * venue.share * order.depth_ratio
                usd *= (last - first) / order.over_s
                lots = int(usd * MICRO) // exchange.value(c, 1)
                row = exchange.accounts.role(contract.venue_index, Kind.NOISE)
                exchange.order(row, c, lots if order.side == "buy" else -lots)
