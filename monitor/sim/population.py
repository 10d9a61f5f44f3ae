"""Who holds what at the start: positions opened along a synthetic past and still alive.

Entries are drawn along a past price path; whoever would have been liquidated on the way is not
there any more, which is what keeps the mass near the price realistic.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from monitor.sim.accounts import Accounts, Kind
from monitor.sim.chance import generator
from monitor.sim.fundamental import past_path
from monitor.sim.parameters import LEVEL, Asset, Parameters
from monitor.sim.rules import MICRO, Contract, Venue

_PATH_STEP_S = 300.0
# Least and usual adverse excursion since entry, in standard deviations of a random walk (whose
# median is 0.67); the gate's figure of fuel near the price decided on the usual one.
_LEAST_ADVERSE = 0.17
_USUAL_ADVERSE = 0.16

CROWD_S = 5_400.0
"""The crowd has come in this time, evenly."""

RETAIL = np.array([10.0, 20.0, 25.0, 50.0, 75.0, 100.0])
RETAIL_WEIGHT = np.array([0.30, 0.25, 0.15, 0.15, 0.05, 0.10])
"""Leverage of the fast traders and its weights (model.md C1)."""
SLOW = np.array([2.0, 3.0, 4.0, 5.0, 7.0, 10.0])
"""Leverage of the slow traders, equally likely (model.md C1)."""


class _Draft(Struct, frozen=True):
    """Candidate positions of one contract and side, as equal-length arrays; entry in levels."""

    entry: NDArray[np.float64]
    usd: NDArray[np.float64]
    leverage: NDArray[np.float64]
    cross: NDArray[np.bool_]
    stop: NDArray[np.bool_]
    alternative: NDArray[np.bool_]
    worst: NDArray[np.float64]
    crowd: NDArray[np.bool_]


class Population:
    """Fills the table of accounts so that longs equal shorts in every contract.

    Attributes:
        path: past levels of every asset, oldest first, shape (moments, assets).
        crowd: lots of each contract that came lately, in the last `CROWD_S`.
    """

    def __init__(
        self,
        venues: tuple[Venue, ...],
        contracts: tuple[Contract, ...],
        assets: tuple[Asset, ...],
        parameters: Parameters,
        *,
        seed: int,
        collateral_share: float,
    ) -> None:
        self._venues, self._contracts, self._assets = venues, contracts, assets
        self._parameters = parameters
        self._collateral_ppm = round(collateral_share * MICRO)
        self._chance = generator(seed, "population")
        steps = round(parameters.history_s / _PATH_STEP_S)
        self.path = past_path(
            assets, parameters, generator(seed, "past_path"), steps=steps, step_s=_PATH_STEP_S
        )
        if parameters.crowd_share > 0.0:
            self._lead_through_the_crowd()
        # Lowest and highest level between each past moment and now: who survived them is here.
        backwards = self.path[::-1]
        self.crowd = np.zeros(len(contracts), dtype=np.int64)
        self._lowest = np.minimum.accumulate(backwards, axis=0)[::-1]
        self._highest = np.maximum.accumulate(backwards, axis=0)[::-1]

    def _lead_through_the_crowd(self) -> None:
        """The price spent the crowd's time where the crowd entered, and has just left it."""
        p = self._parameters
        steps = round(CROWD_S / _PATH_STEP_S)
        level = (1 if p.crowd_side == "long" else -1) * p.crowd_entry / LEVEL
        since = np.arange(1, steps + 1)
        there = np.minimum(np.minimum(since / 4, (steps + 1 - since) / 4), 1.0)[:, None]
        lately = self.path[-steps - 1 : -1]
        lately += there * (level - lately)

    def settle_in(self, accounts: Accounts, marks: NDArray[np.int64]) -> None:
        """Open every account of the start at `marks`, and hedge the imbalance with carry."""
        p = self._parameters
        for contract in self._contracts:
            asset = self._assets[contract.asset_index]
            interest = asset.open_interest_usd * self._venues[contract.venue_index].share
            net = 0
            # Longs outnumber shorts; carry traders hold the other side at 1x (funding pays them).
            for sign, share in ((1, 1.0 - p.hedged_share / 4), (-1, 1.0 - 7 * p.hedged_share / 4)):
                draft = self._draft(contract, sign, interest * share)
                net += self._open(
                    accounts, contract, draft, sign=sign, target_usd=interest * share, marks=marks
                )
            self._hedge(accounts, contract, net, interest * p.hedged_share / 4, marks)
        for contract in self._contracts:
            self._balance(accounts, contract)
        self._fund(accounts)

    # ------------------------------------------------------------------------------ drafts

    def _draft(self, contract: Contract, sign: int, target_usd: float) -> _Draft:
        p, chance, a = self._parameters, self._chance, contract.asset_index
        mean = p.size_median_usd * float(np.exp(p.size_sigma**2 / 2))
        count = max(200, int(2.2 * target_usd / min(mean, p.size_cap_usd)))
        steps = len(self.path)
        age = np.minimum(chance.exponential(p.life_s / _PATH_STEP_S, count), steps - 2)
        index = steps - 1 - age.astype(np.int64)
        usd = np.minimum(
            p.size_median_usd * np.exp(p.size_sigma * chance.standard_normal(count)), p.size_cap_usd
        )
        slow = chance.random(count) < p.slow_share
        leverage = np.where(
            slow,
            chance.choice(SLOW, count),
            chance.choice(RETAIL, count, p=RETAIL_WEIGHT),
        )
        entry = self.path[index, a] + chance.normal(0.0, 5.0, count)
        cross = chance.random(count) < p.cross_share
        # A cross account stands behind each position with more than its margin (C1).
        leverage = np.where(cross, leverage * chance.uniform(0.15, 0.6, count), leverage)
        extreme = self._lowest if sign > 0 else self._highest
        # A path that ends at its extreme would leave everybody's liquidation at the door, and one
        # that has just recovered nobody's: each position has seen at least a little, and who saw
        # much has added margin, so that in logs half of what its age makes usual remains.
        daily = self._assets[a].volatility_daily
        scale = daily / LEVEL * np.sqrt((steps - index) * _PATH_STEP_S / 86_400)
        seen = np.maximum(-sign * extreme[index, a], _LEAST_ADVERSE * scale)
        worst = -sign * np.rint(np.sqrt(seen * (_USUAL_ADVERSE * scale)))
        crowd = np.zeros(count, dtype=np.bool_)
        drawn = chance.random(count)
        where = chance.normal(p.crowd_entry / LEVEL, p.crowd_width / LEVEL, count)
        bets = chance.choice(np.array(p.crowd_leverage), count)
        if (p.crowd_side == "long") == (sign > 0):
            crowd = drawn < p.crowd_share
        # The crowd came lately, entered near today's price and has seen no extreme yet.
        entry = np.where(crowd, sign * where, entry)
        leverage = np.where(crowd, bets, leverage)
        worst = np.where(crowd, 0.0, worst)
        return _Draft(
            entry=entry,
            usd=usd,
            leverage=np.maximum(leverage, 1.2),
            cross=np.where(crowd, p.crowd_cross, cross),
            stop=(chance.random(count) < p.stop_share) & ~crowd,
            # Who pledges coins instead of dollars is long of them anyway.
            alternative=(chance.random(count) < 0.5) & (sign > 0),
            worst=worst,
            crowd=crowd,
        )

    def _open(
        self,
        accounts: Accounts,
        contract: Contract,
        draft: _Draft,
        *,
        sign: int,
        target_usd: float,
        marks: NDArray[np.int64],
    ) -> int:
        """Open the survivors until `target_usd` is held; returns the signed lots."""
        mark = int(marks[contract.index])
        ratio = np.exp(draft.entry * LEVEL)
        entry = np.maximum(np.rint(mark * ratio), 1).astype(np.int64)
        lots = (draft.usd * MICRO / (entry * contract.unit)).astype(np.int64)
        cost = lots * entry * contract.unit
        margin = (cost / draft.leverage).astype(np.int64)
        index = np.full(len(lots), contract.index)
        # Survival is asked of equity and maintenance at the worst price since entry and today.
        alive = lots > 0
        for level in (draft.worst, np.zeros(len(lots))):
            price = np.rint(mark * np.exp(level * LEVEL)).astype(np.int64)
            value = lots * price * contract.unit
            needed = accounts.tiers.maintenance(index, lots, value)
            alive &= margin + sign * (value - cost) > needed + needed // 20
        stops = self._stops(entry, draft, sign)
        worst = np.rint(mark * np.exp(draft.worst * LEVEL)).astype(np.int64)
        # Whoever was stopped out since entry has left; a stop that the past could not test waits.
        alive &= (stops == 0) | ((stops < worst) if sign > 0 else (stops > worst))
        held = np.cumsum(np.where(alive, lots * (mark * contract.unit), 0))
        alive &= held <= round(target_usd * MICRO)
        chosen = np.nonzero(alive)[0]
        for i in chosen.tolist():
            self._admit(
                accounts,
                contract,
                i=i,
                draft=draft,
                sign=sign,
                lots=lots,
                cost=cost,
                margin=margin,
                stops=stops,
            )
        self.crowd[contract.index] += lots[alive & draft.crowd].sum()
        return sign * int(lots[chosen].sum())

    def _stops(self, entry: NDArray[np.int64], draft: _Draft, sign: int) -> NDArray[np.int64]:
        """Stop price in ticks at a share of the way to losing the margin, 0 for none."""
        away = entry * (1.0 - sign * self._parameters.stop_distance / draft.leverage)
        price = np.maximum(np.rint(away), 1).astype(np.int64)
        return np.where(draft.stop, price, 0)

    def _admit(
        self,
        accounts: Accounts,
        contract: Contract,
        *,
        i: int,
        draft: _Draft,
        sign: int,
        lots: NDArray[np.int64],
        cost: NDArray[np.int64],
        margin: NDArray[np.int64],
        stops: NDArray[np.int64],
    ) -> None:
        cross = bool(draft.cross[i])
        row = self._shared_row(accounts, contract) if cross else -1
        if row < 0:
            kind = Kind.CROSS if cross else Kind.ISOLATED
            alternative = self._collateral_ppm if cross and draft.alternative[i] else 0
            row = accounts.open(contract.venue_index, kind, int(margin[i]), alternative)
            if row < 0:
                return
        else:
            accounts.pay_in(row, int(margin[i]))
        accounts.fill(row, contract.asset_index, sign * int(lots[i]), sign * int(cost[i]))
        accounts.stop[contract.asset_index, row] = int(stops[i])

    def _shared_row(self, accounts: Accounts, contract: Contract) -> int:
        """A cross account of the venue without a position in this asset, or -1 for a new one."""
        if contract.asset_index == 0 or self._chance.random() > 0.35:
            return -1
        row = int(self._chance.integers(0, accounts.count))
        fits = (
            accounts.kind[row] == Kind.CROSS
            and accounts.venue[row] == contract.venue_index
            and accounts.lots[contract.asset_index, row] == 0
        )
        return row if fits else -1

    # ------------------------------------------------------------------ the market's own

    def _hedge(
        self,
        accounts: Accounts,
        contract: Contract,
        net: int,
        base_usd: float,
        marks: NDArray[np.int64],
    ) -> None:
        """The carry account takes the other side of `net`; hedged pairs add `base_usd`."""
        mark, venue = int(marks[contract.index]), contract.venue_index
        row = accounts.role(venue, Kind.CARRY)
        value = abs(net) * mark * contract.unit
        accounts.pay_in(row, value)
        accounts.fill(row, contract.asset_index, -net, -net * mark * contract.unit)
        # Hedged pairs: long here, short elsewhere, at 1x; the arbitrage account is the other leg.
        lots = int(base_usd * MICRO) // (mark * contract.unit)
        pair = accounts.open(venue, Kind.CARRY, lots * mark * contract.unit)
        other = accounts.open(venue, Kind.CARRY, lots * mark * contract.unit)
        for holder, sign in ((pair, 1), (other, -1)):
            accounts.fill(
                holder, contract.asset_index, sign * lots, sign * lots * mark * contract.unit
            )

    def _balance(self, accounts: Accounts, contract: Contract) -> None:
        """Book what past entries at different prices won or lost against one another.

        Longs and shorts opened at different times; the makers between them realised the
        difference, so that cash minus cost equals the deposits from the first step on.
        """
        here = accounts.venue[: accounts.count] == contract.venue_index
        cost = accounts.cost[contract.asset_index, : accounts.count]
        maker = accounts.role(contract.venue_index, Kind.MAKER)
        accounts.cash[maker] += int(cost[here].sum())

    def _fund(self, accounts: Accounts) -> None:
        total = sum(a.open_interest_usd for a in self._assets)
        for v, venue in enumerate(self._venues):
            money = round(total * venue.share * self._parameters.fund_share * MICRO)
            accounts.pay_in(accounts.role(v, Kind.FUND), money)
            # Makers, noise traders and arbitrageurs bring capital of their own.
            for role in (Kind.MAKER, Kind.NOISE, Kind.ARBITRAGE):
                accounts.pay_in(accounts.role(v, role), round(total * venue.share * MICRO))
