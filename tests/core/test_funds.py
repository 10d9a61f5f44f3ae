"""Insurance funds in USD and how long they last; how much of a move spot made as well."""

from math import e

import pytest

from monitor.core.instrument import FUND_FRESH_NS, InstrumentState
from monitor.core.quantities.funds import RUNWAY_MOST, by_venue, pool_of, runways, valued
from monitor.core.quantities.marks import SPOT_S, MarkTrack, spot_share
from monitor.events import NS, InsuranceFund, Tick
from tests.builders import instrument
from tests.core.test_quantities import risk_of, speak, told

START = 1_790_000_000 * NS


def pool(covers=("binance:BTCUSDT",), **balances):
    return InsuranceFund("binance", START, balances, tuple(covers))


def states(**funds):
    """An instrument a name such as ``bybit_BTC``, with its fund."""
    found = []
    for name, fund in funds.items():
        venue, _, asset = name.partition("_")
        state = InstrumentState(instrument(f"{asset}USDT", venue=venue))
        state.fund = fund
        found.append(state)
    return found


def worth(event, prices, at, of="okx:BTCUSDT"):
    return valued(event, prices, at, pool=of)


# ------------------------------------------------------------------------------------ funds


def test_dollars_count_as_such_coins_at_our_mark_and_the_rest_is_named():
    fund = worth(
        pool(USDT=10.0, USDC=5.0, BTC=2.0, ETH=3.0, BNFCR=7.0), {"BTC": 50.0, "ETH": None}, START
    )
    assert fund.usd == 10.0 + 5.0 + 2.0 * 50.0
    assert fund.unvalued == ("ETH", "BNFCR")


def test_a_fund_of_which_nothing_has_a_price_is_unknown_and_not_empty():
    fund = worth(pool(BNFCR=7.0), {}, START)
    assert fund.usd is None
    assert by_venue(states(binance_BTC=fund), START) == {}


def test_a_pool_that_several_contracts_share_counts_once():
    shared = [worth(pool(USDT=10.0), {}, START + n) for n in range(2)]
    own = worth(pool(USDT=4.0, BNFCR=1.0), {}, START, "okx:SOLUSDT")
    found = by_venue(
        states(okx_BTC=shared[0], okx_ETH=shared[1], okx_SOL=own, bybit_BTC=shared[0]), START
    )
    assert {venue: fund.usd for venue, fund in found.items()} == {"okx": 14.0, "bybit": 10.0}
    assert found["okx"].unvalued == ["BNFCR"]


def test_what_was_told_alike_stays_one_pool_when_later_readings_differ_by_moments():
    btc, eth = states(binance_BTC=None, binance_ETH=None)

    def told_of(state, at, usd):
        event = pool(covers=[state.spec.name], USDT=usd)
        state.fund = worth(event, {}, at, pool_of(event, (btc, eth)))

    told_of(btc, START, 10.0)
    told_of(eth, START + 1, 10.0)
    told_of(btc, START + 2, 6.0)
    assert by_venue((btc, eth), START + 3)["binance"].usd == 6.0
    told_of(eth, START + 3, 5.0)
    assert by_venue((btc, eth), START + 3)["binance"].usd == 5.0


def test_pools_that_were_never_told_alike_add_up():
    btc, eth = states(binance_BTC=None, binance_ETH=None)
    for state, usd in ((btc, 10.0), (eth, 7.0)):
        event = pool(covers=[state.spec.name], USDT=usd)
        state.fund = worth(event, {}, START, pool_of(event, (btc, eth)))
    assert by_venue((btc, eth), START)["binance"].usd == 17.0


def test_a_fund_that_was_not_heard_for_an_hour_is_unknown():
    known = states(okx_BTC=worth(pool(USDT=10.0), {}, START))
    assert by_venue(known, START + FUND_FRESH_NS)
    assert by_venue(known, START + FUND_FRESH_NS + 1) == {}
    assert by_venue(states(okx_BTC=None), START) == {}


def test_a_runway_is_the_fund_over_what_it_loses_where_both_are_known():
    held = by_venue(
        states(
            a_BTC=worth(pool(USDT=10.0), {}, START),
            b_BTC=worth(pool(USDT=-5.0), {}, START),
            c_BTC=worth(pool(USDT=7.0), {}, START),
        ),
        START,
    )
    assert runways(held, {"a": 20.0, "b": 1.0, "d": 3.0}) == {"a": 0.5, "b": 0.0}
    assert runways(held, {"c": 1e-3}) == {"c": RUNWAY_MOST}


def test_where_nothing_is_lost_there_is_no_runway_however_large_or_small_the_fund():
    held = by_venue(states(a_BTC=worth(pool(USDT=10.0), {}, START)), START)
    assert runways(held, {"a": 0.0, "b": 0.0}) == {}


def test_what_a_venue_says_of_its_fund_is_in_the_risk_with_its_runway():
    engine = told(0, 1)
    names = list(engine.instruments)
    assert [name.partition(":")[0] for name in names] == ["binance", "bybit"]
    for n in range(30):
        at = START + n * NS
        speak(engine, at, 100_000.0)
        risk = risk_of(engine, at)
    assert risk.quantities.insurance_fund_usd == {}
    assert risk.directions[0].quantities.insurance_runway_ratio == {}
    heard = InsuranceFund("binance", at, {"USDT": 1e6, "BTC": 10.0}, (names[0], "binance:NOPE"))
    engine.process(at, heard)
    for n in range(30, 45):
        at = START + n * NS
        speak(engine, at, 100_000.0)
        risk = risk_of(engine, at)
    assert risk.quantities.insurance_fund_usd == {"binance": pytest.approx(2e6)}
    for one in risk.directions:
        taken = one.quantities
        assert set(taken.venue_shortfall_usd) == {"binance", "bybit"}
        lost = taken.venue_shortfall_usd["binance"]
        expected = {"binance": pytest.approx(min(2e6 / lost, RUNWAY_MOST))} if lost > 0.0 else {}
        assert taken.insurance_runway_ratio == expected
        total = sum(taken.venue_shortfall_usd.values())
        # The whole is taken at the lowest of the margins, so it errs upwards.
        assert 0.98 * taken.insurance_shortfall_usd <= total <= taken.insurance_shortfall_usd
    found = engine.assets["BTC"].stress(at, -0.05)
    funds = {fund.name: fund.fund_usd for fund in found.funds}
    assert funds == {"binance": pytest.approx(2e6), "bybit": None}
    engine.process(at + FUND_FRESH_NS, Tick(at + FUND_FRESH_NS))
    assert engine.assets["BTC"].quantifier.taken.insurance_fund_usd == {}


# ------------------------------------------------------------------------------- spot's share


def walked(last, index, seconds=SPOT_S + 1):
    """A track on which the last price and the index have moved evenly by these log moves."""
    track = MarkTrack()
    for n in range(seconds):
        part = n / (seconds - 1)
        spot = None if index is None else 100.0 * e ** (part * index)
        track.second(START + n * NS, 100.0, spot, 100.0 * e ** (part * last), n)
    return track.moved(START + (seconds - 1) * NS)


def test_the_share_is_that_of_spot_in_the_move_of_the_last_minute():
    assert spot_share([walked(-0.01, -0.004)]) == pytest.approx(0.4)
    assert spot_share([walked(0.01, 0.02)]) == 1.0
    assert spot_share([walked(0.01, -0.003)]) == 0.0


def test_the_largest_move_is_the_one_that_is_told():
    assert spot_share([walked(-0.003, -0.003), walked(-0.01, -0.002)]) == pytest.approx(0.2)


def test_noise_an_unheard_index_and_a_short_past_have_no_share():
    assert spot_share([walked(-0.0019, 0.0)]) is None
    assert spot_share([walked(-0.01, None)]) is None
    assert spot_share([walked(-0.01, 0.0, seconds=SPOT_S)]) is None
    assert spot_share([]) is None
