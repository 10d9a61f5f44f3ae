"""Open interest in a storm: what is force-closed leaves, and comes back later."""

import msgspec
import numpy as np
import pytest

from monitor.sim.accounts import Kind, Watch
from monitor.sim.flow import Carry, burden, interest_of
from monitor.sim.market import Market
from monitor.sim.parameters import ASSETS, FIRST
from monitor.sim.scenarios import scenario
from monitor.sim.traders import Directional

SMALL = 0.1


def interest(market):
    """What is held on one side, at the prices of the start, micro-USD."""
    return sum(
        lots * c.unit * int(market.books.ticks[c.index, market.books.ticks.shape[1] // 2])
        for c, lots in zip(market.contracts, market.accounts.longs, strict=True)
    )


def closed_by_force(market, step):
    return sum(
        (r.filled + r.taken + r.adl) * market.contract(r.venue, r.asset).unit * int(r.trigger_tick)
        for r in step.liquidations
    )


def held_by_funds(market):
    rows = [market.accounts.role(c.venue_index, Kind.FUND) for c in market.contracts]
    return sum(
        abs(market.exchange.value(c.index, int(market.accounts.lots[c.asset_index, row])))
        for c, row in zip(market.contracts, rows, strict=True)
    )


@pytest.mark.parametrize("name", ["crash", "squeeze"])
def test_open_interest_falls_in_a_cascade_by_most_of_what_is_force_closed(name):
    market = Market(scenario(name), seed=1, population=SMALL)
    first, forced = interest(market), 0
    for _ in range(720):
        forced += closed_by_force(market, market.step())
    assert forced > 0.05 * first
    # What a fund has taken over is open until it has sold it.
    gone = forced - held_by_funds(market)
    assert 0.5 * gone < first - interest(market) < 2.0 * gone


def arrivals(desk, parameters, *, seconds, heat=1.0, build=None):
    """Numbers of the traders there are after so many seconds of the same heat."""
    traders = build or Directional(
        desk.exchange, ASSETS, parameters, seed=1, step_s=1.0, collateral_share=0.0
    )
    still = np.zeros(len(ASSETS))
    for _ in range(seconds):
        desk.exchange.at += 1_000_000_000
        traders.step(still, heat, Watch(desk.accounts))
        desk.books.requote(desk.books.centre.copy(), np.ones(len(desk.books.bid)), 1.0)
    rows = np.nonzero(desk.accounts.is_trader())[0]
    return traders, set(desk.accounts.number[rows].tolist())


@pytest.mark.parametrize(("return_s", "is_back"), [(3_600.0, True), (1e12, False)])
def test_who_was_closed_out_comes_back_with_time(desk, return_s, is_back):
    contract = desk.contract("binance")
    row = desk.trader("binance", usd=50e6, leverage=2.0)
    stage = msgspec.structs.replace(FIRST, return_s=return_s)
    traders, _ = arrivals(desk, stage, seconds=0)
    maker = desk.accounts.role(contract.venue_index, Kind.MAKER)
    held = int(desk.accounts.lots[0, row])
    desk.exchange.move(row, maker, contract.index, held, int(desk.exchange.marks[contract.index]))
    desk.accounts.close(row)
    _, came = arrivals(desk, stage, seconds=60, build=traders)
    assert (len(came) > 200) == is_back


def test_who_comes_for_the_storm_is_out_again(desk):
    brief = msgspec.structs.replace(FIRST, storm_life_s=60.0, storm_entries=1.0)
    traders, came = arrivals(desk, brief, seconds=30, heat=30.0)
    _, later = arrivals(desk, brief, seconds=400, build=traders)
    assert len(came) > 100
    assert len(came & later) < 0.2 * len(came)
    assert not any(desk.imbalance())


def burdened(desk, sign):
    """A maker left with a position, and a hedge on the other side of it or on its own."""
    c = desk.contract("okx").index
    accounts, mark = desk.accounts, int(desk.exchange.marks[c])
    maker, carry = (accounts.role(2, kind) for kind in (Kind.MAKER, Kind.CARRY))
    lots = round(100e6 * 1e6) // desk.exchange.value(c, 1)
    other = accounts.open(2, Kind.CARRY, 0)
    desk.exchange.move(other, maker, c, lots, mark)
    desk.exchange.move(other, carry, c, sign * lots, mark)
    return c, maker, carry, lots


@pytest.mark.parametrize(("hedge", "is_faster"), [(-1, True), (1, False)])
def test_heat_closes_hedges_but_opens_none(desk, hedge, is_faster):
    moved = []
    for heat in (1.0, 20.0):
        c, maker, _, lots = burdened(desk, hedge)
        flow = Carry(desk.exchange, ASSETS, FIRST, 1.0)
        before = int(desk.accounts.lots[0, maker])
        for _ in desk.exchange.contracts:
            flow.step(heat)
        moved.append(before - int(desk.accounts.lots[0, maker]))
        desk.exchange.move(maker, desk.accounts.role(2, Kind.NOISE), c, lots, 1)
        desk.accounts.lots[:] = 0
        desk.accounts.cost[:] = 0
    assert (moved[1] > 2 * moved[0]) == is_faster
    assert moved[0] > 0


def test_makers_bear_their_usual_inventory_themselves(desk):
    c, maker, _, _ = burdened(desk, -1)
    usual = interest_of(desk.exchange, ASSETS)
    held = int(desk.accounts.lots[0, maker])
    beyond = burden(desk.exchange, c, usual, FIRST)
    assert 0 < beyond < held
    desk.accounts.lots[0, maker] = -held
    assert burden(desk.exchange, c, usual, FIRST) == -beyond
    desk.accounts.lots[0, maker] = (held - beyond) // 2
    assert burden(desk.exchange, c, usual, FIRST) == 0
