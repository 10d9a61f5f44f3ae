"""What stands behind forced closes beyond their margin: insurance funds, and how long they last.

A venue's fund is one pool or several; contracts share a pool. Money is USD (model.md A13.4).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from monitor.core.cascade.insurance import VenueFund, runway
from monitor.core.instrument import FUND_FRESH_NS, Fund, InstrumentState
from monitor.events import InsuranceFund

DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "FDUSD"})
"""Currencies that count as a dollar each."""

RUNWAY_MOST: Final = 1e3
"""A runway is told up to this: beyond it what is expected to be lost is next to nothing."""


def pool_of(event: InsuranceFund, states: Iterable[InstrumentState]) -> str:
    """The pool that is told of: that of a contract it covers, or one told alike, or a new one.

    What was once told alike stays one pool: readings of it moments apart differ while it pays.
    """
    told = [state for state in states if state.fund is not None and state.spec.venue == event.venue]
    for state in told:
        if state.spec.name in event.covers and state.fund is not None:
            return state.fund.pool
    for state in told:
        if state.fund is not None and state.fund.balances == event.balances:
            return state.fund.pool
    return event.covers[0] if event.covers else event.venue


def valued(event: InsuranceFund, prices: Mapping[str, float | None], at: int, *, pool: str) -> Fund:
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
    return Fund(event.balances, sum(usd) if usd else None, tuple(unvalued), at, pool)


def by_venue(states: Iterable[InstrumentState], at: int) -> dict[str, VenueFund]:
    """The pools of each venue together that cover one of these, heard lately; absent is unknown.

    Of contracts that share a pool the newest telling counts. A pool in which nothing has a price is
    unknown.
    """
    pools: dict[str, dict[str, Fund]] = {}
    for state in states:
        fund = state.fund
        if fund is None or fund.usd is None or at - fund.heard_at > FUND_FRESH_NS:
            continue
        known = pools.setdefault(state.spec.venue, {})
        if fund.pool not in known or fund.heard_at > known[fund.pool].heard_at:
            known[fund.pool] = fund
    return {
        venue: VenueFund(
            usd=sum(fund.usd or 0.0 for fund in found.values()),
            unvalued=list(dict.fromkeys(n for fund in found.values() for n in fund.unvalued)),
        )
        for venue, found in pools.items()
    }


def runways(funds: Mapping[str, VenueFund], shortfalls: Mapping[str, float]) -> dict[str, float]:
    """Fund over expected shortfall by venue; below 1 winners are closed.

    Absent while either is unknown, and where nothing is expected to be lost.
    """
    found = (runway(venue, funds.get(venue), lost) for venue, lost in shortfalls.items())
    return {one.name: min(one.ratio, RUNWAY_MOST) for one in found if one.ratio is not None}
