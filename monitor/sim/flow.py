"""Who trades by choice without a view: noise, carry, arbitrage, large orders.

Each class acts once a step through `Exchange` and takes a fixed number of random draws whatever
it does, so that a twin run sees the same people wanting the same things.
"""

import math

import numpy as np
from numpy.typing import NDArray

from monitor.sim.accounts import Kind
from monitor.sim.chance import Draws
from monitor.sim.exchange import Exchange
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.rules import MICRO
from monitor.sim.scenarios import LargeOrder

_DAY_S = 86_400.0
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


def burden(
    exchange: Exchange, c: int, interest: NDArray[np.float64], parameters: Parameters
) -> int:
    """Signed lots that the makers of a contract hold beyond what they usually bear."""
    contract = exchange.contracts[c]
    row = exchange.accounts.role(contract.venue_index, Kind.MAKER)
    held = int(exchange.accounts.lots[contract.asset_index, row])
    usual = round(parameters.maker_share * float(interest[c]) * MICRO) // exchange.value(c, 1)
    return max(0, held - usual) + min(0, held + usual)


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


class Carry:
    """Hedgers at 1x who take the directional imbalance off the makers, slowly."""

    _SHARE_PER_S = 1 / 1_800.0

    def __init__(
        self,
        exchange: Exchange,
        assets: tuple[Asset, ...],
        parameters: Parameters,
        step_s: float,
    ) -> None:
        self._exchange, self._parameters = exchange, parameters
        self._interest = interest_of(exchange, assets)
        self._share = min(1.0, self._SHARE_PER_S * step_s)
        self._turn = 0

    def step(self, heat: float) -> None:
        """One contract in turn: trade a share of the makers' inventory towards zero.

        To close a hedge pays as soon as a storm puts the perpetual on the wrong side of spot, so
        that goes with `heat`; to open one needs new money and keeps its pace.
        """
        exchange = self._exchange
        accounts = exchange.accounts
        count = len(exchange.contracts)
        self._turn = (self._turn + 1) % count
        contract = exchange.contracts[self._turn]
        maker = accounts.role(contract.venue_index, Kind.MAKER)
        noise = accounts.role(contract.venue_index, Kind.NOISE)
        held = int(accounts.lots[contract.asset_index, maker])
        held += int(accounts.lots[contract.asset_index, noise])
        row = accounts.role(contract.venue_index, Kind.CARRY)
        hedge = int(accounts.lots[contract.asset_index, row])
        share = self._share * count
        lots = int(held * share)
        beyond = burden(exchange, self._turn, self._interest, self._parameters)
        if beyond * hedge < 0:
            more = int(beyond * min(1.0, share * (heat - 1.0)))
            lots += max(-abs(hedge), min(abs(hedge), more))
        if lots == 0:
            return
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
