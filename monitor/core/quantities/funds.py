"""What stands behind forced closes beyond their margin: insurance funds, and how long they last.

A venue's fund is one pool or several; contracts share a pool. Money is USD (model.md A13.4).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from monitor.core.cascade.insurance import VenueFund
from monitor.core.instrument import FUND_FRESH_NS, Fund, InstrumentState
from monitor.events import InsuranceFund

DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "FDUSD"})
"""Currencies that count as a dollar each."""

RUNWAY_MOST: Final = 1e6
"""A runway is told up to this, and as this where no shortfall is expected."""


def valued(event: InsuranceFund, prices: Mapping[str, float | None], at: int) -> Fund:
    """A pool as told at `at` (ns), in USD.

    `prices` are of assets by their name, None while unknown. A currency that is neither a dollar
    nor such an asset is left out and named.
    """
    usd: list[float] = []
    unvalued = []
    for currency, amount in event.balances.items():
        price = 1.0 if currency in DOLLARS else prices.get(currency)
        if price is None:
            unvalued.append(currency)
        else:
            usd.append(amount * price)
    return Fund(event.balances, sum(usd) if usd else None, tuple(unvalued), at)


def by_venue(states: Iterable[InstrumentState], at: int) -> dict[str, VenueFund]:
    """The pools of each venue together that cover one of these, heard lately; absent is unknown.

    Pools with the same balances are the same one, told again for another contract. A pool in which
    nothing has a price is unknown.
    """
    pools: dict[str, list[Fund]] = {}
    for state in states:
        fund = state.fund
        if fund is None or fund.usd is None or at - fund.heard_at > FUND_FRESH_NS:
            continue
        known = pools.setdefault(state.spec.venue, [])
        if all(fund.balances != other.balances for other in known):
            known.append(fund)
    return {
        venue: VenueFund(
            usd=sum(fund.usd or 0.0 for fund in found),
            unvalued=list(dict.fromkeys(name for fund in found for name in fund.unvalued)),
        )
        for venue, found in pools.items()
    }


def runways(funds: Mapping[str, VenueFund], shortfalls: Mapping[str, float]) -> dict[str, float]:
    """Fund over expected shortfall by venue, where both are known; below 1 winners are closed."""
    return {
        venue: min(max(funds[venue].usd, 0.0) / lost, RUNWAY_MOST) if lost > 0.0 else RUNWAY_MOST
        for venue, lost in shortfalls.items()
        if venue in funds
    }
